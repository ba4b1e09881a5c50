"""How fast a model is: load, systems under test, statistics."""
