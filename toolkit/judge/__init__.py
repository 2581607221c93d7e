"""Judgements by a person, of the queries that decide most: what to draw, what to show, and what was answered."""
