"""The file tree of an image: what a container sees when all layers lie over each other, and one digest for it.

Builders that disagree about times, the order in a tar or how content is split into layers still agree about this: each
path with its kind, mode, owner and content. Times do not count, nor do extended attributes.
"""

from __future__ import annotations

import hashlib
import itertools
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from workbench.errors import StepFailed
from workbench.image.layers import PIECE, canonical
from workbench.image.unpacked import DAMAGE, Content, entries, opened

_REMOVED = ".wh."
_EMPTIED = ".wh..wh..opq"
_KINDS: Mapping[bytes, Literal["folder", "symlink", "device", "fifo"]] = {
    tarfile.DIRTYPE: "folder",
    tarfile.SYMTYPE: "symlink",
    tarfile.CHRTYPE: "device",
    tarfile.BLKTYPE: "device",
    tarfile.FIFOTYPE: "fifo",
}


@dataclass(frozen=True)
class Node:
    """One path. ``content`` is the sha256 of a file, where a symbolic link points, the numbers of a device."""

    kind: Literal["file", "folder", "symlink", "device", "fifo"]
    mode: int
    uid: int
    gid: int
    content: str = ""


@dataclass(frozen=True)
class Changes:
    """What one layer says of the tree below it. ``links`` are further names: a path, and the path it is the same as."""

    added: Mapping[str, Node]
    links: Mapping[str, str]
    removed: frozenset[str]
    emptied: frozenset[str]


def changes_of(blob: Path, diff_id: str | None = None) -> Changes:
    """What the layer in ``blob`` (a tar, plain or gzip) changes; read once, in memory that its size does not decide.

    Raises StepFailed where it is damaged, hostile, or with ``diff_id`` another layer.
    """
    with blob.open("rb") as file:
        content = Content(file)
        try:
            with opened(content) as archive:
                changes = _changes(archive)
            content.drain()
        except DAMAGE as error:
            raise StepFailed(f"A layer of the image is damaged: {error}.", "Build the image again.") from error
    if diff_id not in (None, content.diff_id):
        raise StepFailed(f"A layer of the image is {content.diff_id}, not {diff_id}.", "Build the image again.")
    return changes


def _changes(archive: tarfile.TarFile) -> Changes:
    added: dict[str, Node] = {}
    links: dict[str, str] = {}
    removed: set[str] = set()
    emptied: set[str] = set()
    for member in entries(archive):
        path = _safe(member.name)
        above, _, name = path.rpartition("/")
        if not path:
            continue  # the root itself: engines set it anew
        if name == _EMPTIED:
            emptied.add(above)
        elif name.startswith(_REMOVED):
            removed.add(f"{above}/{name.removeprefix(_REMOVED)}".lstrip("/"))
        elif member.islnk():
            links[path] = _safe(member.linkname)
            added.pop(path, None)
        else:
            added[path] = _node(archive, member)
            links.pop(path, None)
    return Changes(added, links, frozenset(removed), frozenset(emptied))


def _safe(name: str) -> str:
    path = name.removeprefix("./").rstrip("/")
    if path in ("", "."):
        return ""
    if path.startswith("/") or "\0" in path or any(part in ("", ".", "..") for part in path.split("/")):
        raise StepFailed(f"A layer of the image has the path {name!r}, which leads out of it.", "Do not use it.")
    return path


def _node(archive: tarfile.TarFile, member: tarfile.TarInfo) -> Node:
    mode, uid, gid = member.mode & 0o7777, member.uid, member.gid
    if member.isfile():
        source = archive.extractfile(member)
        assert source is not None
        sha256 = hashlib.sha256()
        while piece := source.read(PIECE):
            sha256.update(piece)
        return Node("file", mode, uid, gid, sha256.hexdigest())
    kind = _KINDS.get(member.type)
    if kind is None:
        raise StepFailed(f"A layer of the image has /{member.name} of the unknown kind {member.type!r}.")
    if kind == "symlink":
        # No system gives the mode of a link a meaning, and writers differ in it.
        return Node("symlink", 0o777, uid, gid, member.linkname)
    numbers = f"{member.type.decode()} {member.devmajor}:{member.devminor}" if kind == "device" else ""
    return Node(kind, mode, uid, gid, numbers)


