"""npz files: reading any that a user brings, writing such that the bytes depend on the arrays only."""

from __future__ import annotations

import io
import math
import shutil
import struct
import zipfile
import zlib
from collections.abc import Container, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from workbench.errors import UsageError

MAX_BYTES = 8 * 2**30
"""Arrays of one file together, unpacked. A zip of a few KiB can claim terabytes."""

Array = NDArray[Any]

_ZIP_ERRORS = (
    zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, ValueError, RuntimeError, NotImplementedError,
    KeyError, SyntaxError, TypeError, MemoryError,
)  # fmt: skip


@dataclass(frozen=True)
class Beginning:
    """The ``first`` rows of an array that has ``rows`` of them; of one without axes all, and rows is 0."""

    rows: int
    first: Array


def peek(path: Path, location: str, rows: int, whole: Container[str] = ()) -> dict[str, Beginning]:
    """The first ``rows`` of every array of the file, of those named in ``whole`` all. Raises as :func:`read_npz`.

    No more is read than that, so a look at gigabytes takes milliseconds.
    """
    with _told(location), zipfile.ZipFile(path) as archive:
        entries = {entry.filename.removesuffix(".npy"): entry for entry in _checked_entries(archive, location)}
        return {
            name: _read_beginning(archive, entry, location, None if name in whole else rows)
            for name, entry in entries.items()
        }


def read_npz(path: Path, location: str) -> dict[str, Array]:
    """Every array of the file, by name. ``location`` is the file as the user knows it.

    Nothing is unpickled: :class:`UsageError` for object arrays, and for anything that is not a whole npz of at most
    8 GiB with numbers, booleans or fixed-width strings in it.
    """
    with _told(location), zipfile.ZipFile(path) as archive:
        entries = _checked_entries(archive, location)
        return {entry.filename.removesuffix(".npy"): _read_entry(archive, entry, location) for entry in entries}


class Stream:
    """An array of an npz file, read in pieces along its first axis. ``shape`` and ``dtype`` are the whole array's."""

    def __init__(
        self, file: IO[bytes], location: str, shape: tuple[int, ...], dtype: np.dtype[Any], start: int
    ) -> None:
        self.shape = shape
        self.dtype = dtype
        self._file = file
        self._location = location
        self._start = start
        self._width = math.prod(shape[1:]) * dtype.itemsize

    def seek(self, row: int) -> None:
        """Goes on at ``row``. Raises as :func:`read_npz`."""
        with _told(self._location):
            self._file.seek(self._start + row * self._width)

    def read(self, rows: int) -> Array:
        """The next ``rows`` rows, which the array must still have. Raises as :func:`read_npz`."""
        with _told(self._location):
            data = self._file.read(rows * self._width)
            array: Array = np.frombuffer(data, self.dtype).reshape(rows, *self.shape[1:])
        return array.astype(self.dtype.newbyteorder("="), copy=False)


def open_streams(path: Path, location: str, opened: ExitStack) -> dict[str, Stream]:
    """Every array of the file that has axes, for reading in pieces, however large; they are closed with ``opened``.

    Raises as :func:`read_npz`; also for an array in Fortran order, whose rows do not lie together.
    """
    found = {}
    with _told(location):
        archive = opened.enter_context(zipfile.ZipFile(path))
        for entry in _checked_entries(archive, location, bounded=False):
            name = entry.filename.removesuffix(".npy")
            shape, fortran, dtype, start = _checked_header(archive, entry, location)
            if fortran and len(shape) > 1:
                raise UsageError(
                    f"{location}: the array {name!r} is in Fortran order, so it cannot be read row by row.",
                    "Save it as numpy.ascontiguousarray(array).",
                )
            if shape:
                file = opened.enter_context(archive.open(entry))
                found[name] = Stream(file, location, shape, dtype, start)
                found[name].seek(0)
    return found


@contextmanager
def _told(location: str) -> Iterator[None]:
    """Turns what a damaged file meets into a sentence."""
    try:
        yield
    except UsageError:
        raise
    except _ZIP_ERRORS as error:
        raise UsageError(
            f"{location} is not an npz file, or it is truncated or damaged.",
            "Write it again with numpy.savez(file, x=..., y=...).",
        ) from error


