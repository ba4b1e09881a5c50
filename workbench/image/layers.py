"""The one way to write a layer: a tar in a normal form, and the blob that carries it.

Normal form: entries sorted by path, every folder on the way named, owner 0:0 without names, one time for all, modes as
given (never through the umask), POSIX pax headers where a name does not fit. So a layer's content digest (the
``diff_id`` of the OCI image specification) depends on what is in it and on nothing of the machine. What carries it may
differ: the bytes of a gzip blob depend on the zlib that made it, which is why the descriptor names the compressor.
"""

from __future__ import annotations

import hashlib
import json
import stat
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

from workbench.errors import StepFailed
from workbench.steps import Outputs

PIECE = 1 << 20
GZIP_LEVEL = 6
"""Of a 37 MB shared library: level 1 leaves 41 % at 87 MB/s, 6 leaves 37.3 % at 24 MB/s, 9 leaves 37.1 % at 11 MB/s."""

TAR_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"


def layer_files(inputs: Mapping[str, Path]) -> list[Path]:
    """The layers' blobs among the inputs of a step that reads an image, lowest first."""
    return [inputs[name] for name in sorted(inputs) if name.startswith("layer-")]


@dataclass(frozen=True)
class Entry:
    """One thing in a layer. ``path`` is relative to the image's root; ``open`` gives exactly ``size`` bytes of a
    file."""

    path: str
    kind: Literal["file", "folder", "symlink"] = "file"
    mode: int = 0o644
    size: int = 0
    open: Callable[[], BinaryIO] | None = None
    target: str = ""


def file_of(path: str, data: bytes, mode: int = 0o644) -> Entry:
    """A file whose content is at hand."""
    from io import BytesIO

    return Entry(path, "file", mode, len(data), lambda: BytesIO(data))


def file_from(path: str, source: Path, mode: int = 0o644) -> Entry:
    """A file with the content of ``source``; its mode on this machine does not count."""
    return Entry(path, "file", mode, source.stat().st_size, lambda: source.open("rb"))


def folder(path: str, mode: int = 0o755) -> Entry:
    """A folder."""
    return Entry(path, "folder", mode)


def symlink(path: str, target: str) -> Entry:
    """A symbolic link at ``path`` that says ``target``."""
    return Entry(path, "symlink", 0o777, target=target)


def in_order(entries: Iterable[Entry]) -> list[Entry]:
    """The entries sorted by path, with the folders on the way added. Raises StepFailed where two claim one path."""
    by_path: dict[str, Entry] = {}
    for entry in entries:
        _refuse_unsafe(entry.path)
        before = by_path.get(entry.path)
        if before is not None and not (before.kind == entry.kind == "folder"):
            raise StepFailed(f"Two parts of one layer claim the path /{entry.path}.")
        by_path[entry.path] = entry
    for path in list(by_path):
        for parent in list(Path(path).parents)[:-1]:
            above = by_path.setdefault(str(parent), folder(str(parent)))
            if above.kind != "folder":
                raise StepFailed(f"/{path} would lie below /{parent}, which is no folder.")
    return [by_path[path] for path in sorted(by_path, key=lambda text: text.encode())]


def _refuse_unsafe(path: str) -> None:
    parts = path.split("/")
    if not path or path.startswith("/") or "\0" in path or any(part in ("", ".", "..") for part in parts):
        raise StepFailed(f"{path!r} is no path that a layer may hold.")


class _Blob:
    """Takes the tar's bytes once: hashes them, compresses them, hashes and writes what comes out."""

    def __init__(self, file: BinaryIO, level: int) -> None:
        self._file = file
        # 31: a gzip header of zlib's own making, which holds no name and no time.
        self._compressor = zlib.compressobj(level, zlib.DEFLATED, 31)
        self._content = hashlib.sha256()
        self._carrier = hashlib.sha256()
        self.uncompressed = 0
        self.size = 0

    def write(self, data: bytes) -> None:
        self._content.update(data)
        self.uncompressed += len(data)
        self._carry(self._compressor.compress(data))

    def close(self) -> None:
        self._carry(self._compressor.flush())

    def _carry(self, data: bytes) -> None:
        self._carrier.update(data)
        self.size += len(data)
        self._file.write(data)

    @property
    def diff_id(self) -> str:
        return f"sha256:{self._content.hexdigest()}"

    @property
    def digest(self) -> str:
        return f"sha256:{self._carrier.hexdigest()}"


_TYPES = {"file": tarfile.REGTYPE, "folder": tarfile.DIRTYPE, "symlink": tarfile.SYMTYPE}


def _header(entry: Entry, created: int) -> bytes:
    info = tarfile.TarInfo(entry.path)
    info.type = _TYPES[entry.kind]
    info.mode = entry.mode
    info.size = entry.size
    info.linkname = entry.target
    info.mtime = created
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict")


