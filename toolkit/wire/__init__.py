"""The JSON of embedding servers: OpenAI's, Cohere's and TEI's. Knows no model, no HTTP library and no socket."""
