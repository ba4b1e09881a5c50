"""A small image with all that is attached to it, in a layout folder and in a registry; and the real one of the shipped
digits, as the tests of images build it."""

from __future__ import annotations

import sys
import uuid
from pathlib import Path

import pytest
import small_image

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "image"))  # where the parts of the real one lie

from image.conftest import cache, emit, image, shared_folder
from image_helpers import Emit
from kept import Kept, KeyPairs, openssl, with_sbom

__all__ = ["cache", "emit", "image", "shared_folder"]


@pytest.fixture(params=["layout", pytest.param("registry", marks=pytest.mark.integration)])
def to(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A place for an image, in a layout folder and in a real registry."""
    if request.param == "layout":
        return f"oci:{tmp_path}/layout:digits"
    address = request.getfixturevalue("registry").address
    return f"{address}/provenance/{uuid.uuid4().hex}:digits"


@pytest.fixture
def kept(to: str, tmp_path: Path) -> Kept:
    """The image there, with nothing attached."""
    scratch = Emit(tmp_path / "kept")
    scratch.scratch.mkdir()
    files = with_sbom(tmp_path / "files")
    target, digest = small_image.pushed(files, to, scratch)
    return Kept(to, target, digest, files, scratch)


@pytest.fixture
def whole(kept: Kept) -> Kept:
    """The image there, with all that belongs to it."""
    kept.attach()
    return kept


@pytest.fixture
def key_pair(tmp_path: Path) -> KeyPairs:
    """Makes a private and a public key with openssl, as the error messages say; perhaps with a password."""

    def made(name: str = "image", password: str = "") -> tuple[Path, Path]:
        private, public = tmp_path / f"{name}.key", tmp_path / f"{name}.pub"
        cipher = ["-aes-256-cbc", "-pass", f"pass:{password}"] if password else []
        curve = ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"]
        openssl("genpkey", *curve, *cipher, "-out", str(private))
        openssl("pkey", "-in", str(private), "-passin", f"pass:{password}", "-pubout", "-out", str(public))
        return private, public

    return made
