"""A base from a registry: locked by digest, fetched by the engine, looked into without being run.

The engine fetches it with the credentials that Docker's configuration has, and keeps it for the build.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
from docker import DockerClient
from docker.utils import parse_repository_tag

from workbench.engine.connect import connect
from workbench.engine.errors import told
from workbench.engine.leftovers import labels
from workbench.errors import UsageError
from workbench.image.layers import written_json
from workbench.steps import Emit, Outputs

_PLATFORM = "linux/amd64"
_FOLDERS = ("/usr/local/bin", "/usr/bin")
_LOADER = "/lib64/ld-linux-x86-64.so.2"
_REFERENCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,254}(?:@sha256:[0-9a-f]{64})?")
_PINNED = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,254}@sha256:[0-9a-f]{64}")
_RELOCK = "Lock the base again: workbench run RECIPE --update base"


def resolve(reference: str, python: str, emit: Emit) -> Outputs:
    """Locks the base that ``reference`` names: ``pins`` with its digest, its config's digest, and where Python lies.

    Raises UsageError where it cannot be a base of ours, MachineLacks where the engine does not get it.
    """
    if not _REFERENCE.fullmatch(reference):
        raise UsageError(f"image.base.image: {reference!r} is no reference of an image.", "Write NAME:TAG.")
    name, _ = parse_repository_tag(reference)
    doing = f"asking the registry for {reference}"
    with connect() as client, _typed(doing):
        emit.progress(0, 2, doing)
        known = client.images.get_registry_data(reference)
        if not known.has_platform(_PLATFORM):  # type: ignore[no-untyped-call]
            raise UsageError(f"The base {reference} is not made for {_PLATFORM}.", "Name one that is.")
        pinned = f"{name}@{known.id}"
        emit.progress(1, 2, f"fetching {pinned}")
        found = fetch(client, pinned)
        pins = {
            "image": pinned,
            "config": found["Id"],
            "arch": found["Architecture"],
            "python": python,
            "interpreter": _examined(client, found, reference, python),
        }
    emit.progress(2, 2)
    return Outputs({"pins": written_json(emit.scratch / "pins", pins)}, {"pins": pins})


def read_pins(path: Path) -> dict[str, Any]:
    """The locked base. Raises UsageError where it is not what :func:`resolve` writes (a lock edited by hand)."""
    try:
        pins: dict[str, Any] = json.loads(path.read_bytes())
        usable = (
            _PINNED.fullmatch(pins["image"])
            and pins["interpreter"] in [f"{folder}/python{pins['python']}" for folder in _FOLDERS]
            and re.fullmatch(r"\d+\.\d+", pins["python"])
            and re.fullmatch(r"[a-z0-9]+", pins["arch"])
        )
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"The lock's base is not usable ({error!r}).", _RELOCK) from error
    if not usable:
        raise UsageError(f"The lock's base {pins['image']!r} is not usable.", _RELOCK)
    return pins


def fetch(client: DockerClient, pinned: str) -> dict[str, Any]:
    """What the engine says of the base ``NAME@sha256:…``, fetched if it is not there."""
    with _typed(f"fetching {pinned}"):
        try:
            return dict(client.images.get(pinned).attrs)
        except docker.errors.ImageNotFound:
            name, _, digest = pinned.partition("@")
            return dict(client.images.pull(name, tag=digest, platform=_PLATFORM).attrs)


@contextlib.contextmanager
def _typed(doing: str) -> Iterator[None]:
    try:
        yield
    except (docker.errors.DockerException, OSError) as error:
        raise told(error, doing) from error


def _examined(client: DockerClient, found: dict[str, Any], reference: str, python: str) -> str:
    """Where Python lies in the base. Raises UsageError where it cannot carry the image."""
    if (found.get("Config") or {}).get("OnBuild"):
        raise UsageError(f"The base {reference} would run instructions of its own (ONBUILD).", "Name another base.")
    container = client.containers.create(found["Id"], ["never", "started"], labels=labels())
    try:
        places = [f"{folder}/python{python}" for folder in _FOLDERS]
        interpreter = next((path for path in places if _there(container, path) is not None), None)
        if interpreter is None:
            links = (_there(container, f"{folder}/python3") for folder in _FOLDERS)
            other = next((Path(link).name for link in links if link), "no Python")
            raise UsageError(
                f"The base {reference} has {other}, and the recipe asks for python{python} in {' or '.join(_FOLDERS)}.",
                f"Name a base with Python {python}, such as python:{python}-slim, or write {{debian: bookworm}}.",
            )
        if _there(container, _LOADER) is None:
            raise UsageError(
                f"The base {reference} has no glibc ({_LOADER}), which the wheels are built for.",
                "Name a base that is not built on musl.",
            )
        return interpreter
    finally:
        container.remove(force=True)


def _there(container: Any, path: str) -> str | None:
    """Where the path in the container leads; None where there is nothing."""
    try:
        stream, facts = container.get_archive(path)
    except docker.errors.NotFound:
        return None
    stream.close()  # only what it is was asked for
    return str(facts.get("linkTarget") or path)
