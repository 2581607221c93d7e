"""From finished strings to full-dimension vectors: engines, their configs and the vector cache."""
