"""Whether an embedding server does what its API promises, and how fast it is. Serves nothing."""
