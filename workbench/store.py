"""The store: files by the digest of their content, results by the key of their step.

::

    .workbench/store/objects/ab/ab12…   a file, read-only
    .workbench/store/results/cd/cd34…   a step's result (JSON): which objects, which values
    .workbench/store/locks/             one lock a key: two runs never make the same thing at once
    .workbench/tmp/                     what steps write before it enters the store

Everything enters by a rename, objects before the result that names them, so a run killed at any moment leaves either a
whole result or none.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.errors import Cancelled, MachineLacks, StepFailed

_STAT_CACHE_FROM = 1 << 20

_SETTLED_NS = 2_000_000_000
"""A file changed less than this ago is not remembered: another change within one tick of the file system's clock would
not show in its times (what git calls racily clean)."""


def canonical(value: Any) -> bytes:
    """``value`` as JSON bytes that are equal for equal values."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def digest_of_bytes(data: bytes) -> str:
    """``sha256:…`` of ``data``."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def digest_of(path: Path) -> str:
    """``sha256:…`` of the file's content, read in pieces."""
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def write_atomically(path: Path, data: bytes) -> None:
    """Writes ``data`` to ``path`` so that a reader sees the old content or the new, never a part.

    The mode of an existing file stays. Raises MachineLacks where the disk is full or the folder not writable."""
    temporary = None
    try:
        mode = path.stat().st_mode & 0o777 if path.exists() else 0o666 & ~_umask()
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(mode)
        Path(temporary).replace(path)
    except OSError as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        raise unwritable(path, error) from error


