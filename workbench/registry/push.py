"""The push step: an image to where others get it, verified by digest."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.errors import MachineLacks, StepFailed
from workbench.registry.folder import Folder
from workbench.registry.layout import digest_of
from workbench.registry.target import Target
from workbench.registry.where import hurry, open_destination
from workbench.steps import Emit, Outputs

if TYPE_CHECKING:
    from workbench.registry.http import Patience

AT_ONCE = 4
"""How many blobs are sent at the same time."""


@dataclass(frozen=True)
class _Part:
    """A blob of the image: ``source`` is its file, ``what`` names it to the user."""

    digest: str
    size: int
    source: Path
    what: str


@dataclass(frozen=True)
class _Image:
    manifest: bytes
    media_type: str
    digest: str
    parts: Sequence[_Part]


def push(
    inputs: Mapping[str, Path], params: Mapping[str, Any], emit: Emit, patience: Patience | None = None
) -> Outputs:
    """Sends the image to the layout or registry that ``to`` names and lets the tag name it.

    ``inputs``: ``config``, ``manifest`` and the layers' blobs ``layer-…``, lowest first. ``params``: ``to``, ``name``,
    ``tag`` (or None), ``mount`` (repositories of the same registry that may have the blobs; may be missing). Values:
    ``reference`` (with the tag), ``by_digest``, ``digest`` (of the manifest), ``sent``, ``skipped`` and ``mounted``
    (blobs and manifest), ``bytes_sent``, and ``parts``: ``what``, ``digest``, ``size`` and ``state`` (``sent``,
    ``there`` or ``mounted``) of each blob. The text of the progress has each blob's state, too. Raises UsageError for
    what is no destination, StepFailed where a blob is missing or did not arrive whole, MachineLacks where the registry
    cannot be reached, or not with this account.
    """
    target, tag = open_destination(params["to"], params["name"], params.get("tag"), patience=patience)
    image = _image(inputs, digest_of)
    report = _Report(emit, target.name, image.parts)
    sources = params.get("mount") or ()
    sent = list(_each(lambda part: _send(target, part, sources, report), image.parts))
    if target.resolve(tag) != image.digest:
        target.add_manifest(image.manifest, image.media_type, tag)
        sent.append(len(image.manifest))
    else:
        sent.append(0)
    report.finish()
    return Outputs(values=_values(target, tag, image, sent))


def in_place(
    inputs: Mapping[str, Path],
    params: Mapping[str, Any],
    project: Path,
    digest_of_file: Callable[[Path], str],
    patience: Patience | None = None,
) -> dict[str, Any] | None:
    """The values of a push that finds everything there: the tag names the manifest, and every blob is there.

    None where something is missing or other, or a registry cannot be asked; it gets HEAD requests only. In a layout
    every blob is hashed; ``digest_of_file`` may remember what it has hashed. Raises UsageError as :func:`push` does.
    """
    target, tag = open_destination(
        params["to"], params["name"], params.get("tag"), project, patience or hurry(params["to"])
    )
    image = _image(inputs, digest_of_file)
    if isinstance(target, Folder):
        layout = target.layout
        named = layout.tags().get(tag, {}).get("digest") == image.digest
        blobs = {layout.blob(digest): digest for digest in (image.digest, *(part.digest for part in image.parts))}
        there = named and all(blob.is_file() and digest_of_file(blob) == digest for blob, digest in blobs.items())
    else:
        there = _answers_that_all_is_there(target, tag, image)
    return _values(target, tag, image, [0] * (len(image.parts) + 1)) if there else None


def _answers_that_all_is_there(target: Target, tag: str, image: _Image) -> bool:
    try:
        if target.resolve(tag) != image.digest:
            return False
        return all(_each(lambda part: target.has_blob(part.digest), image.parts))
    except (MachineLacks, StepFailed):
        return False


def _image(inputs: Mapping[str, Path], digest_of_file: Callable[[Path], str]) -> _Image:
    """The image's parts. Raises StepFailed where the manifest names a blob that is none of the inputs."""
    data = inputs["manifest"].read_bytes()
    manifest = json.loads(data)
    wanted = [manifest["config"], *manifest["layers"]]
    files = [inputs["config"], *(inputs[name] for name in sorted(inputs) if name.startswith("layer-"))]
    if [file.stat().st_size for file in files] == [descriptor["size"] for descriptor in wanted]:
        # In their order, as far as sizes tell: whoever takes a blob in hashes it anyway, and once is enough.
        found = {descriptor["digest"]: file for descriptor, file in zip(wanted, files, strict=True)}
    else:
        found = {digest_of_file(file): file for file in files}
    names = {descriptor["digest"]: f"layer {place} of {len(wanted) - 1}" for place, descriptor in enumerate(wanted)}
    parts = {}
    for descriptor in wanted:
        digest = str(descriptor["digest"])
        if digest not in found:
            raise StepFailed(f"The manifest names {digest}, which is none of the image's parts.", "Run with --fresh.")
        what = "config" if descriptor is manifest["config"] else names[digest]
        parts[digest] = _Part(digest, descriptor["size"], found[digest], what)
    return _Image(data, manifest["mediaType"], digest_of_file(inputs["manifest"]), list(parts.values()))


