"""How good a model is: metrics, the paired comparison with the original, gates."""
