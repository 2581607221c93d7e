"""What the backends of databases share: their notation, addresses, and many clients at once."""
