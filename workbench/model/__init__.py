"""Bringing a model and its data in, as one form."""
