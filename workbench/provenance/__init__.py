"""What an image is made of, said beside it: parts list, recipe and lock, how it came about, signatures."""