def write_npz(path: Path, arrays: Mapping[str, Array]) -> None:
    """Write the arrays uncompressed, in the given order, without the time of day that numpy puts into zip entries."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name, array in arrays.items():
            with archive.open(_entry_for(name), "w", force_zip64=True) as stream:
                np.lib.format.write_array(stream, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False)


def write_npz_from(path: Path, files: Mapping[str, tuple[Path, tuple[int, ...], np.dtype[Any]]]) -> None:
    """As :func:`write_npz`, of arrays whose values lie in files: by name the file, the shape and the dtype."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name, (source, shape, dtype) in files.items():
            described = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
            with archive.open(_entry_for(name), "w", force_zip64=True) as stream, source.open("rb") as values:
                np.lib.format.write_array_header_1_0(stream, described)
                shutil.copyfileobj(values, stream, 1 << 20)


def _entry_for(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0))
    entry.external_attr = 0o644 << 16
    return entry


def _checked_entries(archive: zipfile.ZipFile, location: str, *, bounded: bool = True) -> list[zipfile.ZipInfo]:
    entries = archive.infolist()
    names = [entry.filename for entry in entries]
    if not names or not all(name.endswith(".npy") for name in names) or len(set(names)) < len(names):
        raise UsageError(
            f"{location} does not hold numpy arrays, each under a name of its own.",
            "Write it with numpy.savez(file, x=..., y=...).",
        )
    total = sum(entry.file_size for entry in entries)
    if bounded and total > MAX_BYTES:
        raise UsageError(
            f"{location} unpacks to {total / 2**30:.1f} GiB; the limit is {MAX_BYTES / 2**30:.0f} GiB.",
            "Give a smaller sample of the data.",
        )
    return entries


def _read_entry(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, location: str) -> Array:
    _checked_header(archive, entry, location)
    with archive.open(entry) as stream:
        array: Array = np.lib.format.read_array(stream, allow_pickle=False)
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _read_beginning(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, location: str, rows: int | None) -> Beginning:
    shape, fortran, dtype, start = _checked_header(archive, entry, location)
    length = shape[0] if shape else 0
    if rows is None or not shape or (fortran and len(shape) > 1):
        array = _read_entry(archive, entry, location)
        return Beginning(length, array[:rows] if shape else array)
    wanted = (min(rows, length), *shape[1:])
    with archive.open(entry) as stream:
        stream.read(start)
        data = stream.read(math.prod(wanted) * dtype.itemsize)
    return Beginning(length, np.frombuffer(data, dtype).reshape(wanted).astype(dtype.newbyteorder("="), copy=False))


def _checked_header(
    archive: zipfile.ZipFile, entry: zipfile.ZipInfo, location: str
) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    """As :func:`_header`; it is believed only where it agrees with the size of the entry."""
    name = entry.filename.removesuffix(".npy")
    with archive.open(entry) as stream:
        head = io.BytesIO(stream.read(64 * 1024))
    shape, fortran, dtype, start = _header(head)
    if dtype.hasobject:
        raise UsageError(
            f"{location}: the array {name!r} holds Python objects, which are never loaded.",
            "Save it as numbers: array.astype('float32').",
        )
    if dtype.kind not in "biufUS":
        raise UsageError(f"{location}: the array {name!r} has the dtype {dtype}.", "Save it as plain numbers.")
    if any(dim < 0 for dim in shape) or start + math.prod(shape) * dtype.itemsize != entry.file_size:
        raise UsageError(
            f"{location}: the array {name!r} says its shape is {list(shape[:8])}, which its data does not fit.",
            "The file is damaged: write it again with numpy.savez.",
        )
    return shape, fortran, dtype, start


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    """Shape, whether the first axis varies fastest, dtype and the offset of the values."""
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    elif version == (2, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_2_0(stream)
    else:
        raise ValueError(f"npy version {version}")
    return shape, fortran, dtype, stream.tell()
