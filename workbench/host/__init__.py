"""The machine: sensors, and the fingerprint that says which numbers compare."""
