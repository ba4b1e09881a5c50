"""Images of ours in the engine: put there when they are missing, recognised by their names, removed again.

An image's id in the engine is the digest of its config, which names its layers by content. Where an engine keeps
images in another way (Docker's containerd store names them by their manifest), the layers and the config are compared.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import docker

from workbench.engine.connect import is_podman
from workbench.engine.errors import ENGINE_ERRORS, told
from workbench.errors import StepFailed, UsageError

REPOSITORY = "workbench.local"
"""Images of ours are named ``workbench.local/NAME:<12 digits of the config's digest>``. No registry has that name."""

_LONGEST_CONFIG = 4 << 20
_PIECE = 1 << 20
_PATIENCE_S = 3600
"""How long the engine may say nothing while it takes in an image: it does so until it has written all of it."""


def ensure_loaded(client: docker.DockerClient, config: Path, layers: Sequence[Path], name: str) -> str:
    """The id, in the engine, of the image with that ``config`` and ``layers`` (blobs, lowest first).

    If the engine has it nothing is sent, and of another one only the layers that it has from no image of ours.
    ``name`` is for people. Raises StepFailed where the engine does not take it, or has another image by our name;
    UsageError where config and layers do not belong together.
    """
    data = _read(config)
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    tag = tag_of(name, digest)
    named = _inspect(client, tag)
    if named is not None:
        if not _is(named, data, digest):
            raise StepFailed(
                f"The engine has another image by the name {tag}.",
                f"It is not ours, and was left alone: give it another name (docker tag), then docker image rm {tag}.",
            )
        return str(named["Id"])
    if _inspect(client, digest) is None:
        _send(client, data, layers, tag)
    else:
        _name(client, digest, tag)
    found = _inspect(client, tag)
    if found is None or not _is(found, data, digest):
        raise StepFailed(f"The engine has taken in another image than it was given for {tag}.", "Run it again.")
    return str(found["Id"])


def tag_of(name: str, digest: str) -> str:
    """What the image called ``name`` with a config of that ``digest`` is called in the engine."""
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "image"
    return f"{REPOSITORY}/{plain}:{digest.removeprefix('sha256:')[:12]}"


def loaded_images(client: docker.DockerClient) -> dict[str, int]:
    """The names of all images of ours in the engine, with their sizes in bytes (layers they share count for each)."""
    try:
        images = client.api.images(filters={"reference": f"{REPOSITORY}/*"})
    except ENGINE_ERRORS as error:
        raise told(error, "listing images") from error
    prefix = f"{REPOSITORY}/"
    return {
        tag: int(each.get("Size") or 0)
        for each in images
        for tag in each.get("RepoTags") or ()
        if tag.startswith(prefix)
    }


def unused_bases(client: docker.DockerClient) -> list[str]:
    """The names of the bases of ours that none of our other images in the engine stands on."""
    layers = {tag: _layers(_inspect(client, tag) or {}) for tag in loaded_images(client)}
    bases = [tag for tag in layers if tag.startswith(f"{REPOSITORY}/base:")]
    above = [found for tag, found in layers.items() if tag not in bases]
    return [tag for tag in bases if not any(found[: len(layers[tag])] == layers[tag] for found in above)]


def remove_images(client: docker.DockerClient, tags: Sequence[str]) -> list[str]:
    """Takes these names of ours away, and with the last name of an image the image. Those that a container uses stay.

    Returns the names that went.
    """
    gone = []
    for tag in tags:
        if not tag.startswith(f"{REPOSITORY}/"):
            raise UsageError(f"{tag} is no image of ours.", "Remove it with docker image rm.")
        try:
            client.api.remove_image(tag)
            gone.append(tag)
        except docker.errors.NotFound:
            continue
        except docker.errors.APIError as error:
            if error.status_code != 409:
                raise told(error, f"removing {tag}") from error
        except ENGINE_ERRORS as error:
            raise told(error, f"removing {tag}") from error
    return gone


def _read(config: Path) -> bytes:
    with config.open("rb") as file:
        data = file.read(_LONGEST_CONFIG + 1)
    if len(data) > _LONGEST_CONFIG:
        raise UsageError(f"{config} is longer than a config of an image may be.", "Give the image's config.")
    return data


def _inspect(client: docker.DockerClient, image: str) -> dict[str, Any] | None:
    try:
        return dict(client.images.get(image).attrs)
    except docker.errors.NotFound:
        return None
    except ENGINE_ERRORS as error:
        raise told(error, "looking for the image") from error