def _each(work: Callable[[_Part], Any], parts: Sequence[_Part]) -> Sequence[Any]:
    """What ``work`` gives for every part, several at once, the biggest first. After an error no further one begins."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(AT_ONCE) as pool:
        futures = [pool.submit(work, part) for part in sorted(parts, key=lambda part: -part.size)]
        try:
            return [future.result() for future in futures]
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _send(target: Target, part: _Part, sources: Sequence[str], report: _Report) -> int | None:
    """The bytes that were sent of ``part``; 0 where it was there, None where it was mounted."""
    report.of(part, 0)
    if sources and not target.has_blob(part.digest) and any(target.mount_blob(part.digest, each) for each in sources):
        report.of(part, part.size, "mounted")
        return None
    sent = target.add_blob(part.source, part.digest, lambda done, _: report.of(part, done))
    report.of(part, part.size, _state(sent))
    return sent


def _state(sent: int | None) -> str:
    return "mounted" if sent is None else "sent" if sent else "there"


class _Report:
    """Tells how many bytes of all blobs are there and how each blob stands, at most some hundred times."""

    def __init__(self, emit: Emit, to: str, parts: Sequence[_Part]) -> None:
        self._emit = emit
        self._to = to
        self._total = sum(part.size for part in parts)
        self._done = dict.fromkeys((part.digest for part in parts), 0)
        self._states = dict.fromkeys((part.what for part in parts), "waiting")
        self._told = (-1, "")
        self._lock = threading.Lock()

    def of(self, part: _Part, done: int, state: str = "") -> None:
        """The first ``done`` bytes of ``part`` are there; how it ended, where it has."""
        with self._lock:
            self._done[part.digest] = min(done, part.size)
            self._states[part.what] = state or f"{100 * done // max(1, part.size)}%"
            all_done = sum(self._done.values())
            now = (100 * all_done // max(1, self._total), state and part.what)
            if now != self._told:
                self._told = now
                said = ", ".join(f"{what} {how}" for what, how in self._states.items())
                self._emit.progress(all_done, self._total, f"pushing to {self._to}: {said}")

    def finish(self) -> None:
        """All is there."""
        self._emit.progress(self._total, self._total)


def _values(target: Target, tag: str, image: _Image, sent: Sequence[int | None]) -> dict[str, Any]:
    mounted = sum(each is None for each in sent)
    return {
        "reference": f"{target.name}:{tag}",
        "by_digest": f"{target.name}@{image.digest}",
        "digest": image.digest,
        "sent": sum(bool(each) for each in sent),
        "skipped": sum(each == 0 for each in sent),
        "mounted": mounted,
        "bytes_sent": sum(each or 0 for each in sent),
        "parts": [
            {"what": part.what, "digest": part.digest, "size": part.size, "state": _state(each)}
            for part, each in zip(image.parts, sent, strict=False)  # the manifest comes last
        ],
    }