def _umask() -> int:
    """The process's file mode mask, read without changing it."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("Umask:"):
            return int(line.split()[1], 8)
    return 0o022


def unwritable(path: Path, error: OSError) -> MachineLacks:
    """The typed error for a file that could not be written."""
    cure = (
        "Free disk space or correct the folder's permissions, then run the same command again: finished work is kept."
    )
    if isinstance(error, FileNotFoundError | NotADirectoryError | IsADirectoryError):
        cure = "Name a file in a folder that is there."
    return MachineLacks(f"{path} cannot be written: {error.strerror or error}.", cure)


@dataclass(frozen=True)
class Result:
    """What a step made: its files as ``{name: {digest, size}}``, its values, and the project files it read besides its
    inputs (such as the external data of a model)."""

    files: Mapping[str, Mapping[str, Any]]
    values: Mapping[str, Any]
    also_read: Mapping[str, str]

    def digest(self, output: str) -> str:
        return str(self.files[output]["digest"])


class Store:
    """The store below ``folder`` (a project's ``.workbench``)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.objects = folder / "store" / "objects"
        self.results = folder / "store" / "results"
        self.locks = folder / "store" / "locks"
        self.stats = folder / "store" / "stats"
        self.tmp = folder / "tmp"

    def create(self) -> None:
        """Makes the folders. ``.gitignore`` keeps all of it out of git."""
        try:
            for folder in (self.objects, self.results, self.locks, self.stats, self.tmp):
                folder.mkdir(parents=True, exist_ok=True)
            ignore = self.folder / ".gitignore"
            if not ignore.exists():
                ignore.write_text("*\n")
        except OSError as error:
            raise unwritable(self.folder, error) from error

    def path(self, digest: str) -> Path:
        """Where the object with ``digest`` (``sha256:…``) lies, or would."""
        name = digest.removeprefix("sha256:")
        return self.objects / name[:2] / name

    def find(self, key: str) -> Result | None:
        """The whole result under ``key``, or None.

        Objects are checked by size only: they enter by a rename of a finished file, so after a power loss the one thing
        that can be wrong is a length; ``replay`` is what proves content.
        """
        try:
            record = json.loads(self._result_path(key).read_bytes())
            result = Result(record["files"], record["values"], record["also_read"])
            for file in result.files.values():
                if self.path(file["digest"]).stat().st_size != file["size"]:
                    return None
        except (OSError, ValueError, KeyError):
            return None
        return result

    def put(
        self, key: str, files: Mapping[str, Path], values: Mapping[str, Any], also_read: Mapping[str, str]
    ) -> Result:
        """Moves ``files`` into the store and records the result under ``key``. Raises MachineLacks where it cannot."""
        entered = {name: {"digest": self._enter(path), "size": path_size} for name, path, path_size in _sized(files)}
        record = {"files": entered, "values": values, "also_read": also_read}
        target = self._result_path(key)
        try:
            target.parent.mkdir(exist_ok=True)
        except OSError as error:
            raise unwritable(target, error) from error
        write_atomically(target, json.dumps(record, sort_keys=True).encode())
        return Result(entered, values, also_read)

    def put_bytes(self, data: bytes) -> str:
        """Enters ``data`` as an object; its digest."""
        digest = digest_of_bytes(data)
        if not self.path(digest).exists():
            try:
                self.path(digest).parent.mkdir(exist_ok=True)
            except OSError as error:
                raise unwritable(self.path(digest), error) from error
            write_atomically(self.path(digest), data)
        return digest

    def _enter(self, path: Path) -> str:
        digest = digest_of(path)
        target = self.path(digest)
        try:
            target.parent.mkdir(exist_ok=True)
            path.chmod(0o444)
            path.replace(target)
        except OSError as error:
            raise unwritable(target, error) from error
        return digest

    def _result_path(self, key: str) -> Path:
        name = key.removeprefix("sha256:")
        return self.results / name[:2] / f"{name}.json"

    def source_digest(self, path: Path) -> str:
        """The digest of a project file; a large one's is remembered by size, times and inode, as git's index does."""
        stat = path.stat()
        if stat.st_size < _STAT_CACHE_FROM:
            return digest_of(path)
        seen = self.stats / f"{hashlib.sha256(str(path.resolve()).encode()).hexdigest()}.json"
        identity = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]
        with contextlib.suppress(OSError, ValueError, KeyError):
            record = json.loads(seen.read_bytes())
            if record["identity"] == identity:
                return str(record["digest"])
        digest = digest_of(path)
        settled = time.time_ns() - max(stat.st_mtime_ns, stat.st_ctime_ns) > _SETTLED_NS
        if settled and self.stats.is_dir():  # a dry run makes no folders
            write_atomically(seen, json.dumps({"identity": identity, "digest": digest}).encode())
        return digest

    @contextlib.contextmanager
    def scratch(self, name: str) -> Iterator[Path]:
        """An empty folder for a step to write in, removed at the end. :meth:`sweep` removes those of dead runs."""
        folder = self.tmp / f"{name}-{uuid.uuid4().hex[:12]}"
        lock = folder.with_suffix(".lock")
        with contextlib.ExitStack() as stack:
            try:
                with held(self.locks / "scratch"):
                    stack.enter_context(held(lock))
                folder.mkdir()
            except OSError as error:
                raise unwritable(folder, error) from error
            try:
                yield folder
            finally:
                remove_tree(folder)
                lock.unlink(missing_ok=True)

    def sweep(self) -> None:
        """Removes the scratch folders of runs that are gone: the lock of a folder in use is held."""
        with held(self.locks / "scratch"):
            for lock in self.tmp.glob("*.lock"):
                if not is_held(lock):
                    remove_tree(lock.with_suffix(""))
                    lock.unlink(missing_ok=True)

    @contextlib.contextmanager
    def alone(self, name: str, stop: threading.Event) -> Iterator[None]:
        """Holds the lock ``name`` among all runs of this store. Raises Cancelled if ``stop`` is set while waiting."""
        with (self.locks / name).open("ab") as file:
            while not _try_lock(file.fileno()):
                if stop.wait(0.02):
                    raise Cancelled("The run was cancelled.")
            yield


def _sized(files: Mapping[str, Path]) -> Iterator[tuple[str, Path, int]]:
    for name, path in sorted(files.items()):
        if not path.is_file() or path.is_symlink():
            raise StepFailed(f"The step said it made {name}, and there is no file {path.name}.")
        yield name, path, path.stat().st_size


def remove_tree(folder: Path) -> None:
    """Removes a folder and all in it, also folders that are not writable (an unpacked image has some)."""
    if not folder.exists():
        return
    for parent, folders, _ in os.walk(folder):
        for name in folders:
            inner = Path(parent, name)
            if not inner.is_symlink():
                inner.chmod(0o700)
    shutil.rmtree(folder)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def held(path: Path) -> Iterator[int]:
    """Holds the lock file at ``path`` (made if need be) until the end, or until the process is gone."""
    with path.open("ab") as file:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX)
        yield file.fileno()


def is_held(path: Path) -> bool:
    """Whether some process holds the lock file at ``path``."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file.fileno(), fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    return False
