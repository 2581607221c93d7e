"""PostgreSQL with pgvector as an index backend."""
