"""A run killed at any moment goes on after its last finished step: the same artifacts, nothing torn or stray."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from ruamel.yaml import YAML
from support import git

from workbench import events, runs
from workbench.store import Store, digest_of

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1200)]

MORE = """\
image: {base: {debian: bookworm}}
benchmark: {alone: {scenario: single-stream, duration: 1s}}
push: {to: "oci:.workbench/registry"}
"""


@pytest.fixture
def whole_project(project: Path) -> Path:
    """The project with a recipe that goes the whole way."""
    path = project / "recipes" / "digits.yaml"
    path.write_text(path.read_text() + MORE)
    git(project, "commit", "--quiet", "--all", "--message", "the whole way")
    return project


def start(project: Path) -> Path:
    words = [sys.executable, "-m", "workbench", "run", "recipes/digits.yaml", "--detach"]
    done = subprocess.run(words, cwd=project, capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL)
    return runs.runs_folder(project) / done.stdout.strip()


def kill(folder: Path) -> None:
    """SIGKILL to the whole group of a run; what it started must be gone soon after."""
    session = int((folder / "pid").read_text())
    ours = [process for process in psutil.process_iter() if _session(process) == session]
    with contextlib.suppress(ProcessLookupError):
        os.killpg(session, signal.SIGKILL)
    _, alive = psutil.wait_procs(ours, timeout=30)
    assert [process for process in alive if process.status() != psutil.STATUS_ZOMBIE] == []


def _session(process: psutil.Process) -> int:
    try:
        return os.getsid(process.pid)
    except ProcessLookupError:
        return -1


def finish(project: Path) -> dict[str, Any]:
    """Runs to the end; the artifacts of the lock."""
    folder = start(project)
    *_, (state, _) = runs.follow(folder)
    assert state.status == "done", state.error
    return locked(project)


def locked(project: Path) -> dict[str, Any]:
    data = YAML(typ="safe").load((project / "recipes" / "digits.lock.yaml").read_text())
    found: dict[str, Any] = data["artifacts"]
    return found


def assert_nothing_torn(project: Path) -> None:
    """Every object has the content that its name says; no scratch is left."""
    store = Store(project / ".workbench")
    for path in store.objects.glob("*/*"):
        if not path.name.startswith("."):
            assert digest_of(path) == f"sha256:{path.name}"
    assert list(store.tmp.iterdir()) == []
    assert git(project, "fsck", "--strict", "--no-dangling") == ""


@pytest.fixture
def reference(whole_project: Path, tmp_path: Path) -> dict[str, Any]:
    """The artifacts of an undisturbed run elsewhere."""
    elsewhere = tmp_path / "elsewhere"
    git(tmp_path, "clone", "--quiet", str(whole_project), str(elsewhere))
    return finish(elsewhere)


def boundaries(project: Path) -> Iterator[int]:
    """Kills a run after its first, second, third ... event, each time going on, until one ends before that."""
    for boundary in range(1, 1000):
        folder = start(project)
        if not any(count == boundary for count in _boundaries_passed(folder)):
            return
        kill(folder)
        yield boundary


def _boundaries_passed(folder: Path) -> Iterator[int]:
    """Counts the events of a run as they come; a row of progress reports of one step is one."""
    count, before = 0, ""
    for state, event in runs.follow(folder):
        now = event.step if isinstance(event, events.StepProgress) else ""
        if event is not None and state.status == "running" and not (now and now == before):
            count += 1
            yield count
        before = now


def test_killed_at_every_event_it_still_makes_the_same_artifacts(
    whole_project: Path, reference: dict[str, Any]
) -> None:
    assert len(list(boundaries(whole_project))) > 20
    assert finish(whole_project) == reference
    assert_nothing_torn(whole_project)


def test_killed_at_fifty_random_moments_it_still_makes_the_same_artifacts(
    whole_project: Path, reference: dict[str, Any]
) -> None:
    seed = int(os.environ.get("WORKBENCH_TEST_SEED", random.SystemRandom().randrange(2**32)))
    print(f"WORKBENCH_TEST_SEED={seed}")
    choose = random.Random(seed)
    for _ in range(50):
        folder = start(whole_project)
        process = psutil.Process(int((folder / "pid").read_text()))
        with contextlib.suppress(psutil.TimeoutExpired):
            process.wait(timeout=choose.uniform(0, 4))
        kill(folder)
    assert finish(whole_project) == reference
    assert_nothing_torn(whole_project)
