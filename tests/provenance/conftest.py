"""The image of the shipped digits, as the tests of images build it."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "image"))  # where its parts lie

from image.conftest import cache, emit, image, shared_folder

__all__ = ["cache", "emit", "image", "shared_folder"]
