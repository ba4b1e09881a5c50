"""What happens in a run, as events, and the one pure reducer that every face reads a run through.

A run folder's ``events.jsonl`` holds one JSON object a line, in the order of ``seq``, written by the run process only.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from workbench.store import unwritable

Status = Literal["running", "done", "failed", "cancelled", "died"]
StepStatus = Literal["waiting", "running", "done", "reused", "failed", "cancelled", "skipped"]


class Event(msgspec.Struct, frozen=True, kw_only=True, tag_field="event"):
    """Something that happened: ``seq`` counts from 0 without gaps, ``time`` is seconds since the epoch (UTC)."""

    seq: int = 0
    time: float = 0.0


class RunStarted(Event, frozen=True, kw_only=True, tag="run-started"):
    """A run process is at work. ``command`` is the exact command that does the same from a shell."""

    run: str
    recipe: str
    name: str
    mode: Literal["run", "replay"]
    command: list[str]
    pid: int
    machine: dict[str, Any]
    workbench: str


class Planned(Event, frozen=True, kw_only=True, tag="planned"):
    """The steps that this run goes through, in order, as ``[id, kind]``."""

    steps: list[tuple[str, str]]


class StepStarted(Event, frozen=True, kw_only=True, tag="step-started"):
    """A step runs: its key, and the ingredients that the key was made of."""

    step: str
    key: str
    ingredients: dict[str, str]


class StepProgress(Event, frozen=True, kw_only=True, tag="step-progress"):
    """How far a step is, in units of its own."""

    step: str
    done: float
    total: float
    text: str = ""


class StepNote(Event, frozen=True, kw_only=True, tag="step-note"):
    """A sentence a step has for the user."""

    step: str
    text: str


class StepFinished(Event, frozen=True, kw_only=True, tag="step-finished"):
    """A step has its result: ``files`` by name as ``{digest, size}``, ``values`` as plain JSON.

    ``reused`` says that the result came from the store.
    """

    step: str
    key: str
    reused: bool
    files: dict[str, dict[str, Any]]
    values: dict[str, Any]
    ingredients: dict[str, str]
    seconds: float = 0.0


class StepFailed(Event, frozen=True, kw_only=True, tag="step-failed"):
    """A step could not do its work; ``error`` is the record of a WorkbenchError."""

    step: str
    error: dict[str, Any]


class Note(Event, frozen=True, kw_only=True, tag="note"):
    """A sentence about the run as a whole."""

    text: str


class LockWritten(Event, frozen=True, kw_only=True, tag="lock-written"):
    """The lock was written; ``commit`` is the commit that holds it, where there is one."""

    path: str
    changes: list[str]
    commit: str = ""


class Verdict(Event, frozen=True, kw_only=True, tag="verdict"):
    """What a replay found.

    ``same`` names the artifacts that were reproduced, ``compared`` the figures that the lock has for such a machine.
    """

    level: str
    reproduced: int
    reused: int
    differences: list[dict[str, Any]]
    worse: list[dict[str, Any]]
    cause: str = ""
    remarks: list[str] = []
    same: list[str] = []
    compared: list[str] = []


class RunFinished(Event, frozen=True, kw_only=True, tag="run-finished"):
    """The end of a run, with the exit code of the command that watches it."""

    status: Literal["done", "failed", "cancelled"]
    exit_code: int
    error: dict[str, Any] | None = None


AnyEvent = (
    RunStarted
    | Planned
    | StepStarted
    | StepProgress
    | StepNote
    | StepFinished
    | StepFailed
    | Note
    | LockWritten
    | Verdict
    | RunFinished
)

decode = msgspec.json.Decoder(AnyEvent).decode
"""The event on a line of ``events.jsonl``. Raises msgspec.MsgspecError where it is none."""

_encoder = msgspec.json.Encoder()


class StepState(msgspec.Struct, frozen=True):
    """A step as a face shows it."""

    id: str
    kind: str
    status: StepStatus = "waiting"
    key: str = ""
    started: float = 0.0
    seconds: float = 0.0
    done: float = 0.0
    total: float = 0.0
    text: str = ""
    notes: tuple[str, ...] = ()
    files: Mapping[str, dict[str, Any]] = {}
    values: Mapping[str, Any] = {}
    ingredients: Mapping[str, str] = {}
    error: dict[str, Any] | None = None


class RunState(msgspec.Struct, frozen=True):
    """A run as a face shows it: what all events up to ``seq`` come to."""

    run: str = ""
    recipe: str = ""
    name: str = ""
    mode: str = "run"
    command: tuple[str, ...] = ()
    pid: int = 0
    machine: Mapping[str, Any] = {}
    status: Status = "running"
    started: float = 0.0
    ended: float = 0.0
    steps: Mapping[str, StepState] = {}
    notes: tuple[str, ...] = ()
    lock: LockWritten | None = None
    verdict: Verdict | None = None
    exit_code: int | None = None
    error: dict[str, Any] | None = None
    seq: int = -1


def reduce(state: RunState, event: AnyEvent) -> RunState:
    """The state of a run after ``event``. Pure; never changes ``state``."""
    state = msgspec.structs.replace(state, seq=event.seq)
    change = msgspec.structs.replace
    match event:
        case RunStarted():
            return change(
                state,
                run=event.run,
                recipe=event.recipe,
                name=event.name,
                mode=event.mode,
                command=tuple(event.command),
                pid=event.pid,
                machine=event.machine,
                started=event.time,
            )
        case Planned():
            return change(state, steps={name: StepState(name, kind) for name, kind in event.steps})
        case Note():
            return change(state, notes=(*state.notes, event.text))
        case LockWritten():
            return change(state, lock=event)
        case Verdict():
            return change(state, verdict=event)
        case RunFinished():
            return change(
                state,
                status=event.status,
                exit_code=event.exit_code,
                error=event.error,
                ended=event.time,
                steps={name: _ended(step, event.status) for name, step in state.steps.items()},
            )
    step = state.steps.get(event.step, StepState(event.step, ""))
    return change(state, steps={**state.steps, event.step: _reduce_step(step, event)})


def _reduce_step(
    step: StepState, event: StepStarted | StepProgress | StepNote | StepFinished | StepFailed
) -> StepState:
    change = msgspec.structs.replace
    match event:
        case StepStarted():
            return change(step, status="running", key=event.key, started=event.time, ingredients=event.ingredients)
        case StepProgress():
            return change(step, done=event.done, total=event.total, text=event.text)
        case StepNote():
            return change(step, notes=(*step.notes, event.text))
        case StepFinished():
            return change(
                step,
                status="reused" if event.reused else "done",
                key=event.key,
                seconds=event.seconds,
                files=event.files,
                values=event.values,
                ingredients=event.ingredients,
            )
        case StepFailed():
            seconds = event.time - step.started if step.started else 0.0  # what the machine lacks is said before
            return change(step, status="failed", error=event.error, seconds=seconds)


def _ended(step: StepState, status: str) -> StepState:
    """A step whose run has ended: what was waiting is skipped, what was running was cancelled."""
    after: dict[str, StepStatus] = {"waiting": "skipped", "running": "cancelled" if status == "cancelled" else "failed"}
    return msgspec.structs.replace(step, status=after.get(step.status, step.status))


class EventLog:
    """The one writer of a run's ``events.jsonl``: numbers and dates each event and hands it to the system at once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("ab", buffering=0)
        self._seq = 0

    def write(self, event: AnyEvent) -> None:
        """Appends ``event`` as one line, whole or not at all: no later line ever follows half of one.

        Raises MachineLacks where the disk is full.
        """
        stamped = msgspec.structs.replace(event, seq=self._seq, time=round(time.time(), 6))
        line = _encoder.encode(stamped) + b"\n"
        end = os.fstat(self._file.fileno()).st_size
        try:
            if self._file.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            self._file.truncate(end)
            raise unwritable(self._path, error) from error
        self._seq += 1

    def close(self) -> None:
        self._file.close()


class EventReader:
    """Reads the events of a run as they come."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def new(self) -> Iterator[AnyEvent]:
        """The events written since the last call. A last line without its end is left for the next one."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                for line in file:
                    if not line.endswith(b"\n"):
                        return
                    self._offset += len(line)
                    yield decode(line)
        except FileNotFoundError:
            return


def replay_state(events: Iterable[AnyEvent], state: RunState | None = None) -> RunState:
    """What ``events`` come to, from ``state`` on."""
    state = state or RunState()
    for event in events:
        state = reduce(state, event)
    return state
