"""Giving the Dockerfile and its build context away, for use by hand: without workbench, and without the recipe."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from workbench import lock, recipe
from workbench.errors import UsageError
from workbench.export import results_of
from workbench.plan import Pinned, models, plan
from workbench.run import pins_for
from workbench.store import Store, unwritable

_ROOMS = ("workbench.inputs", "workbench.model", "workbench.compress", "workbench.image")


class _Silent:
    """An ``Emit`` that nobody listens to."""

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch

    def progress(self, done: float, total: float, text: str = "") -> None: ...

    def note(self, text: str) -> None: ...

    def sample(self, kind: str, values: Mapping[str, Any]) -> None: ...


def eject(path: Path, folder: Path) -> list[str]:
    """Writes the Dockerfile of the recipe at ``path`` with its context and a README into ``folder``; their names.

    What goes in is what the lock names: the chosen variant, the base, the wheels. Raises UsageError where the recipe
    has no image or was not run as it is now, or the folder holds something; MachineLacks where it cannot be written.
    """
    file = recipe.load(path)
    cure = f"Make it: workbench run {path}"
    if file.recipe.image is None:
        raise UsageError(f"{path} makes no image.", "Add image: {} to it.")
    locked = lock.load(file.lock_path)
    if locked is None:
        raise UsageError(f"{path} was not run yet, so there is no image to eject.", cure)
    store = Store(file.project / ".workbench")
    steps = plan(file, pins_for(file, locked, []))
    found = results_of(file, locked, store, _ROOMS)
    chosen = models(file.recipe).get(locked.artifacts.choice)
    pinned = next((step.inputs["pins"] for step in steps if step.id == "wheels"), None)
    if chosen is None or chosen.step not in found or "base" not in found or not isinstance(pinned, Pinned):
        raise UsageError(f"The image of {path} is not in the store as the recipe is now.", cure)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} is there already.", "Name a folder that does not exist, or an empty one.")
    params = next(step.params for step in steps if step.id == "image")
    parts = {
        "base": store.path(found["base"].digest("descriptor")),
        "base_blob": store.path(found["base"].digest("blob")),
        "model": store.path(found[chosen.step].digest("model")),
        "signature": store.path(found["model"].digest("signature")),
    }
    try:
        return _into(folder, params, parts, pinned.data)
    except OSError as error:
        raise unwritable(folder, error) from error


def _into(folder: Path, params: Mapping[str, Any], parts: Mapping[str, Path], pins: bytes) -> list[str]:
    """Writes all beside ``folder`` first, so that a folder of that name is a whole one."""
    folder.absolute().parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.absolute().parent, prefix=".eject-") as scratch:
        new = Path(scratch) / "context"
        _write(new, Path(scratch), params, parts, pins)
        new.chmod(0o755)
        new.rename(folder.absolute())
    return sorted(path.name for path in folder.iterdir())


def _write(new: Path, scratch: Path, params: Mapping[str, Any], parts: Mapping[str, Path], pins_data: bytes) -> None:
    from workbench.engine.load import archive
    from workbench.image import downloads, wheels
    from workbench.image.context import Content, lay_out
    from workbench.image.docker import assembled, dockerfile_of

    (scratch / "pins").write_bytes(pins_data)
    pins = wheels.read_pins(scratch / "pins")
    files = wheels.fetched(pins["wheels"], pins["python"], None, _Silent(scratch))
    version = str(params.get("version", "1"))
    content = Content(pins["wheels"], files, parts["model"], parts["signature"], params["name"], version)
    base = assembled(json.loads(parts["base"].read_bytes()), params["python"], pins["python"])
    lay_out(new, dockerfile_of(base, params, f"sha256:{downloads.sha256_of(parts['model'])}"), content)
    with (new / "base.tar").open("wb") as file:
        file.writelines(archive(base.config, [parts["base_blob"]], base.reference))
    (new / "README.md").write_text(_readme(params, base.reference), encoding="utf-8")


def _readme(params: Mapping[str, Any], base: str) -> str:
    name, port = params["name"], params["port"]
    return f"""\
# The image {name}, by hand

Once, the base (Debian packages, unpacked; the Dockerfile names it {base}):

    docker load --input base.tar

Then, and after every change:

    docker build --network=none --tag {name.lower()} .

BuildKit builds it: Docker 23 or later with its buildx plugin, or an earlier one with DOCKER_BUILDKIT=1. Nothing is
fetched: the wheels lie in `wheels/`, and the build stage refuses to run with a network.

    docker run --rm --read-only --tmpfs /tmp --publish 127.0.0.1:{port}:{port} {name.lower()}
    curl http://127.0.0.1:{port}/v2/models/{name}

| | |
| --- | --- |
| `Dockerfile` | two stages: one unpacks the wheels, the other only copies |
| `model/` | the model and its signature, as they lie in the image: another model of the same signature goes here |
| `server/` | the server's source, as it lies in the image |
| `wheels/` | the locked wheels, as published; `build/wheels.json` has the sha256 of each |
| `build/` | what the build stage runs, and its list of what an image does without (`omit.txt`) |
| `base.tar` | the base, as an archive for `docker load`; no part of the build context |
"""
