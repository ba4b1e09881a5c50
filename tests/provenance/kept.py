"""What tests of provenance share: an image where it is kept, keys made with openssl."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import small_image
from image_helpers import Emit

from workbench.provenance import sbom
from workbench.provenance.attach import attach
from workbench.registry.target import Target

NAME = {"name": "digits"}


@dataclass(frozen=True)
class Kept:
    """An image where it is kept: ``to`` is the name that it was pushed to, ``files`` its parts on disk."""

    to: str
    target: Target
    digest: str
    files: dict[str, Path]
    scratch: Emit

    @property
    def params(self) -> dict[str, Any]:
        return {"to": self.to, **NAME}

    def attach(self, **changed: bytes) -> dict[str, Any]:
        """Attaches all, with some of the files ``changed``; the values of the step."""
        files = dict(self.files)
        for name, data in changed.items():
            files[name] = self.scratch.scratch / f"changed-{name}"
            files[name].write_bytes(data)
        return dict(attach(files, self.params, self.scratch).values)

    def another(self, model: str) -> Kept:
        """Another image in the same place, with nothing attached yet."""
        files = with_sbom(self.scratch.scratch / f"another-{model}", model)
        target, digest = small_image.pushed(files, f"{self.to}-other", self.scratch)
        return replace(self, files=files, to=f"{self.to}-other", target=target, digest=digest)


def with_sbom(folder: Path, model: str = "a model") -> dict[str, Path]:
    files = small_image.make(folder, model)
    made = Emit(folder / "sbom-scratch")
    made.scratch.mkdir()
    return files | dict(sbom.make(files, NAME, made).files)


KeyPairs = Callable[..., tuple[Path, Path]]


def openssl(*words: str) -> str:
    """What openssl prints."""
    return subprocess.run(["openssl", *words], check=True, capture_output=True, text=True).stdout
