"""FAISS indexes by factory string."""
