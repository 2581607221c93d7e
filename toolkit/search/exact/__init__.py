"""Exact search at every dimension from one pass over the full vectors."""
