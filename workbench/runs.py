"""Run folders: starting a run, finding runs, reading them, watching and cancelling them.

::

    .workbench/runs/<id>/request.json     what was asked for
                        /lock             held by the run process as long as it lives
                        /events.jsonl     what happened (workbench.events)
                        /samples.jsonl    sensor samples and latency histograms, 4 Hz
                        /logs/<step>.txt  raw output of the steps; run.txt is the run process's own
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from workbench.errors import UsageError
from workbench.events import AnyEvent, EventReader, RunState, reduce
from workbench.process import fork_session, is_single_threaded
from workbench.store import is_held, unwritable

POLL_SECONDS = 0.02
FIRST_POLL_SECONDS = 0.002

_STARTED: list[subprocess.Popen[bytes]] = []
"""Runs that this process started as new interpreters: kept, so that each can be reaped when it ends."""


@dataclass(frozen=True)
class Request:
    """What a run is asked to do. ``command`` is the shell command that asks for the same."""

    project: str
    recipe: str
    command: list[str]
    mode: str = "run"
    overrides: list[str] = field(default_factory=list)
    until: str = ""
    fresh: bool = False
    update: list[str] = field(default_factory=list)
    commit: bool = True
    level: str = "exact"
    cached: bool = False


def runs_folder(project: Path) -> Path:
    return project / ".workbench" / "runs"


def project_of_run(run: Path) -> Path:
    """The project that a run folder belongs to."""
    return run.parents[2]


def start(request: Request) -> Path:
    """Starts a run in a session of its own; its run folder. It goes on when the caller ends."""
    # To the millisecond: runs are found in the order of their names, and one with nothing changed takes 0.3 s.
    now = datetime.datetime.now(datetime.UTC).strftime("%Y%m%d-%H%M%S.%f")[:-3]
    run = runs_folder(Path(request.project)) / f"{now}-{Path(request.recipe).stem}-{secrets.token_hex(2)}"
    try:
        (run / "logs").mkdir(parents=True)
        ignore = runs_folder(Path(request.project)).parent / ".gitignore"
        if not ignore.exists():
            ignore.write_text("*\n")
        with (run / "lock").open("ab") as lock, (run / "logs" / "run.txt").open("ab") as log:
            # Locked before the request makes a run of the folder, and then the child's: it never reads as died.
            fcntl.flock(lock.fileno(), fcntl.LOCK_EX)
            (run / "request.json").write_text(json.dumps(asdict(request), indent=2))
            pid = _launch(run, Path(request.project), lock.fileno(), log.fileno())
        (run / "pid").write_text(str(pid))
    except OSError as error:
        raise unwritable(run, error) from error
    return run


def _launch(run: Path, project: Path, lock: int, log: int) -> int:
    """Starts the run process; its id. A fork has loaded already, and read already, what the run needs: it begins 0.2 s
    earlier. Only the one thread of a process can be forked, so from others it is a new interpreter."""
    if is_single_threaded():
        return fork_session(lambda: _carry_out(run), project, log, lock)
    process = subprocess.Popen(
        # -P: a file of the user's project must not stand in for a module of ours.
        [sys.executable, "-P", "-m", "workbench.run", str(run), str(lock)],
        cwd=project,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        pass_fds=[lock],
        start_new_session=True,
    )
    _STARTED.append(process)
    return process.pid


def _carry_out(run: Path) -> int:
    from workbench.run import main

    return main(run)


def load_request(run: Path) -> Request:
    """The request of a run folder."""
    return Request(**json.loads((run / "request.json").read_text()))


def is_alive(run: Path) -> bool:
    """Whether the run process of a run folder lives."""
    return is_held(run / "lock")


def state_of(run: Path) -> RunState:
    """Where the run of a run folder stands; one whose process is gone without a last word has ``died``."""
    alive = is_alive(run)
    state = RunState(run=run.name)
    for event in EventReader(run / "events.jsonl").new():
        state = reduce(state, event)
    return marked(state, alive)


def marked(state: RunState, alive: bool) -> RunState:
    """``state``, ``died`` where it is said to run and its process is not ``alive``."""
    if state.status == "running" and not alive:
        return msgspec.structs.replace(state, status="died")
    return state


def all_runs(project: Path) -> list[Path]:
    """The run folders of a project, newest first."""
    folder = runs_folder(project)
    return (
        sorted((p for p in folder.iterdir() if (p / "request.json").exists()), reverse=True) if folder.is_dir() else []
    )


def find(project: Path, name: str | None) -> Path:
    """The run folder called ``name`` (or beginning so), the newest without a name. Raises UsageError."""
    runs = all_runs(project)
    if name is None and runs:
        return runs[0]
    matches = [run for run in runs if name and run.name.startswith(name)]
    if len(matches) == 1:
        return matches[0]
    what = f"{len(matches)} runs begin with {name}" if matches else f"There is no run {name or ''}".rstrip()
    raise UsageError(f"{what} in {project}.", "See: workbench runs")


def follow(run: Path, wait: Callable[[float], None] = time.sleep) -> Iterator[tuple[RunState, AnyEvent | None]]:
    """The states of a run as its events come, each with its event, until the run has ended or its process is gone."""
    reader = EventReader(run / "events.jsonl")
    state = RunState(run=run.name)
    pause = FIRST_POLL_SECONDS
    while True:
        alive = is_alive(run)
        for event in reader.new():
            pause = FIRST_POLL_SECONDS  # one seldom comes alone
            state = reduce(state, event)
            yield state, event
        if state.status != "running":
            while is_alive(run):  # its last word is said; when this returns it is gone, too
                wait(POLL_SECONDS / 10)
            return
        if not alive:
            yield marked(state, alive), None
            return
        wait(pause)
        pause = min(pause * 1.5, POLL_SECONDS)


def cancel(run: Path) -> bool:
    """Asks a run to stop: it ends its step, its children and its temporary things. False where it is not running."""
    pid_file = run / "pid"
    if not is_alive(run) or not pid_file.exists():
        return False
    with contextlib.suppress(ProcessLookupError):
        os.kill(int(pid_file.read_text()), signal.SIGTERM)
    return True


def last_ingredients(project: Path, recipe: str, before: str = "") -> dict[str, dict[str, str]]:
    """The ingredients of each step when a run of ``recipe`` last had its result, to say what changed since."""
    found: dict[str, dict[str, str]] = {}
    for run in all_runs(project)[:20]:
        if run.name == before or load_request(run).recipe != recipe:
            continue
        for step in state_of(run).steps.values():
            if step.status in ("done", "reused") and step.ingredients:
                found.setdefault(step.id, dict(step.ingredients))
    return found


def exit_code_of(state: RunState) -> int:
    """The exit code a watcher of the run ends with; a run that died is an unexpected error."""
    return state.exit_code if state.exit_code is not None else 1


def command_line(words: Sequence[str]) -> str:
    """``words`` as one would type them."""
    import shlex

    return shlex.join(words)


def summary(run: Path) -> dict[str, Any]:
    """A run in a line: for ``workbench runs`` and ``status``."""
    state = state_of(run)
    done = sum(step.status in ("done", "reused") for step in state.steps.values())
    now = next((step.id for step in state.steps.values() if step.status == "running"), "")
    return {
        "run": run.name,
        "recipe": state.recipe or load_request(run).recipe,
        "mode": state.mode,
        "status": state.status,
        "exit_code": state.exit_code,
        "started": state.started,
        "seconds": round((state.ended or time.time()) - state.started, 3) if state.started else None,
        "steps": len(state.steps),
        "finished": done,
        "now": now,
    }
