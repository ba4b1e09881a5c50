"""What is in an image: every file with its content's digest, whose it is, and what it costs without being of use."""

from __future__ import annotations

import csv
import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from workbench.image.layers import PIECE
from workbench.image.reading import OPAQUE, WHITEOUT, members, path_of

_RECORD = re.compile(r"(?P<root>.*/)(?P<name>[^/]+)-(?P<version>[^/-]+)\.dist-info/RECORD")
_DPKG = re.compile(r"/var/lib/dpkg/(?:info|status\.d)/(?P<name>[a-z0-9.+-]+)(?::\w+)?\.(?P<kind>md5sums|list)")
_LARGEST_LIST = 8 << 20


@dataclass(frozen=True)
class File:
    """A file in a layer; ``sha256`` (hex) is of its content."""

    size: int
    sha256: str


@dataclass
class Layer:
    """What one layer says. ``removed`` are paths of lower layers that it takes away, ``hidden`` folders whose lower
    content it hides, ``owners`` the package or wheel of each path that one claims."""

    name: str
    files: dict[str, File] = field(default_factory=dict)
    removed: set[str] = field(default_factory=set)
    hidden: set[str] = field(default_factory=set)
    owners: dict[str, str] = field(default_factory=dict)

    def takes_away(self, path: str) -> bool:
        """Whether a lower layer's ``path`` is no more with this one on top."""
        above = _parents(path)
        return path in self.files or path in self.removed or any(p in self.removed or p in self.hidden for p in above)


def _parents(path: str) -> Iterator[str]:
    while (path := path.rpartition("/")[0]) != "":
        yield path


def read_layer(name: str, blob: Path) -> Layer:
    """Reads a layer once, in flat memory but for the names of its files. Raises StepFailed where it is damaged."""
    layer = Layer(name)
    for member, content in members(blob):
        path = path_of(member)
        folder, _, last = path.rpartition("/")
        if last == OPAQUE:
            layer.hidden.add(folder)
        elif last.startswith(WHITEOUT):
            layer.removed.add(f"{folder}/{last.removeprefix(WHITEOUT)}")
        elif content is not None:
            layer.files[path] = _file(layer, path, member.size, content)
        elif not member.isdir():
            layer.files[path] = File(0, "")
    return layer


def _file(layer: Layer, path: str, size: int, content: IO[bytes]) -> File:
    sha256 = hashlib.sha256()
    lists = size <= _LARGEST_LIST and (_RECORD.fullmatch(path) or _DPKG.fullmatch(path)) is not None
    kept = []
    while piece := content.read(PIECE):
        sha256.update(piece)
        if lists:
            kept.append(piece)
    if lists:
        layer.owners |= _claims(path, b"".join(kept).decode(errors="replace"))
    return File(size, sha256.hexdigest())


def _claims(path: str, text: str) -> dict[str, str]:
    """The owner of each file that a wheel's RECORD, or dpkg's list of a package's files, names."""
    if record := _RECORD.fullmatch(path):
        owner = f"{record['name']} {record['version']}"
        return {record["root"] + row[0]: owner for row in csv.reader(text.splitlines()) if row}
    package = _DPKG.fullmatch(path)
    assert package is not None
    owner = f"Debian {package['name']}"
    names = (line[34:] if package["kind"] == "md5sums" else line[1:] for line in text.splitlines())
    # Debian's lists name /lib where the file has been in /usr/lib since the two were merged.
    return {path: owner} | {f"{top}/{name}": owner for name in names for top in ("", "/usr")}


def holds(layer: Layer) -> list[dict[str, Any]]:
    """A row for each wheel, package or, where neither claims a file, folder: ``what``, ``files``, ``bytes``."""
    files: dict[str, int] = defaultdict(int)
    size: dict[str, int] = defaultdict(int)
    for path, file in layer.files.items():
        folder = "/".join(path.rpartition("/")[0].split("/")[:3]) or "/"
        what = layer.owners.get(path, folder)
        files[what] += 1
        size[what] += file.size
    return [
        {"what": what, "files": files[what], "bytes": size[what]} for what in sorted(size, key=lambda w: (-size[w], w))
    ]


def wasted(layers: Sequence[Layer]) -> list[dict[str, Any]]:
    """A row for each file that a higher layer replaces or removes: ``path``, ``layer``, ``by``, ``bytes``."""
    rows = [
        {"path": path, "layer": lower.name, "by": by, "bytes": file.size}
        for place, lower in enumerate(layers)
        for path, file in lower.files.items()
        if (by := next((upper.name for upper in layers[place + 1 :] if upper.takes_away(path)), ""))
    ]
    return sorted(rows, key=lambda row: (-row["bytes"], row["path"]))


def visible(layers: Sequence[Layer]) -> Iterator[tuple[str, str, File]]:
    """What a container sees: path, layer, file."""
    for place, layer in enumerate(layers):
        for path, file in layer.files.items():
            if not any(upper.takes_away(path) for upper in layers[place + 1 :]):
                yield path, layer.name, file


def duplicates(files: Iterable[tuple[str, str, File]]) -> list[dict[str, Any]]:
    """A row for each content that lies at several paths: ``bytes`` that one copy would save, and ``paths``."""
    paths: dict[File, list[str]] = defaultdict(list)
    for path, _, file in files:
        if file.size:
            paths[file].append(path)
    rows = [
        {"bytes": file.size * (len(found) - 1), "paths": sorted(found)} for file, found in paths.items() if found[1:]
    ]
    return sorted(rows, key=lambda row: (-row["bytes"], row["paths"]))


def changes(before: Mapping[str, File], now: Mapping[str, File]) -> list[dict[str, Any]]:
    """A row for each file that differs: ``path``, ``change`` (added, removed, changed), ``bytes`` more or less."""
    rows = []
    for path in sorted({**before, **now}):
        old, new = before.get(path), now.get(path)
        if old != new:
            change = "added" if old is None else "removed" if new is None else "changed"
            rows.append({"path": path, "change": change, "bytes": (new.size if new else 0) - (old.size if old else 0)})
    return rows
