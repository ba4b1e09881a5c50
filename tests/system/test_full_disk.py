"""A disk that is full ends a run with a sentence; what was finished stays, and the next run goes on there."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import run, workbench

pytestmark = pytest.mark.integration


@pytest.fixture
def small_disk(project: Path) -> Iterator[Path]:
    """The project with a real file system of 1.7 MB for its store; resizable by remounting."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    folder = project / ".workbench"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1700k", "workbench-test", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting is not allowed here")
    yield project
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_is_exit_6_and_the_next_run_goes_on(small_disk: Path) -> None:
    done = workbench(small_disk, "run", "recipes/digits.yaml", "--until", "evaluate/int8")
    assert done.returncode == 6, done.stderr
    assert "No space left on device" in done.stderr or "disk is full" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (small_disk / "recipes" / "digits.lock.yaml").exists()
    subprocess.run(["mount", "-o", "remount,size=1g", str(small_disk / ".workbench")], check=True)
    state = run(small_disk, "--until", "evaluate/int8")
    assert state.status == "done", state.error
    assert state.steps["model"].status == "reused"
