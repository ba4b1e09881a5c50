"""What a scoring keeps beside its output: the unfinished rows with how far they are, and in the end what was done.

::

    OUTPUT                  the finished file; it enters by a rename
    OUTPUT.batch.json       what it was made of
    OUTPUT.rejected.jsonl   the rows that were left out, where there were any
    OUTPUT.unfinished/      while it is made: state.json, rejected, part files
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from workbench.batch.append import FRESH, Appended
from workbench.errors import UsageError
from workbench.store import remove_tree, unwritable, write_atomically


def beside(output: Path, end: str) -> Path:
    """The path of something that lies beside ``output``."""
    return output.with_name(output.name + end)


class Journal:
    """The journal of one output. A context manager: nobody else writes the same output meanwhile."""

    def __init__(self, output: Path, *, fresh: bool) -> None:
        """MachineLacks where the folder cannot be written, UsageError where somebody is at it."""
        self.output = output
        self.folder = beside(output, ".unfinished")
        self.record = beside(output, ".batch.json")
        self.rejected = beside(output, ".rejected.jsonl")
        self._fresh = fresh
        self._rejected: Appended

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Until the end nobody else writes this output."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = (self.folder / "lock").open("ab")
        except OSError as error:
            raise unwritable(self.output, error) from error
        with lock:
            try:
                fcntl.flock(lock.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UsageError(
                    f"{self.output} is being written by another command.", "Wait for it, or stop it."
                ) from None
            if self._fresh:
                self._clear()
            try:
                yield
            finally:
                if not (self.folder / "state.json").exists():
                    remove_tree(self.folder)  # nothing was begun, or all is done

    def _clear(self) -> None:
        for path in self.folder.iterdir():
            if path.name != "lock":
                path.unlink()
        self.record.unlink(missing_ok=True)

    def finished(self, job: Mapping[str, Any]) -> dict[str, Any] | None:
        """The record of the output where it is finished, and of this ``job``; None where there is none.

        UsageError where it is another's: of another job, or of no scoring at all.
        """
        if not self.output.exists() or self._fresh:
            return None
        found = _read(self.record)
        if found is None or found["output"] != stamp(self.output):
            raise UsageError(
                f"{self.output} is there, and is not what this command wrote.", "Give another OUTPUT, or say --fresh."
            )
        check_same(found["job"], job, f"{self.output} is finished, but")
        return found

    def state(self) -> dict[str, Any] | None:
        """How far the unfinished rows are; None where nothing was begun."""
        return _read(self.folder / "state.json")

    def save(self, state: Mapping[str, Any]) -> None:
        """Writes down how far it is."""
        write_atomically(self.folder / "state.json", json.dumps(state).encode())

    def forget(self) -> None:
        """Takes back that anything was begun."""
        (self.folder / "state.json").unlink()

    # --- rows that are left out

    def open(self, size: int, opened: contextlib.ExitStack) -> None:
        """Goes on writing rejected rows after ``size`` bytes of them, until ``opened`` is closed."""
        self._rejected = opened.enter_context(contextlib.closing(Appended(self.folder / "rejected", size)))

    def reject(self, row: Mapping[str, Any]) -> None:
        """Writes down a row that is left out."""
        self._rejected.write(json.dumps(row, ensure_ascii=False).encode("utf-8", "replace") + b"\n")

    def mark(self) -> int:
        """The size of the rejected rows, once they are on the disk."""
        return self._rejected.sync()

    # --- the end

    def publish(self, state: dict[str, Any], whole: Path) -> dict[str, Any]:
        """Puts the finished file ``whole`` and the rejected rows in their places; the record that is left.

        From the saved state on only :meth:`go_on_publishing` is left to do.
        """
        with whole.open("rb") as file:
            os.fsync(file.fileno())
        state["whole"] = whole.name
        self.save(state)
        return self.go_on_publishing(state)

    def go_on_publishing(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """The last steps, each of which may have been done already; the record that is left."""
        if state["rejected"]:
            _move(self.folder / "rejected", self.rejected)
        else:
            self.rejected.unlink(missing_ok=True)
        _move(self.folder / state["whole"], self.output)
        record = {name: state[name] for name in ("job", "rows", "rejected", "alone")} | {"output": stamp(self.output)}
        write_atomically(self.record, json.dumps(record, indent=2).encode() + b"\n")
        self.forget()
        return record


def _move(source: Path, target: Path) -> None:
    """Unless it has been moved before."""
    if source.exists():
        source.replace(target)


def check_same(before: Mapping[str, Any], now: Mapping[str, Any], beginning: str) -> None:
    """UsageError naming what is another than it was."""
    for name, value in now.items():
        if before.get(name) != value:
            raise UsageError(f"{beginning} {name} is another now.", FRESH)


def stamp(path: Path) -> list[int]:
    """What a change of a file shows in: its size and the time of its last change."""
    found = path.stat()
    return [found.st_size, found.st_mtime_ns]


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError:
        raise UsageError(f"{path} is damaged.", FRESH) from None
    return found
