"""Ties between processes: nothing we start outlives us."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
from collections.abc import Iterable
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_libc = ctypes.CDLL(None, use_errno=True)


def die_with_parent() -> None:
    """Has the kernel kill this process when the one that started it is gone (prctl(2), PR_SET_PDEATHSIG)."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def adopt_orphans() -> None:
    """Makes this process the parent of descendants whose own parent ends (PR_SET_CHILD_SUBREAPER), so none is lost."""
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def children_of(pid: int) -> list[int]:
    """The ids of the direct children of ``pid``."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):
                found.extend(map(int, (task / "children").read_text().split()))
    return found


def descendants(pid: int) -> list[int]:
    """The ids of all processes below ``pid``, nearest first."""
    found: list[int] = []
    waiting = children_of(pid)
    while waiting:
        found.extend(waiting)
        waiting = [child for parent in waiting for child in children_of(parent)]
    return found


def kill_all(pids: Iterable[int]) -> None:
    """Kills the processes; one that is gone already is none."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def kill_descendants() -> None:
    """Kills everything this process started, and waits until it is gone. Needs :func:`adopt_orphans`."""
    while below := descendants(os.getpid()):
        kill_all(below)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(-1, 0)