def _write_entry(blob: _Blob, entry: Entry, created: int) -> None:
    blob.write(_header(entry, created))
    if entry.open is not None:
        for piece in _pieces(entry):
            blob.write(piece)
        blob.write(b"\0" * (-entry.size % tarfile.BLOCKSIZE))


def _pieces(entry: Entry) -> Iterator[bytes]:
    """A file's content. Raises StepFailed where it is not of the entry's size by now."""
    assert entry.open is not None
    left = entry.size
    with entry.open() as source:
        while piece := source.read(PIECE):
            left -= len(piece)
            yield piece
    if left:
        raise StepFailed(f"/{entry.path} changed while it was packed.", "Run the same command again.")


def write_layer(
    name: str,
    entries: Iterable[Entry],
    scratch: Path,
    *,
    created: int,
    level: int = GZIP_LEVEL,
    omitted_bytes: int = 0,
    more: Mapping[str, Any] | None = None,
) -> Outputs:
    """Writes the layer below ``scratch``: ``blob``, ``descriptor`` and ``contents``.

    ``created`` is the time of every entry (seconds since 1970), ``level`` zlib's level (0 stores), ``more`` further
    facts for the descriptor. Raises StepFailed where entries contradict each other.
    """
    entries = in_order(entries)
    path = scratch / "blob"
    with path.open("wb") as file:
        blob = _Blob(file, level)
        for entry in entries:
            _write_entry(blob, entry, created)
        blob.write(b"\0" * (2 * tarfile.BLOCKSIZE))
        blob.close()
    descriptor = {
        **(more or {}),
        "name": name,
        **_described(blob, level),
        "files": sum(entry.kind != "folder" for entry in entries),
        "omitted_bytes": omitted_bytes,
    }
    contents = [{"path": f"/{entry.path}", "size": entry.size} for entry in entries if entry.kind != "folder"]
    return Outputs(
        files={
            "blob": path,
            "descriptor": written_json(scratch / "descriptor", descriptor),
            "contents": written_json(scratch / "contents", contents),
        },
        values=descriptor,
    )


def write_tar(path: Path, entries: Iterable[Entry], created: int) -> tuple[str, dict[str, str]]:
    """Writes the entries, in order, as the tar ``path``; its ``diff_id``, and the sha256 of each file by path.

    It is in the form in which Docker 20.10 writes the layer that it makes of this tar: Go's ``archive/tar`` in PAX
    format with the owner's name, and with the kind of each entry in its mode as well (Docker's
    ``archive.FileInfoHeader``; later releases leave the name out). Raises StepFailed where
    entries contradict each other.
    """
    whole, files = hashlib.sha256(), {}
    with path.open("wb") as file:

        def write(data: bytes) -> None:
            whole.update(data)
            file.write(data)

        for entry in in_order(entries):
            write(_as_engines_do(_header(entry, created), entry))
            if entry.open is not None:
                content = hashlib.sha256()
                for piece in _pieces(entry):
                    content.update(piece)
                    write(piece)
                write(b"\0" * (-entry.size % tarfile.BLOCKSIZE))
                files[entry.path] = content.hexdigest()
        write(b"\0" * (2 * tarfile.BLOCKSIZE))
    return f"sha256:{whole.hexdigest()}", files


_KIND_BITS = {"file": stat.S_IFREG, "folder": stat.S_IFDIR, "symlink": stat.S_IFLNK}


def _as_engines_do(header: bytes, entry: Entry) -> bytes:
    """A header with these fields of its last block, the entry's own, as engines write them (POSIX ustar, by offset)."""
    block = bytearray(header[-tarfile.BLOCKSIZE :])
    block[100:108] = b"%07o\0" % (entry.mode | _KIND_BITS[entry.kind])
    block[265:269] = block[297:301] = b"root"  # owner and group
    block[329:345] = b"0000000\0" * 2  # device
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return header[: -tarfile.BLOCKSIZE] + bytes(block)


def pack(tar: BinaryIO, path: Path, level: int = GZIP_LEVEL) -> dict[str, Any]:
    """Packs a layer that another program wrote into the blob ``path``; what the descriptor of any layer says of it."""
    with path.open("wb") as file:
        blob = _Blob(file, level)
        while piece := tar.read(PIECE):
            blob.write(piece)
        blob.close()
    return _described(blob, level)


def _described(blob: _Blob, level: int) -> dict[str, Any]:
    return {
        "mediaType": TAR_GZIP,
        "diff_id": blob.diff_id,
        "digest": blob.digest,
        "size": blob.size,
        "uncompressed": blob.uncompressed,
        "compressor": f"zlib {zlib.ZLIB_RUNTIME_VERSION} level {level}",
    }


def canonical(value: Any) -> bytes:
    """``value`` as JSON bytes that are equal for equal values."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def written_json(path: Path, value: Any) -> Path:
    """Writes ``value`` as canonical JSON to ``path``."""
    path.write_bytes(canonical(value))
    return path
