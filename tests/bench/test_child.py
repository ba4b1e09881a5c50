"""Measuring processes are fresh, watched, and end with what started them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from workbench.bench import child
from workbench.bench.recorder import Recorder
from workbench.errors import StepFailed, UsageError


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    made = Recorder.create(4)
    yield made
    made.close()


@pytest.fixture(autouse=True)
def _findable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))


def test_latencies_come_through_shared_memory(recorder: Recorder) -> None:
    assert child.run("misbehaving", {"how": "record", "latencies": [3, 2**40]}, recorder, 60) == {"done": True}
    assert recorder.values().tolist() == [3, 2**40]
    assert recorder.values(1).tolist() == [2**40]
    recorder.clear()
    assert recorder.values().tolist() == []


def test_queries_that_were_begun_and_not_answered_wait(recorder: Recorder) -> None:
    assert recorder.waiting is None
    for _ in range(3):
        recorder.begin()
    recorder.record(5)
    assert recorder.waiting == 2
    recorder.clear()
    assert recorder.waiting is None


def test_what_does_not_fit_is_left_out(recorder: Recorder) -> None:
    child.run("misbehaving", {"how": "record", "latencies": list(range(1, 8))}, recorder, 60)
    assert recorder.values().tolist() == [1, 2, 3, 4]


def test_a_childs_error_is_raised_here(recorder: Recorder) -> None:
    with pytest.raises(UsageError, match="the file is empty") as caught:
        child.run("misbehaving", {"how": "refuse"}, recorder, 60)
    assert caught.value.cure == "Fill it."
    with pytest.raises(StepFailed, match="ZeroDivisionError: by nothing"):
        child.run("misbehaving", {"how": "break"}, recorder, 60)


def test_a_killed_child_is_said_to_be(recorder: Recorder) -> None:
    with pytest.raises(StepFailed, match="memory runs out"):
        child.run("misbehaving", {"how": "die"}, recorder, 60)
    with pytest.raises(StepFailed, match="exit status 1"):
        child.run("no_such_module_here", {}, recorder, 60)


def test_a_child_that_goes_on_answers_each_time_and_is_gone_after_the_block(recorder: Recorder) -> None:
    with child.Child("misbehaving", recorder) as process:
        process.tell({"how": "count"})
        assert process.hear(60) == {"count": 0}
        for count in (1, 2):
            process.tell({})
            assert process.hear(60) == {"count": count}
        pid = process._process.pid
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_hanging_child_is_ended(recorder: Recorder) -> None:
    ticks: list[int] = []
    with pytest.raises(StepFailed, match="did not end within 1 s"):
        child.run("misbehaving", {"how": "hang"}, recorder, 1, lambda: ticks.append(1))
    assert ticks


def test_a_lost_completion_is_ended_though_loadgen_would_wait_for_ever(recorder: Recorder, tmp_path: Path) -> None:
    with pytest.raises(StepFailed, match="an answer was lost"):
        child.run("misbehaving", {"how": "lose", "logs": str(tmp_path)}, recorder, 3)
