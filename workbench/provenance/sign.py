"""Signing an image, and with it what is attached to it: who trusts the key can trust the recipe, too."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from workbench.provenance import image, referrers, signature
from workbench.provenance.names import KINDS
from workbench.registry.target import Target


def sign_all(
    target: Target, reference: str, key: Path, ask: Callable[[], str | None] = signature.password
) -> Iterator[tuple[str, bool]]:
    """Signs the image that ``reference`` names and the newest of what is attached to it, with the private key in the
    file ``key``; each digest, and whether it was signed now. ``ask`` is called for the key's password."""
    private = signature.private_key(key, ask)
    found = image.find(target, reference)
    name = signature.identity(target, image.labels(image.read_config(target, found)))
    attached = [one.digest for kind in KINDS for one in referrers.newest(target, found.digest, kind)]
    with tempfile.TemporaryDirectory(prefix="workbench-") as scratch:
        for digest in (found.digest, *attached):
            yield digest, signature.sign(target, digest, name, private, Path(scratch))