def applied(layers: Iterable[Changes]) -> dict[str, Node]:
    """The tree that these layers make, lowest first. Raises StepFailed where they contradict each other."""
    tree: dict[str, Node] = {}
    for layer in layers:
        tree = _without(tree, layer.removed, layer.emptied)
        new = {**layer.added, **dict(_linked(tree, layer))}
        replaced = frozenset(path for path, node in new.items() if node.kind != "folder" and path in tree)
        tree = {**_without(tree, replaced, frozenset()), **new}
        for path in new:
            _refuse_below_others(tree, path)
    return tree


def _without(tree: Mapping[str, Node], removed: frozenset[str], emptied: frozenset[str]) -> dict[str, Node]:
    """The tree without what is ``removed``, and without all that lies below these paths or the ``emptied`` ones."""
    if not removed and not emptied:
        return dict(tree)

    def stays(path: str) -> bool:
        above = list(_above(path))
        return removed.isdisjoint((path, *above)) and emptied.isdisjoint(("", *above))

    return {path: node for path, node in tree.items() if stays(path)}


def _above(path: str) -> Iterator[str]:
    while "/" in path:
        path = path.rpartition("/")[0]
        yield path


def _linked(tree: Mapping[str, Node], layer: Changes) -> Iterator[tuple[str, Node]]:
    for path, target in layer.links.items():
        seen = {path}
        while target in layer.links and target not in seen:
            seen.add(target)
            target = layer.links[target]
        node = layer.added.get(target) or tree.get(target)
        if node is None or node.kind == "folder":
            raise StepFailed(f"A layer of the image links /{path} to /{target}, which is no file.")
        yield path, node


def _refuse_below_others(tree: dict[str, Node], path: str) -> None:
    for above in _above(path):
        node = tree.setdefault(above, Node("folder", 0o755, 0, 0))
        if node.kind != "folder":
            raise StepFailed(f"A layer of the image has /{path} below /{above}, which is no folder.")


def tree_entries(blobs: Sequence[Path], diff_ids: Sequence[str] | None = None) -> dict[str, Node]:
    """The tree of an image with these layers, lowest first; each is checked against its ``diff_ids``, where given."""
    expected = diff_ids if diff_ids is not None else [None] * len(blobs)
    return applied(changes_of(blob, diff_id) for blob, diff_id in zip(blobs, expected, strict=True))


def as_json(tree: Mapping[str, Node]) -> dict[str, list[str]]:
    """The tree as JSON: a list of kind, mode (octal), owner (``uid:gid``) and content for each path."""
    return {
        f"/{path}": [node.kind, f"{node.mode:04o}", f"{node.uid}:{node.gid}", node.content]
        for path, node in sorted(tree.items())
    }


def tree_digest(tree: Mapping[str, Node]) -> str:
    """``sha256:…`` of the tree's canonical JSON."""
    return f"sha256:{hashlib.sha256(canonical(as_json(tree))).hexdigest()}"


def differences(one: Mapping[str, Node], other: Mapping[str, Node], most: int = 10) -> list[str]:
    """What differs between two trees, by path: at most ``most`` sentences."""
    sentences = (
        sentence
        for path in sorted(one.keys() | other.keys())
        if (sentence := _differs(path, one.get(path), other.get(path)))
    )
    return list(itertools.islice(sentences, most))


def _differs(path: str, one: Node | None, other: Node | None) -> str:
    if one is None or other is None:
        return f"/{path} is only in the {'second' if one is None else 'first'}"
    for what, before, now in (
        ("kind", one.kind, other.kind),
        ("mode", f"{one.mode:04o}", f"{other.mode:04o}"),
        ("owner", f"{one.uid}:{one.gid}", f"{other.uid}:{other.gid}"),
        ("content", one.content, other.content),
    ):
        if before != now:
            return f"/{path}: {what} {before}, then {now}"
    return ""
