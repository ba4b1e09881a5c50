"""What was downloaded and checked, kept by its sha256 for the next time and shared by all projects of a user.

Only inputs lie here, never something a step made. Every use hashes the file again, so a changed one is as good as
absent.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from workbench.errors import MachineLacks


def cache_folder() -> Path:
    """``WORKBENCH_CACHE``, or the user's cache folder for workbench."""
    chosen = os.environ.get("WORKBENCH_CACHE")
    if chosen:
        return Path(chosen)
    import platformdirs

    return Path(platformdirs.user_cache_dir("workbench"))


def sha256_of(path: Path) -> str:
    """The file's sha256, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _place(sha256: str) -> Path:
    return cache_folder() / "downloads" / sha256[:2] / sha256


def take(sha256: str) -> Path | None:
    """The file with that content, or None. A file whose content is another by now is removed."""
    path = _place(sha256)
    with contextlib.suppress(FileNotFoundError):
        if sha256_of(path) == sha256:
            return path
        path.unlink()
    return None


@contextlib.contextmanager
def partial(sha256: str) -> Iterator[Path]:
    """Where what has come of that content so far lies, to go on from; others who want it wait, and find it whole.

    Raises MachineLacks where the cache cannot be written.
    """
    path = cache_folder() / "downloads" / "partial" / sha256
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("ab")
    except OSError as error:
        raise _unwritable(error) from error
    with file:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX)
        try:
            yield path
        finally:
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_size == 0:
                    path.unlink()


def adopt(source: Path, sha256: str) -> Path:
    """Moves ``source``, which lies in the cache already and has that content, to its place; where it lies now."""
    path = _place(sha256)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        source.replace(path)
    except OSError as error:
        raise _unwritable(error) from error
    return path


def _unwritable(error: OSError) -> MachineLacks:
    return MachineLacks(
        f"The download cache {cache_folder()} cannot be written: {error.strerror or error}.",
        "Free disk space, or name another folder in WORKBENCH_CACHE.",
    )


def keep(source: Path, sha256: str) -> Path:
    """Takes ``source`` (whose content has that ``sha256``: the caller has checked) into the cache; where it lies now.

    Raises MachineLacks where the cache cannot be written.
    """
    path = _place(sha256)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".new-")
        with os.fdopen(descriptor, "wb") as target, source.open("rb") as file:
            shutil.copyfileobj(file, target, 1 << 20)
            target.flush()
            os.fsync(target.fileno())
        Path(temporary).replace(path)
    except OSError as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        raise _unwritable(error) from error
    return path
