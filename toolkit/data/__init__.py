"""Evaluation sets: BEIR folders, pair files, mteb tasks and the built-in set."""