def _is(found: dict[str, Any], config: bytes, digest: str) -> bool:
    """Whether the engine's image is the one with this config."""
    if _with_algorithm(found["Id"]) == digest:
        return True
    wanted = json.loads(config)
    same = ("Entrypoint", "Cmd", "Env", "User", "WorkingDir")
    has = found.get("Config") or {}
    return bool(_layers(found) == wanted["rootfs"]["diff_ids"]) and all(
        (has.get(key) or None) == (wanted["config"].get(key) or None) for key in same
    )


def _with_algorithm(image_id: str) -> str:
    return image_id if ":" in image_id else f"sha256:{image_id}"


def _layers(found: dict[str, Any]) -> list[str]:
    return list((found.get("RootFS") or {}).get("Layers") or ())


def _name(client: docker.DockerClient, digest: str, tag: str) -> None:
    repository, _, short = tag.rpartition(":")
    try:
        client.api.tag(digest, repository, short)
    except ENGINE_ERRORS as error:
        raise told(error, f"naming the image {tag}") from error


def _send(client: docker.DockerClient, config: bytes, layers: Sequence[Path], tag: str) -> None:
    diff_ids = json.loads(config)["rootfs"]["diff_ids"]
    if len(diff_ids) != len(layers):
        raise UsageError(f"The image's config names {len(diff_ids)} layers, and there are {len(layers)}.")
    there = _there_already(client, diff_ids)
    try:
        _stream(client, archive(config, layers, tag, skip=there))
    except StepFailed:
        if not there:
            raise
        # Somebody removed the image that had them, or this engine wants all of them.
        _stream(client, archive(config, layers, tag))


def _there_already(client: docker.DockerClient, diff_ids: list[str]) -> int:
    """How many of the lowest layers the engine has from an image of ours.

    Docker takes an archive without them: it opens a layer's file only when it has no layer of that content on the same
    layers. A new model of 1 MB is taken in after 0.1 s so, with 45 MB below it after 2.3 s. Podman wants all of them.
    """
    try:
        podman = is_podman(client.version())
    except ENGINE_ERRORS as error:
        raise told(error, "asking for its version") from error
    if podman:
        return 0
    counts = [0]
    for tag in loaded_images(client):
        has = _layers(_inspect(client, tag) or {})
        same = [one == other for one, other in zip(diff_ids, has, strict=False)]
        counts.append(same.index(False) if False in same else len(same))
    return max(counts)


def archive(config: bytes, layers: Sequence[Path], tag: str, skip: int = 0) -> Iterator[bytes]:
    """The image in the form of ``docker save``, in pieces, without the lowest ``skip`` layers; read as it is sent."""
    name = f"{hashlib.sha256(config).hexdigest()}.json"
    members = [f"layer-{number}.tar" for number in range(len(layers))]
    index = json.dumps([{"Config": name, "RepoTags": [tag], "Layers": members}]).encode()
    for path, data in ((name, config), ("manifest.json", index)):
        yield _header(path, len(data))
        yield data + _padding(len(data))
    for path, layer in list(zip(members, layers, strict=True))[skip:]:
        size = layer.stat().st_size
        yield _header(path, size)
        with layer.open("rb") as file:
            while piece := file.read(_PIECE):
                yield piece
        yield _padding(size)
    yield b"\0" * (2 * tarfile.BLOCKSIZE)


def _header(path: str, size: int) -> bytes:
    info = tarfile.TarInfo(path)
    info.size = size
    return info.tobuf(tarfile.PAX_FORMAT)


def _padding(size: int) -> bytes:
    return b"\0" * (-size % tarfile.BLOCKSIZE)


def _stream(client: docker.DockerClient, pieces: Iterator[bytes]) -> None:
    doing = "loading the image"
    try:
        with _patient(client) as api:
            for line in api.load_image(pieces, quiet=True):
                if isinstance(line, dict) and line.get("error"):
                    raise told(str(line["error"]), doing)
    except ENGINE_ERRORS as error:
        raise told(error, doing) from error


@contextlib.contextmanager
def _patient(client: docker.DockerClient) -> Iterator[Any]:
    before = client.api.timeout
    client.api.timeout = _PATIENCE_S
    try:
        yield client.api
    finally:
        client.api.timeout = before
