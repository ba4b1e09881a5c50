"""A small image with everything a run leaves beside it: one Debian package, one wheel, a model of a few bytes."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

from support import RECIPE

from workbench.document import parse
from workbench.image.layers import canonical
from workbench.image.oci import CONFIG, MANIFEST
from workbench.lock import Artifacts, ImageFacts, Lock, Resolved, recipe_digests
from workbench.registry.push import push
from workbench.registry.target import Target
from workbench.registry.where import open_target
from workbench.schema import Recipe

SIGNATURE = {
    "inputs": [{"name": "x", "dtype": "float32", "shape": ["batch", 64]}],
    "outputs": [{"name": "y", "dtype": "int64", "shape": ["batch"]}],
    "opset": 17,
}
DEB = {"name": "libc6", "version": "2.36-9", "sha256": "a" * 64, "size": 1}
WHEEL = {"name": "tool", "version": "2.0", "filename": "tool-2.0-py3-none-any.whl", "sha256": "b" * 64, "size": 1}
BASE_PINS = {"debian": "bookworm", "arch": "amd64", "packages": [DEB]}
WHEELS_PINS = {"python": "3.11", "platform": "x86_64-manylinux_2_28", "wheels": [WHEEL]}
STATUS = (
    "Package: libc6\nStatus: install ok installed\nArchitecture: amd64\nSource: glibc\nVersion: 2.36-9\n\n"
    "Package: gone\nStatus: deinstall ok config-files\nArchitecture: amd64\nVersion: 1\n"
)
METADATA = "Metadata-Version: 2.4\nName: Tool\nVersion: 2.0\nLicense-Expression: MIT\n\nName: other\n"
LAYERS = {
    "base": {"var/lib/dpkg/status": STATUS, "usr/lib/os-release": 'ID=debian\nVERSION_ID="12"\n'},
    "wheels": {"opt/wheels/tool-2.0.dist-info/METADATA": METADATA},
}


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def layer(path: Path, files: dict[str, str]) -> Path:
    """A layer, stored as it is, so that its digest is its content's."""
    with tarfile.open(path, "w") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
    return path


def make(folder: Path, model: str = "a model", name: str = "digits") -> dict[str, Path]:
    """The files of an image, as steps take them: ``config``, ``manifest``, ``layer-…``, pins, ``recipe``, ``lock``."""
    folder.mkdir(parents=True)
    contents = {**LAYERS, "model": {f"models/{name}/1/model.onnx": model}}
    layers = {each: layer(folder / f"layer-{place:02d}", files) for place, (each, files) in enumerate(contents.items())}
    diff_ids = {each: digest_of(path.read_bytes()) for each, path in layers.items()}
    labels = {
        "workbench.version": "0.1.0",
        "workbench.model": digest_of(model.encode()),
        "org.opencontainers.image.title": name,
    }
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Labels": labels},
        "rootfs": {"type": "layers", "diff_ids": list(diff_ids.values())},
    }
    files: dict[str, bytes] = {
        "config": canonical(config),
        "base_pins": canonical(BASE_PINS),
        "wheels_pins": canonical(WHEELS_PINS),
        "signature": canonical(SIGNATURE),
        "model": model.encode(),
    }
    files["manifest"] = _manifest(files["config"], list(layers.values()))
    text = RECIPE.replace("name: digits", f"name: {name}") + "image: {builder: oci}\n"
    files["recipe"] = text.encode()
    files["lock"] = lock_of(text, files, diff_ids, model).text().encode()
    for each, data in files.items():
        (folder / each).write_bytes(data)
    return {each: folder / each for each in files} | {path.name: path for path in layers.values()}


def _manifest(config: bytes, layers: list[Path]) -> bytes:
    media_type = "application/vnd.oci.image.layer.v1.tar"
    listed = [
        {"mediaType": media_type, "digest": digest_of(path.read_bytes()), "size": path.stat().st_size}
        for path in layers
    ]
    own = {"mediaType": CONFIG, "digest": digest_of(config), "size": len(config)}
    return canonical({"schemaVersion": 2, "mediaType": MANIFEST, "config": own, "layers": listed})


def lock_of(recipe: str, files: dict[str, bytes], diff_ids: dict[str, str], model: str) -> Lock:
    image = ImageFacts(
        config=digest_of(files["config"]),
        manifest=digest_of(files["manifest"]),
        compressor="none",
        created=0,
        layers=diff_ids,
    )
    artifacts = Artifacts(
        toolchain={"onnxruntime": "1.32.0"},
        instruction_set="x86-64-v4+vnni",
        seed=0,
        sources={"model.source": f"sha256:{'1' * 64}", "data.evaluate": f"sha256:{'2' * 64}"},
        made={"model": f"sha256:{'3' * 64}", "int8/quantize": digest_of(model.encode())},
        choice="int8",
        image=image,
        base=Resolved(request={"debian": "bookworm"}, pins=json.loads(files["base_pins"])),
        wheels=Resolved(request={}, pins=json.loads(files["wheels_pins"])),
    )
    digests = recipe_digests(Recipe.model_validate(parse(recipe, Path("recipe")).data))
    return Lock(recipe=digests, artifacts=artifacts, figures={})


def pushed(files: dict[str, Path], to: str, emit: Any) -> tuple[Target, str]:
    """The image, pushed to ``to``: where it is, and its digest."""
    parts = {name: path for name, path in files.items() if name in ("config", "manifest") or name.startswith("layer-")}
    values = push(parts, {"to": to, "name": "digits"}, emit).values
    return open_target(to)[0], str(values["digest"])
