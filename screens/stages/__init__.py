"""What a recipe goes through, a module a stage: each shows its part of a run, and does its part by commands."""
