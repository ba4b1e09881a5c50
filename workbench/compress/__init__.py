"""Making a model smaller and faster: quantize, prune, distill."""
