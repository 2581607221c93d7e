"""Milvus as an index backend."""
