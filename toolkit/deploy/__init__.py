"""A chosen setting to take along: as a few lines of code, and as plain facts. Decides nothing."""
