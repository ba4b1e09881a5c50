"""The digits image of this test session, and what steps need in tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from digits_image import Emit, Image, cache, image, root, shared_folder
from own_engine import own_engine

from workbench.image.apt import Apt

__all__ = ["cache", "image", "own_engine", "root", "shared_folder"]


@pytest.fixture
def emit(tmp_path: Path) -> Emit:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    return Emit(scratch)


@pytest.fixture(scope="session")
def apt(image: Image) -> Apt:
    """apt with the lists that the image of this session was resolved from."""
    return Apt(image.folder / "base-pins" / "apt", "bookworm", "amd64")
