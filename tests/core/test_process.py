"""A forked run: a session of its own, nothing of its parent's but what it is to keep."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import os, signal, sys, threading
from pathlib import Path
from workbench.process import fork_session, is_single_threaded

folder, other = Path(sys.argv[1]), os.open(os.devnull, os.O_RDONLY)
kept = os.open(folder / "kept", os.O_WRONLY | os.O_CREAT)
log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT)
signal.signal(signal.SIGTERM, lambda *_: print("never"))
print("before")

def work():
    %s

assert is_single_threaded()
pid = fork_session(work, folder, log, kept)
_, status = os.waitpid(pid, 0)
print("after", os.waitstatus_to_exitcode(status))
"""


def carried_out(tmp_path: Path, work: str) -> str:
    """What the parent says, when ``work`` is done in a fork of it."""
    command = [sys.executable, "-c", PROGRAM % work, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout


def test_it_has_a_session_a_folder_and_descriptors_of_its_own(tmp_path: Path) -> None:
    see = (
        "kept_open = [fd for fd in (other, kept, log) if Path(f'/proc/self/fd/{fd}').exists()] == [kept]; "
        "own = os.getsid(0) == os.getpid() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL; "
        "print(own, os.getcwd(), sys.stdin.read() == '', kept_open); return 7"
    )
    assert carried_out(tmp_path, see) == "before\nafter 7\n"
    assert (tmp_path / "log").read_text() == f"True {tmp_path} True True\n"


@pytest.mark.parametrize("work", ["raise ValueError('broken')", "sys.exit('broken')", "raise KeyboardInterrupt"])
def test_however_it_ends_it_never_does_what_its_parent_has_still_to_do(tmp_path: Path, work: str) -> None:
    assert carried_out(tmp_path, work) == "before\nafter 1\n"
    assert "Traceback" in (tmp_path / "log").read_text()


def test_a_process_with_threads_is_not_forked() -> None:
    program = """
import threading
from workbench.process import is_single_threaded
end = threading.Event()
thread = threading.Thread(target=end.wait)
thread.start()
assert not is_single_threaded()
end.set()
thread.join()
"""
    subprocess.run([sys.executable, "-c", program], check=True)
