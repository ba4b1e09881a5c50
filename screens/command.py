"""What the app does, it does by a command of ``workbench`` in a process of its own: the one a user would type."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from textual.worker import NoActiveWorker, get_current_worker


@dataclass(frozen=True)
class Answer:
    """How a command ended: its exit code, what it printed, and what it had to say (a sentence and a cure)."""

    exit_code: int
    stdout: str
    stderr: str

    def json(self) -> Any:
        """What it printed, as JSON; None where it printed none."""
        try:
            return json.loads(self.stdout)
        except ValueError:
            return None


REFUSED = "This is a recording: nothing is carried out in it."

_RECORDED: dict[Path, Callable[[Command], Answer]] = {}
"""Folders that are recordings, and what answers there."""


def answer_from(project: Path, recorded: Callable[[Command], Answer]) -> None:
    """Has ``recorded`` answer every command that is said in ``project`` from now on: no process is started there."""
    _RECORDED[project] = recorded


def is_recording(project: Path) -> bool:
    """Whether the folder is a recording, in which nothing is done."""
    return project in _RECORDED


@dataclass(frozen=True)
class Command:
    """The words after ``workbench``, the project folder that they are said in, and what is given on stdin."""

    words: tuple[str, ...]
    project: Path
    given: bytes = b""

    def __str__(self) -> str:
        """The command as one would type it in the project."""
        return shlex.join(["workbench", *self.words])

    async def answer(self) -> Answer:
        """Runs the command to its end. Where the app ends first, so does the command; where who asked is being taken
        away meanwhile, it is cancelled as by that."""
        if (recorded := _RECORDED.get(self.project)) is not None:
            return recorded(self)
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            # -P: a file of the user's project must not stand in for a module of ours.
            "-P",
            "-m",
            "workbench",
            *self.words,
            cwd=self.project,
            stdin=asyncio.subprocess.PIPE if self.given else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            out, err = await process.communicate(self.given or None)
        except asyncio.CancelledError:
            await end(process)
            raise
        if _is_taken_away():
            raise asyncio.CancelledError
        return Answer(process.returncode or 0, out.decode(errors="replace"), err.decode(errors="replace"))


def _is_taken_away() -> bool:
    """Whether the widget whose worker this is is being removed. Textual removes what is in it first and cancels its
    workers last: one that goes on in between finds nothing of what it shows the answer in."""
    try:
        node = get_current_worker().node
    except NoActiveWorker:
        return False
    return node._pruning  # Textual tells of it in no other way


async def end(process: asyncio.subprocess.Process) -> None:
    """Ends the process and waits for it, however often that is to be cut short: first the screen goes, then the app."""
    with contextlib.suppress(ProcessLookupError):  # it has just ended
        process.kill()
    while process.returncode is None:
        with contextlib.suppress(asyncio.CancelledError):
            await process.wait()
