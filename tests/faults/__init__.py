"""Faults on purpose: what is killed, cut off, corrupted, refused or lied to ends as if nothing had happened."""
