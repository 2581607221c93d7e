"""The embedding server: OpenAI's API, and Cohere's and TEI's, over an engine's queue. Knows no engine by name."""
