"""Offline scoring: a model over a whole file of rows, in memory that does not grow with the file, and resumable."""
