"""The push step: an image to where others get it, verified by digest."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from workbench.errors import StepFailed, UsageError
from workbench.registry.layout import Layout, digest_of
from workbench.steps import Emit, Outputs

_OCI = "oci:"
# The grammar of org.opencontainers.image.ref.name in the OCI image specification.
_PART = r"[A-Za-z0-9]+(?:(?:[-._:@+]|--)[A-Za-z0-9]+)*"
_TAG = re.compile(rf"{_PART}(?:/{_PART})*")


def destination(to: str, name: str, tag: str | None = None) -> tuple[Path, str]:
    """The folder and the tag that a recipe's ``push.to`` means: ``oci:PATH[:TAG]``.

    Without a tag in it the image is tagged ``name`` (``name:tag`` where there is one): a layout has one room for tags,
    and several recipes push to it. Raises UsageError for anything but an OCI layout folder.
    """
    if not to.startswith(_OCI):
        raise UsageError(
            f"push.to names {to!r}, and images are pushed to OCI layout folders only so far.",
            "Write oci:PATH or oci:PATH:TAG.",
        )
    folder, _, given = to.removeprefix(_OCI).partition(":")
    chosen = given or (f"{name}:{tag}" if tag else name)
    if not folder:
        raise UsageError(f"push.to names {to!r}, which has no folder.", "Write oci:PATH or oci:PATH:TAG.")
    if not _TAG.fullmatch(chosen):
        raise UsageError(
            f"{chosen!r} cannot be a tag.",
            "Use letters and digits, with single '.', '-', '_', ':' or '/' between them.",
        )
    return Path(folder), chosen


def push(inputs: Mapping[str, Path], params: Mapping[str, Any], emit: Emit) -> Outputs:
    """Copies the image to the layout that ``to`` names and lets the tag name it.

    ``inputs``: ``config``, ``manifest`` and the layers' blobs ``layer-…``. ``params``: ``to``, ``name``,
    ``tag`` (or None). Values: ``reference``, ``digest`` (of the manifest), ``sent`` and ``skipped`` (blobs),
    ``bytes_sent``. Raises UsageError for a destination that is not supported, StepFailed where a blob is missing or
    did not arrive whole.
    """
    folder, tag = destination(params["to"], params["name"], params.get("tag"))
    manifest = json.loads(inputs["manifest"].read_bytes())
    wanted = [manifest["config"], *manifest["layers"]]
    sources = {digest_of(path): path for name, path in inputs.items() if name == "config" or name.startswith("layer-")}
    for descriptor in wanted:
        if descriptor["digest"] not in sources:
            raise StepFailed(
                f"The manifest names {descriptor['digest']}, which is none of the image's parts.", "Run with --fresh."
            )
    digest = digest_of(inputs["manifest"])
    sources[digest] = inputs["manifest"]
    order = [*(descriptor["digest"] for descriptor in wanted), digest]
    layout = Layout(folder)
    sent = bytes_sent = 0
    with layout.writing():
        layout.index()  # one that cannot be read is said before anything is written
        for done, one in enumerate(order):
            emit.progress(done, len(order), f"pushing to {params['to']}")
            written = layout.add(sources[one], one)
            sent += written > 0
            bytes_sent += written
        size = inputs["manifest"].stat().st_size
        layout.name(tag, {"mediaType": manifest["mediaType"], "digest": digest, "size": size})
    _verify(layout, tag, digest)
    emit.progress(len(order), len(order))
    values = {
        "reference": f"{_OCI}{folder}:{tag}",
        "digest": digest,
        "sent": sent,
        "skipped": len(order) - sent,
        "bytes_sent": bytes_sent,
    }
    return Outputs(values=values)


def in_place(
    inputs: Mapping[str, Path], params: Mapping[str, Any], project: Path, digest_of_file: Callable[[Path], str]
) -> dict[str, Any] | None:
    """The values of a push that finds everything there: the tag names the manifest, and every blob has its digest.

    None where something is missing or other. ``digest_of_file`` may remember what it has hashed. Raises UsageError as
    :func:`push` does.
    """
    folder, tag = destination(params["to"], params["name"], params.get("tag"))
    layout = Layout(project / folder)
    digest = digest_of_file(inputs["manifest"])
    if layout.tags().get(tag, {}).get("digest") != digest:
        return None
    manifest = json.loads(inputs["manifest"].read_bytes())
    parts = [str(each["digest"]) for each in (manifest["config"], *manifest["layers"])] + [digest]
    for part in parts:
        blob = layout.blob(part)
        if not blob.is_file() or digest_of_file(blob) != part:
            return None
    return {
        "reference": f"{_OCI}{folder}:{tag}",
        "digest": digest,
        "sent": 0,
        "skipped": len(parts),
        "bytes_sent": 0,
    }


def _verify(layout: Layout, tag: str, digest: str) -> None:
    """Reads back what a reader would: every part was hashed when it was found or written."""
    named = layout.tags().get(tag, {}).get("digest")
    if named != digest:
        # Another push to the same tag may have come right after this one; then its image has to be whole.
        layout.manifest(tag)
