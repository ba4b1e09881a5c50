"""Ties between processes: nothing we start outlives us."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterable
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


def is_single_threaded() -> bool:
    """Whether this process has but one thread, as the kernel counts them; False where that cannot be seen."""
    try:
        return len(list(Path("/proc/self/task").iterdir())) == 1
    except OSError:
        return False


def fork_session(work: Callable[[], int], folder: Path, log: int, keep: int) -> int:
    """Forks a process that does ``work`` in a session of its own and exits with what that returns; its id.

    Its folder is ``folder``, its input empty, its output goes to the descriptor ``log``; of the other descriptors it
    has only ``keep``, and none of this process's signal handlers. This process must have no other thread.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        os.setsid()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        os.chdir(folder)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        for descriptor in {int(entry.name) for entry in Path("/proc/self/fd").iterdir()} - {0, 1, 2, keep}:
            with contextlib.suppress(OSError):
                os.close(descriptor)
        code = work()
    except BaseException:
        traceback.print_exc()
    finally:
        # Not sys.exit: what the other process has still to do at its end is not ours to do.
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


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
