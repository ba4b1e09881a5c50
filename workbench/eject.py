"""Giving the Dockerfile and its build context away, for use by hand: without workbench, and without the recipe."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from workbench import lock, recipe
from workbench.errors import UsageError
from workbench.export import results_of
from workbench.plan import Input, Pinned, Ref, Step, models, plan
from workbench.run import pins_for
from workbench.store import Result, Store, digest_of_bytes, unwritable

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
    params, parts = _locked(path)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} is there already.", "Name a folder that does not exist, or an empty one.")
    try:
        return _into(folder, params, parts)
    except OSError as error:
        raise unwritable(folder, error) from error


def dockerfile(path: Path) -> str:
    """The Dockerfile of the recipe at ``path`` as :func:`eject` writes it. Raises UsageError as that does."""
    from workbench.image import downloads, wheels
    from workbench.image.docker import base_of, dockerfile_of

    params, parts = _locked(path)
    base = base_of(parts, params["python"], wheels.read_pins(parts["wheels_pins"])["python"])
    return dockerfile_of(base, params, f"sha256:{downloads.sha256_of(parts['model'])}")


def _locked(path: Path) -> tuple[Mapping[str, Any], dict[str, Path]]:
    """The image step's parameters, and what goes into the image that the lock of a recipe names."""
    file = recipe.load(path)
    cure = f"Make it: workbench run {path}"
    if file.recipe.image is None:
        raise UsageError(f"{path} makes no image.", "Add image: {} to it.")
    locked = lock.load(file.lock_path)
    if locked is None:
        raise UsageError(f"{path} was not run yet, so there is no image of it.", cure)
    store = Store(file.project / ".workbench")
    steps = plan(file, pins_for(file, locked, []))
    chosen = models(file.recipe).get(locked.artifacts.choice)
    parts = _parts(steps, chosen, results_of(file, locked, store, _ROOMS), store)
    if parts is None:
        raise UsageError(f"The image of {path} is not in the store as the recipe is now.", cure)
    return next(step.params for step in steps if step.id == "image"), parts


def _parts(
    steps: Sequence[Step], chosen: Ref | None, found: Mapping[str, Result], store: Store
) -> dict[str, Path] | None:
    """What goes in, as :func:`workbench.image.docker.build` takes it; None where something was not made yet."""
    inputs: dict[str, Input] = {
        name: source for step in steps if step.id == "image" for name, source in step.inputs.items()
    }
    # The OCI builder's plan has the wheels as a layer of their own.
    layer = {name: source for step in steps if step.id == "wheels" for name, source in step.inputs.items()}
    wanted: dict[str, Input | None] = {
        "model": chosen,
        "signature": Ref("model", "signature"),
        "wheels_pins": inputs.get("wheels_pins", layer.get("pins")),
    }
    if "base_pins" in inputs:
        wanted["base_pins"] = inputs["base_pins"]
    else:
        wanted |= {"base": Ref("base", "descriptor"), "base_blob": Ref("base", "blob")}
    parts = {}
    for name, source in wanted.items():
        if isinstance(source, Pinned):
            store.put_bytes(source.data)
            parts[name] = store.path(digest_of_bytes(source.data))
        elif isinstance(source, Ref) and source.step in found:
            parts[name] = store.path(found[source.step].digest(source.output))
        else:
            return None
    return parts


def _into(folder: Path, params: Mapping[str, Any], parts: Mapping[str, Path]) -> list[str]:
    """Writes all beside ``folder`` first, so that a folder of that name is a whole one."""
    folder.absolute().parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.absolute().parent, prefix=".eject-") as scratch:
        new = Path(scratch) / "context"
        _write(new, Path(scratch), params, parts)
        new.chmod(0o755)
        new.rename(folder.absolute())
    return sorted(path.name for path in folder.iterdir())


def _write(new: Path, scratch: Path, params: Mapping[str, Any], parts: Mapping[str, Path]) -> None:
    from workbench.engine.load import archive
    from workbench.image import downloads, wheels
    from workbench.image.context import Content, lay_out, write_dockerfile
    from workbench.image.docker import base_of, dockerfile_of

    pins = wheels.read_pins(parts["wheels_pins"])
    files = wheels.fetched(pins["wheels"], pins["python"], None, _Silent(scratch))
    version = str(params.get("version", "1"))
    content = Content(pins["wheels"], files, parts["model"], parts["signature"], params["name"], version)
    base = base_of(parts, params["python"], pins["python"])
    lay_out(new, content, params["created"])
    write_dockerfile(new, dockerfile_of(base, params, f"sha256:{downloads.sha256_of(parts['model'])}"))
    if base.config:
        with (new / "base.tar").open("wb") as file:
            file.writelines(archive(base.config, [parts["base_blob"]], base.reference))
    (new / "README.md").write_text(_readme(params, base.reference, imported=bool(base.config)), encoding="utf-8")


_IMPORTED = """\
Once, the base (Debian packages, unpacked; the Dockerfile names it {base}):

    docker load --input base.tar

Then, and after every change:
"""
_FETCHED = """\
The base is {base}, which the engine fetches.
"""


def _readme(params: Mapping[str, Any], base: str, *, imported: bool) -> str:
    name, port = params["name"], params["port"]
    archive = "| `base.tar` | the base, as an archive for `docker load`; no part of the build context |\n"
    return f"""\
# The image {name}, by hand

{(_IMPORTED if imported else _FETCHED).format(base=base)}
    docker build --network=none --tag {name.lower()} .

BuildKit builds it: Docker 23 or later with its buildx plugin, or an earlier one with DOCKER_BUILDKIT=1. The
wheels lie in `wheels/`, and the build stage refuses to run with a network.

    docker run --rm --read-only --tmpfs /tmp --publish 127.0.0.1:{port}:{port} {name.lower()}
    curl http://127.0.0.1:{port}/v2/models/{name}

| | |
| --- | --- |
| `Dockerfile` | one stage unpacks the wheels, one compiles, the others only copy |
| `model.tar` | the model and its signature, as they lie in the image: another model of the same signature goes here |
| `server.tar` | the server's source, as it lies in the image |
| `wheels/` | the locked wheels, as published; `build/wheels.json` has the sha256 of each |
| `build/` | what the build stage runs, and its list of what an image does without (`omit.txt`) |
{archive if imported else ""}"""
