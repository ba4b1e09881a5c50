"""Small images, and patience that waits for nothing."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path
from typing import Any

from workbench.registry.http import Patience

LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
CONFIG = "application/vnd.oci.image.config.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def noise(size: int, seed: str) -> bytes:
    """Bytes that are the same for the same seed and no other's."""
    return random.Random(seed).randbytes(size)


def image(folder: Path, seed: str, layers: tuple[int, ...] = (300_000, 5_000)) -> dict[str, Path]:
    """The inputs of a push: an image of which nothing is in any registry as long as ``seed`` is new."""
    folder.mkdir(parents=True)
    config = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}, "author": seed}
    files = {"config": json.dumps(config).encode()}
    files |= {f"layer-{place:02d}": noise(size, f"{seed}{place}") for place, size in enumerate(layers)}

    def descriptor(name: str, kind: str) -> dict[str, Any]:
        return {"mediaType": kind, "digest": sha256(files[name]), "size": len(files[name])}

    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor("config", CONFIG),
        "layers": [descriptor(name, LAYER) for name in files if name.startswith("layer-")],
    }
    files["manifest"] = json.dumps(manifest).encode()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return {name: folder / name for name in files}


def artifact(subject: str, kind: str, config: bytes = b"{}", **annotations: str) -> bytes:
    """A manifest that refers to ``subject``; its one blob is ``config``."""
    empty = {"mediaType": "application/vnd.oci.empty.v1+json", "digest": sha256(config), "size": len(config)}
    return json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "artifactType": kind,
            "config": empty,
            "layers": [empty],
            "subject": {"mediaType": MANIFEST, "digest": subject, "size": 1},
            "annotations": annotations,
        }
    ).encode()


def patience(waits: list[float] | None = None, attempts: int = 4) -> Patience:
    """Faults are borne without waiting; ``waits`` gets how long it would have been."""
    waited = [] if waits is None else waits
    return Patience(attempts, connect_s=10, answer_s=30, sleep=waited.append)
