"""Events: one line each, read as they come, and one pure reducer that says where a run stands."""

from __future__ import annotations

from pathlib import Path

from workbench import events
from workbench.events import EventLog, EventReader, RunState, reduce, replay_state


def started() -> events.RunStarted:
    return events.RunStarted(
        run="r", recipe="recipes/d.yaml", name="d", mode="run", command=["workbench"], pid=1, machine={}, workbench="0"
    )


def story() -> list[events.AnyEvent]:
    return [
        started(),
        events.Planned(steps=[("model", "model"), ("int8/quantize", "quantize"), ("push", "push")]),
        events.StepFinished(step="model", key="k", reused=True, files={}, values={"size": 1}, ingredients={}),
        events.StepStarted(step="int8/quantize", key="q", ingredients={"tool onnx": "1"}),
        events.StepProgress(step="int8/quantize", done=1, total=2, text="calibrating"),
        events.StepNote(step="int8/quantize", text="a note"),
    ]


def test_the_state_says_what_happened_so_far() -> None:
    state = replay_state(story())
    assert [step.status for step in state.steps.values()] == ["reused", "running", "waiting"]
    step = state.steps["int8/quantize"]
    assert (step.done, step.total, step.text, step.notes) == (1, 2, "calibrating", ("a note",))
    assert state.status == "running"


def test_the_end_of_a_run_ends_its_steps() -> None:
    cancelled = replay_state([*story(), events.RunFinished(status="cancelled", exit_code=130)])
    assert [step.status for step in cancelled.steps.values()] == ["reused", "cancelled", "skipped"]
    assert cancelled.exit_code == 130


def test_a_step_that_failed_before_it_began_took_no_time() -> None:
    state = replay_state([*story(), events.StepFailed(step="push", error={}, time=1.8e9)])
    assert (state.steps["push"].status, state.steps["push"].seconds) == ("failed", 0.0)


def test_reducing_never_changes_the_state_it_is_given() -> None:
    state = replay_state(story())
    before = repr(state)
    reduce(state, events.StepFailed(step="push", error={}))
    assert repr(state) == before


def test_what_is_written_is_read_as_it_comes_and_numbered(tmp_path: Path) -> None:
    log, reader = EventLog(tmp_path / "events.jsonl"), EventReader(tmp_path / "events.jsonl")
    log.write(started())
    first = list(reader.new())
    assert [event.seq for event in first] == [0]
    assert first[0].time > 0
    for event in story()[1:]:
        log.write(event)
    assert [event.seq for event in reader.new()] == [1, 2, 3, 4, 5]
    assert list(reader.new()) == []
    log.close()


def test_half_a_line_waits_for_its_end(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    log = EventLog(path)
    log.write(started())
    log.close()
    whole = path.read_bytes()
    path.write_bytes(whole[:30])
    reader = EventReader(path)
    assert list(reader.new()) == []
    path.write_bytes(whole)
    assert len(list(reader.new())) == 1


def test_a_run_folder_without_events_is_an_empty_state(tmp_path: Path) -> None:
    assert replay_state(EventReader(tmp_path / "events.jsonl").new()) == RunState()
