"""A run that is over by time: at every moment as it stood then, however one goes about in it."""

from __future__ import annotations

import random
from collections.abc import Iterable
from pathlib import Path

import msgspec
import pytest

from workbench import events, timeline
from workbench.errors import UsageError
from workbench.events import AnyEvent, replay_state
from workbench.timeline import Timeline


def story(count: int) -> list[AnyEvent]:
    """A run of ``count`` events of progress, one a second, in two steps; its clock is set back once."""
    start = events.RunStarted(
        run="r", recipe="recipes/d.yaml", name="d", mode="run", command=[], pid=1, machine={}, workbench="0"
    )
    found: list[AnyEvent] = [start, events.Planned(steps=[("model", "model"), ("push", "push")])]
    for step in ("model", "push"):
        found.append(events.StepStarted(step=step, key="k", ingredients={}))
        found += [events.StepProgress(step=step, done=n, total=count) for n in range(count // 2)]
        end = events.StepFinished(step=step, key="k", reused=False, files={}, values={}, ingredients={})
        found.append(end)
    found.append(events.RunFinished(status="done", exit_code=0))
    back = len(found) // 3
    return [
        msgspec.structs.replace(event, seq=n, time=1_000.0 + n - (5 if n == back else 0))
        for n, event in enumerate(found)
    ]


def written(path: Path, found: Iterable[AnyEvent]) -> Path:
    path.write_bytes(b"".join(msgspec.json.encode(event) + b"\n" for event in found))
    return path


def test_at_every_moment_the_run_stands_as_it_stood_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeline, "SPACING", 3)
    monkeypatch.setattr(timeline, "MOST_MARKS", 7)
    told = story(200)
    found = Timeline(written(tmp_path / "events.jsonl", told))
    pick = random.Random(1)
    moments = [pick.uniform(999.0, 1_000.0 + len(told)) for _ in range(200)] + [float(n) for n in range(1_000, 1_220)]

    for moment in moments:
        # A clock that was set back stood still: an event comes no earlier than those before it.
        until = sum(n + 1_000.0 <= moment for n in range(len(told)))
        back = len(told) // 3
        expected = replay_state(told[: until + (until == back)])
        assert found.state(moment) == expected, moment
    assert len(found._marks) <= 7
    assert found.state(found.end).status == "done"


def test_as_long_as_nothing_happens_the_state_is_the_same_object(tmp_path: Path) -> None:
    found = Timeline(written(tmp_path / "events.jsonl", story(20)))

    assert found.state(1_005.2) is found.state(1_005.9)


def test_a_timeline_knows_when_each_step_went_on(tmp_path: Path) -> None:
    found = Timeline(written(tmp_path / "events.jsonl", story(20)))

    assert found.steps == {"model": (1_002.0, 1_013.0), "push": (1_014.0, 1_025.0)}
    assert (found.begin, found.end) == (1_000.0, 1_026.0)


def notes(count: int) -> list[AnyEvent]:
    return [events.Note(text="x", time=1.0)] * count


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "nothing happened"),
        (b'{"event": "note", "text": "x", "time": 1}\n{"event": "no', "events cannot be read"),
        (b'{"event": "explosion"}\n', "events cannot be read"),
        (b"\xff\n", "events cannot be read"),
        (b"[" * 100_000, "events cannot be read"),
        (b'{"event": "note", "text": "x", "time": 1e300}\n', "times are none"),
        (b'{"event": "note", "text": "x", "time": 1}\n{"event": "note", "text": "x", "time": 3e9}\n', "times are none"),
        (b'{"event": "note", "text": "' + b"x" * (5 << 20) + b'"}\n', "more than 4194304 bytes"),
    ],
    ids=["nothing", "torn", "unknown", "no text", "nested", "far away", "for ever", "endless line"],
)
def test_events_that_no_run_leaves_are_told(tmp_path: Path, data: bytes, told: str) -> None:
    (tmp_path / "events.jsonl").write_bytes(data)

    with pytest.raises(UsageError, match=told):
        Timeline(tmp_path / "events.jsonl")


def test_a_run_of_more_steps_or_notes_than_runs_have_is_told(tmp_path: Path) -> None:
    """Each event copies them all: a file of a megabyte would keep the app busy for hours."""
    many = [events.Planned(steps=[(str(n), "model") for n in range(timeline.MOST_STEPS + 1)], time=1.0)]
    with pytest.raises(UsageError, match="more than 1000 steps"):
        Timeline(written(tmp_path / "steps.jsonl", many))
    with pytest.raises(UsageError, match="20000 notes"):
        Timeline(written(tmp_path / "notes.jsonl", notes(timeline.MOST_NOTES + 1)))
