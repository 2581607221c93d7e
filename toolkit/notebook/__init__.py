"""Results and recommendations as a notebook shows them."""
