"""From vectors to neighbours: exact search at all dimensions at once, and FAISS by factory string."""
