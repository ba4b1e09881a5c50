"""A recording in the app: it goes on as the clock says, is marked as one, and starts nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from app_support import drive, quiet, until
from example_recording import RECIPE, Time, recording, sample
from example_run import run_events
from shots import shown
from textual.widgets import Static

from screens.code_area import CodeArea
from screens.command import REFUSED, Command
from screens.dialog import Dialog
from screens.log_panel import LogPanel
from screens.play import PlayApp, PlayScreen
from screens.play_source import Played
from screens.playback_bar import PlaybackBar, digits, track
from screens.recorded import RecordedAnswers
from screens.sample_track import SampleTrack
from screens.samples import SampleSource
from screens.stages.containerize import ContainerizeStage
from screens.table import Rows
from screens.views import Views
from workbench.events import replay_state


def played(
    tmp_path: Path,
    flow: Callable[[Any, PlayScreen, Time], Awaitable[None]],
    size: tuple[int, int] = (120, 40),
    **other: Any,
) -> None:
    """Runs ``flow`` in the app on the recording, once it shows the run."""
    time = Time()
    app = PlayApp(recording(tmp_path / "recording", **other), now=time)

    async def opened(pilot: Any) -> None:
        await until(pilot, lambda: isinstance(app.screen, PlayScreen) and app.screen.view is not None)
        await flow(pilot, app.screen, time)  # type: ignore[arg-type]

    drive(app, opened, size)


def position_of(name: str) -> float:
    """Seconds from the begin of the example run to the end of a step."""
    found = run_events()
    at = next(each for each in found if getattr(each, "files", None) is not None and each.step == name)  # type: ignore[union-attr]
    return at.time - found[0].time


def status(screen: PlayScreen, step: str) -> str:
    assert screen.view is not None
    found = screen.view.state.steps.get(step)
    return found.status if found is not None else "waiting"


def bar(screen: PlayScreen) -> str:
    return str(screen.query_one(PlaybackBar).render())


def test_a_recording_goes_on_as_the_clock_says(tmp_path: Path) -> None:
    async def flow(pilot: Any, screen: PlayScreen, time: Time) -> None:
        assert status(screen, "int8/quantize") == "waiting"
        time.now = position_of("int8/quantize") - 0.5
        await until(pilot, lambda: status(screen, "int8/quantize") == "running")
        time.now = position_of("int8/quantize")
        await until(pilot, lambda: status(screen, "int8/quantize") == "done")
        assert status(screen, "push") == "waiting"
        time.now = 1000.0
        await until(pilot, lambda: screen.view is not None and screen.view.state.status == "done")

    played(tmp_path, flow)


def test_keys_pause_seek_and_change_the_speed(tmp_path: Path) -> None:
    async def flow(pilot: Any, screen: PlayScreen, time: Time) -> None:
        clock = screen.clock
        await pilot.press("space")
        time.now += 10
        assert (clock.position, clock.playing) == (0.0, False)
        await pilot.press("right", "right", "shift+right", "left")
        assert clock.position == 35.0
        await until(pilot, lambda: screen.view is not None and screen.view.state == replay_state(run_events()[:36]))
        await pilot.press("shift+left")
        assert clock.position == 5.0
        await until(pilot, lambda: screen.view is not None and screen.view.state == replay_state(run_events()[:6]))
        await pilot.press("greater_than_sign", "greater_than_sign", "greater_than_sign", "less_than_sign", "space")
        time.now += 1
        assert (clock.position, clock.speed) == (9.0, 4.0)
        await pilot.press("end")
        await until(pilot, lambda: screen.view is not None and not screen.view.live)
        await pilot.press("home")
        await until(pilot, lambda: screen.view is not None and screen.view.live)
        assert clock.position == 0.0

    played(tmp_path, flow)


def test_the_bar_says_that_it_is_a_recording_of_what_when_and_where_and_how_it_stands(tmp_path: Path) -> None:
    async def flow(pilot: Any, screen: PlayScreen, time: Time) -> None:
        line, below = bar(screen).splitlines()
        assert "RECORDING  digits · 2023-11-14 on Example CPU @ 2.00GHz" in line
        assert line.endswith("▶ playing ×1")  # noqa: RUF001
        assert below.startswith("0:00 ●")
        assert below.endswith(" 1:00")
        for stage in "1234567":
            await pilot.press(stage)
            await pilot.pause()
            assert "RECORDING" in shown(pilot.app).splitlines()[0]
        await pilot.press("space", "right", "greater_than_sign")
        await until(pilot, lambda: "0:05" in shown(pilot.app) and "❚❚ paused ×2" in shown(pilot.app))  # noqa: RUF001
        await pilot.press("end")
        await until(pilot, lambda: "■ ended ×2" in shown(pilot.app))  # noqa: RUF001

    played(tmp_path, flow)


def test_a_click_on_the_track_goes_there(tmp_path: Path) -> None:
    async def flow(pilot: Any, screen: PlayScreen, time: Time) -> None:
        track = bar(screen).splitlines()[1]
        begin, width = len("0:00 "), len(track) - len("0:00 ") - len(" 1:00")
        await pilot.click(PlaybackBar, offset=(1 + begin + width // 2, 1))
        assert screen.clock.position == pytest.approx(30.0, abs=1.0)
        await pilot.click(PlaybackBar, offset=(1 + begin + width - 1, 1))
        assert screen.clock.position == pytest.approx(60.0, abs=0.01)
        await pilot.click(PlaybackBar, offset=(1 + begin, 1))
        assert screen.clock.position == 0.0
        await pilot.click(PlaybackBar, offset=(40, 0))
        assert screen.clock.position == 0.0

    played(tmp_path, flow)


def test_what_would_start_a_command_is_refused_and_starts_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def started(*_: Any, **__: Any) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr(asyncio, "create_subprocess_exec", started)

    async def flow(pilot: Any, screen: PlayScreen, time: Time) -> None:
        await pilot.press("space", "end")
        for key, command in (("r", "run"), ("p", "replay"), ("c", "cancel")):
            pilot.app.clear_notifications()
            await pilot.press(key)
            await until(pilot, lambda: bool(pilot.app._notifications))
            told = next(iter(pilot.app._notifications)).message
            assert told.startswith(f"{REFUSED}\n$ workbench {command} ")
        await pilot.press("2")
        await until(pilot, lambda: bool(screen.query("#variants")))
        await quiet(pilot)
        await pilot.press("down", "d")
        await until(pilot, lambda: isinstance(pilot.app.screen, Dialog))
        form = pilot.app.screen
        await until(pilot, lambda: REFUSED in str(form.query_one("#form-said", Static).content))
        await pilot.press("ctrl+s")
        await quiet(pilot)
        assert pilot.app.screen is form
        assert (tmp_path / "recording/opened/recipes/digits.yaml").read_text() == RECIPE

    played(tmp_path, flow)


def test_commands_answer_what_they_did_from_the_moment_on_that_it_was_so(tmp_path: Path) -> None:
    async def flow(pilot: Any, screen: PlayScreen, time: Time) -> None:
        await pilot.press("space", "3")
        await until(pilot, lambda: isinstance(screen.stage, ContainerizeStage))
        await quiet(pilot)
        await pilot.press("d")
        await quiet(pilot)
        assert "FROM scratch" in shown(pilot.app)
        await pilot.press("i")
        await quiet(pilot)
        assert "At this moment of the recording, step image has not ended yet." in shown(pilot.app)
        await pilot.press("end")
        await until(pilot, lambda: "Image sha256:abababab" in shown(pilot.app))
        await pilot.press("home")
        await until(pilot, lambda: "step image has not ended yet" in shown(pilot.app))
        await pilot.press("1")
        await quiet(pilot)
        assert "It does not have what this would say: workbench inspect" in shown(pilot.app)

    played(tmp_path, flow)


def test_the_log_of_a_step_is_shown_when_it_has_ended_and_until_then_why_it_is_not(tmp_path: Path) -> None:
    async def flow(pilot: Any, screen: PlayScreen, time: Time) -> None:
        await pilot.press("space")
        screen.clock.seek(position_of("int8/quantize") - 0.5)
        await until(pilot, lambda: status(screen, "int8/quantize") == "running")
        steps = screen.query_one("#steps", Rows)
        await until(pilot, lambda: steps.key_at_cursor == "int8/quantize")
        screen.query_one(Views).go("logs")
        await until(pilot, lambda: "The lines of a log have no times" in shown(pilot.app))
        assert "calibrating" not in shown(pilot.app)
        screen.clock.seek(position_of("int8/quantize"))
        await until(pilot, lambda: "calibrating" in shown(pilot.app))
        assert screen.query_one(LogPanel).log_view.path == screen.folder / "logs/int8-quantize.txt"  # type: ignore[operator]

    played(tmp_path, flow)


def test_where_one_types_the_keys_that_move_the_clock_are_letters(tmp_path: Path) -> None:
    async def flow(pilot: Any, screen: PlayScreen, time: Time) -> None:
        await pilot.press("end", "slash")
        await until(pilot, lambda: pilot.app.focused is not None and pilot.app.focused.id == "log-input")
        before = screen.clock.position
        await pilot.press("a", "space", "less_than_sign", "b", "left", "left", "home", "x")
        assert pilot.app.focused.value == "xa <b"
        assert screen.clock.position == before

    played(tmp_path, flow)


def test_the_recipe_is_shown_and_not_written_in(tmp_path: Path) -> None:
    async def flow(pilot: Any, screen: PlayScreen, time: Time) -> None:
        await pilot.press("6")
        await until(pilot, lambda: "✓ valid" in shown(pilot.app))
        await pilot.press("i")
        await until(pilot, lambda: any(each.message == REFUSED for each in pilot.app._notifications))
        await pilot.press("x", "space")
        assert not screen.clock.playing
        assert screen.query_one(CodeArea).text == RECIPE

    played(tmp_path, flow)


def test_idle_time_is_shortened_when_asked_for_and_that_is_said(tmp_path: Path) -> None:
    found = run_events()
    found = [*found[:10], *(msgspec.structs.replace(event, time=event.time + 100) for event in found[10:])]

    async def flow(pilot: Any, screen: PlayScreen, time: Time) -> None:
        assert "idle" not in bar(screen)
        await pilot.press("z")
        assert "idle time shortened" in bar(screen)
        assert any("shortened to a second" in each.message for each in pilot.app._notifications)
        time.now = 10.5
        assert screen.clock.position == pytest.approx(110.0, abs=1.5)
        await pilot.press("z")
        assert "idle" not in bar(screen)

    played(tmp_path, flow, found=found)


def test_what_one_has_to_know_of_a_recording_is_told_at_its_begin(tmp_path: Path) -> None:
    async def flow(pilot: Any, screen: PlayScreen, time: Time) -> None:
        await until(pilot, lambda: bool(pilot.app._notifications))
        assert [each.message for each in pilot.app._notifications] == ["The recipe was changed. [b]\\x1b"]

    played(tmp_path, flow, notes=("The recipe was changed. [b]\x1b",))


def test_escape_ends_the_playing(tmp_path: Path) -> None:
    async def flow(pilot: Any, screen: PlayScreen, time: Time) -> None:
        await pilot.press("escape")
        await until(pilot, lambda: not pilot.app.is_running)

    played(tmp_path, flow)


def test_a_run_that_died_runs_until_its_last_sample_and_is_said_to_have_died(tmp_path: Path) -> None:
    found = run_events()[:10]
    last = found[-1].time + 30
    run = Played(recording(tmp_path / "recording", found, samples=sample(last, 3)))

    assert run.length == last - found[0].time
    assert run.at(run.length - 0.1).state.status == "running"
    assert run.at(run.length).state.status == "died"


def test_at_every_moment_the_samples_are_those_that_had_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("screens.sample_track.SOUGHT_BYTES", 20_000)
    monkeypatch.setattr("screens.samples.READ_BYTES", 20_000)
    path, lines = tmp_path / "samples.jsonl", [sample(n / 4, n + 1) for n in range(2_000)]
    path.write_text("".join(lines))
    found = SampleTrack(path)

    assert found.end == 499.75
    for moment in (0.0, 0.6, 300.0, 300.3, 12.0, 499.75, 1e9, 11.0, -1.0):
        until_then = tmp_path / "then.jsonl"
        until_then.write_text("".join(line for n, line in enumerate(lines) if n / 4 <= moment))
        expected = SampleSource(until_then).advance().latencies.get(("benchmark/alone", "image-0"), ())
        windows = found.at(moment).latencies.get(("benchmark/alone", "image-0"), ())
        assert windows[-100:] == expected[-100:], moment
        assert found.at(moment) is found.at(moment)
    assert len(found.measured) == 2_000


def test_answers_of_a_recording_are_given_only_in_it(tmp_path: Path) -> None:
    answers = RecordedAnswers(recording(tmp_path / "recording"))

    assert answers.answer(Command(("dockerfile", "recipes/digits.yaml"), tmp_path)).stdout == "FROM scratch\n"
    assert answers.answer(Command(("gc",), tmp_path)).exit_code == 2
    assert not answers.see(replay_state(run_events()[:9]))
    assert answers.see(replay_state(run_events()))


def test_what_was_said_of_the_recipe_is_not_said_of_another_text(tmp_path: Path) -> None:
    answers = RecordedAnswers(recording(tmp_path / "recording"))
    words = ("validate", "recipes/digits.yaml", "--stdin", "--json")

    assert answers.answer(Command(words, tmp_path, RECIPE.encode())).exit_code == 0
    assert answers.answer(Command(words, tmp_path, b"workbench: 1\n")).exit_code == 2


def test_positions_are_told_as_on_players() -> None:
    assert [digits(each) for each in (0, 65.9, 600, 7_207)] == ["0:00", "1:05", "10:00", "2:00:07"]
    assert str(track(0, 10, [], 5)) == "●────"
    assert str(track(10, 10, [0, 5], 5)) == "┿━┿━●"
    assert str(track(0, 0, [0], 3)) == "━━●"
