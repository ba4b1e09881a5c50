from __future__ import annotations

import io
import re

import example_run
from rich.console import Console

from screens import live, progress
from screens.live import Display, Pacer, frame
from workbench import events

NOW = 1_700_000_100.0


def lines_of(state: events.RunState, width: int = 80, height: int = 24) -> list[str]:
    file = io.StringIO()
    Console(file=file, width=width, highlight=False).print(frame(state, NOW, height))
    return [line.rstrip() for line in file.getvalue().splitlines()]


def at(step: str, *more: events.AnyEvent) -> events.RunState:
    """The run while ``step`` is at work."""
    found = example_run.started()
    for name in example_run.VALUES:
        if name == step:
            break
        found += example_run.step(name, reused=name == "data")
    state = example_run.state(example_run.stamped([*found, events.StepStarted(step=step, key="", ingredients={})]))
    for event in more:
        state = events.reduce(state, event)
    return state


def test_each_step_shows_its_state_as_a_word_its_time_and_its_progress() -> None:
    working = events.StepProgress(step="latency/int8", done=9, total=20, text="timing variant int8")
    found = lines_of(at("latency/int8", working), height=60)

    assert found[0] == "digits: run running, 8 of 21 steps, 1 min 40 s"
    assert re.fullmatch(r"  ✓ done +model +1.2 s", found[1])
    assert re.fullmatch(r"  ↻ reused +data", found[2])
    assert re.fullmatch(r"  ● running +latency/int8 +\d.* s +45% timing variant int8", found[9])
    assert re.fullmatch(r"  · waiting +push", found[-1])


def test_a_failed_step_shows_that_it_failed_and_leaves_why_to_the_report() -> None:
    failed = example_run.state(example_run.failed_events("parity", "The image is not there.\nReally."))
    found = lines_of(failed, height=60)
    line = next(line for line in found if "parity" in line)
    assert re.fullmatch(r"  ✗ failed +parity +1.0 s", line)
    assert re.fullmatch(r"  - skipped +push", found[-1])


def test_the_display_fits_the_terminal_around_the_step_at_work() -> None:
    state = at("parity", events.StepProgress(step="parity", done=1, total=0, text="a long text " * 20))
    for height in (10, 14, 24):
        found = lines_of(state, width=80, height=height)
        assert len(found) <= height
        assert max(map(len, found)) <= 80
        assert any("● running" in line for line in found)
    small = lines_of(state, height=10)
    assert re.fullmatch(r"  … \d+ steps before", small[1])
    assert re.fullmatch(r"  … \d+ steps after", small[-1])


def test_all_steps_stay_standing_when_it_is_over() -> None:
    file = io.StringIO()
    console = Console(file=file, width=80, height=12, force_terminal=True, color_system=None)
    state = events.RunState()
    with Display(console) as display:
        for event in example_run.run_events():
            state = events.reduce(state, event)
            display.see(state, event)
    last = file.getvalue().rsplit("digits: run done", 1)[1]
    assert all(name in last for name in example_run.VALUES)
    assert file.getvalue().count("note    parity: The image took requests") == 1


def test_a_burst_of_events_paints_no_more_than_ten_times_a_second() -> None:
    now = 0.0
    pacer = Pacer(lambda: now)
    painted = 0
    for millisecond in range(1_000):
        now = millisecond / 1_000
        painted += pacer.due(changed=True)
    assert painted == 10


def test_without_events_only_the_clocks_are_painted() -> None:
    now = 0.0
    pacer = Pacer(lambda: now)
    painted = 0
    for tick in range(500):
        now = tick / 50
        painted += pacer.due(changed=False)
    assert painted == 10 == int(10 / live.TICK_SECONDS)


def test_text_of_steps_cannot_steer_the_terminal() -> None:
    note = events.StepNote(step="model\x1b[2J", text="a\x1b]0;title\x07\nb")
    assert list(progress.quiet(note)) == ["note    model\\x1b[2J: a\\x1b]0;title\\x07 b"]
    state = at("model", events.StepProgress(step="model", done=1, total=2, text="\x1b[31mred"))
    assert "\x1b" not in "".join(lines_of(state))
