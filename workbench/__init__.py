"""workbench: from a model file to a benchmarked container image, with a recipe in git that makes it again.

This package is imported inside the image as well, so it imports nothing.
"""

__version__ = "0.1.0"
