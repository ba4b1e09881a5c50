"""The container image: what goes in, and how it becomes bytes."""
