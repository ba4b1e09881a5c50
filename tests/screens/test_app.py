"""The app: what it shows of a project's runs, from recorded event logs; what it does, it does by commands."""

from __future__ import annotations

import asyncio
import fcntl
import json
from pathlib import Path
from typing import Any

import pytest
from app_support import STATUS, answers, drive, quiet, run_folder, until
from example_run import record, run_events
from textual.widgets import Label, Static

from screens.app import WorkbenchApp, told
from screens.block_view import Blocks
from screens.command import Answer, Command
from screens.feed import ProjectSource
from screens.home import HomeScreen, recipe_rows
from screens.log_view import LogView
from screens.table import Rows
from screens.view import ProjectView, RunView
from screens.workspace import WorkspaceScreen
from workbench.events import replay_state
from workbench.runs import runs_folder


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The commands that the app says, in place of which nothing happens: what they do is tested where they are."""
    said: list[str] = []
    monkeypatch.setattr(Command, "answer", answers(said))
    return said


def test_home_lists_recipes_runs_and_what_the_machine_lacks(tmp_path: Path, commands: list[str]) -> None:
    record(run_events(), run_folder(tmp_path))
    app = WorkbenchApp(tmp_path)

    async def flow(pilot: Any) -> None:
        home = app.screen
        assert isinstance(home, HomeScreen)
        await until(
            pilot, lambda: all(home.query_one(f"#{name}", Rows).row_count for name in ("recipes", "runs", "machine"))
        )
        shown = [
            str(cell)
            for name in ("recipes", "runs", "machine")
            for cell in home.query_one(f"#{name}", Rows).get_row_at(1 if name == "machine" else 0)
        ]
        assert {"✓ as locked", "356.1 KiB ×0.26", "56.1 µs ×0.42"} <= set(shown)  # noqa: RUF001
        assert "✓ done" in shown
        assert "missing; apt-get install git" in shown

    drive(app, flow)


def test_a_run_shows_its_steps_its_log_and_the_report_at_its_end(tmp_path: Path, commands: list[str]) -> None:
    folder = record(run_events(), run_folder(tmp_path))
    (folder / "logs").mkdir()
    (folder / "logs" / "model.txt").write_text("read 10%\rread 100%\n\x1b[31mred\n")
    app = WorkbenchApp(tmp_path)

    async def flow(pilot: Any) -> None:
        await app.open_run(folder)
        await until(
            pilot,
            lambda: isinstance(app.screen, WorkspaceScreen) and app.screen.query_one("#steps", Rows).row_count > 3,
        )
        screen = app.screen
        assert "done" in str(screen.query_one("#title", Label).content)
        report = screen.query_one("#report-blocks", Blocks)
        await until(pilot, lambda: "Chosen: int8" in report.text)
        await pilot.press("o")
        log = screen.query_one(LogView)
        await until(pilot, lambda: log.shown_text() != "")
        assert log.shown_text() == "read 100%\n\\x1b[31mred", "a log cannot steer the terminal"
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.screen, HomeScreen))

    drive(app, flow)


def test_a_run_at_work_moves_on_and_one_whose_process_is_gone_has_died(tmp_path: Path, commands: list[str]) -> None:
    happened = run_events()
    folder = record(happened[:4], run_folder(tmp_path))
    app = WorkbenchApp(tmp_path)

    async def flow(pilot: Any) -> None:
        with (folder / "lock").open("ab") as lock:
            fcntl.flock(lock.fileno(), fcntl.LOCK_EX)
            await app.open_run(folder)
            await until(pilot, lambda: isinstance(app.screen, WorkspaceScreen) and app.screen.view is not None)
            assert app.screen.view.state.status == "running"  # type: ignore[attr-defined]
        await until(pilot, lambda: app.screen.view.state.status == "died")  # type: ignore[attr-defined]
        assert "go on with: workbench run" in str(app.screen.query_one("#error", Static).content)

    drive(app, flow)


def test_a_run_that_is_opened_before_the_first_painting_is_followed(
    tmp_path: Path, commands: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a key typed ahead: what waits for the painting of a screen that was left is not called."""
    folder = record(run_events(), run_folder(tmp_path))
    app = WorkbenchApp(tmp_path)
    monkeypatch.setattr(app, "call_after_refresh", lambda *_: True)

    async def flow(pilot: Any) -> None:
        await app.open_run(folder)
        await until(pilot, lambda: isinstance(app.screen, WorkspaceScreen) and app.screen.view is not None)
        assert app.screen.view.folder == folder  # type: ignore[attr-defined]
        assert app.screen.view.state.status == "done"  # type: ignore[attr-defined]

    drive(app, flow)


def test_a_key_says_the_command_a_user_would_type_and_its_error_stands_on_the_screen(
    tmp_path: Path, commands: list[str]
) -> None:
    app = WorkbenchApp(tmp_path)

    async def flow(pilot: Any) -> None:
        home = app.screen
        await until(pilot, lambda: home.query_one("#recipes", Rows).row_count == 1)
        await pilot.press("r")
        said = home.query_one("#said", Static)
        await until(pilot, lambda: bool(said.display))
        assert "workbench run recipes/digits.yaml --detach" in commands
        assert "$ workbench run recipes/digits.yaml --detach" in str(home.query_one("#command", Static).content)
        assert "Start one." in str(said.content)
        await pilot.press("y")
        assert app.clipboard == "workbench run recipes/digits.yaml --detach"

    drive(app, flow, (80, 24))


def test_a_command_of_the_app_is_a_process_of_its_own(tmp_path: Path) -> None:
    answer = asyncio.run(Command(("runs", "--json"), tmp_path).answer())

    assert answer.exit_code == 0
    assert answer.json() == []


def test_recipes_are_looked_at_again_when_a_run_has_ended_and_not_while_one_is_at_work(
    tmp_path: Path, commands: list[str]
) -> None:
    happened = run_events()
    record(happened, run_folder(tmp_path))
    app = WorkbenchApp(tmp_path)

    async def flow(pilot: Any) -> None:
        home = app.screen
        assert isinstance(home, HomeScreen)
        await until(pilot, lambda: home.query_one("#runs", Rows).row_count == 1)
        await quiet(pilot)
        ended = RunView(run_folder(tmp_path), replay_state(happened), 0.0)
        commands.clear()
        for second in range(3):
            live = RunView(tmp_path / "another", replay_state(happened[:4]), float(second))
            home.show_project(ProjectView((live, ended)))
            await quiet(pilot)
        assert commands == []
        home.show_project(ProjectView((RunView(tmp_path / "another", replay_state(happened), 0.0), ended)))
        await quiet(pilot)
        assert commands == ["workbench status --json"]

    drive(app, flow)


def test_a_run_that_cannot_be_read_has_failed_and_the_others_are_shown(tmp_path: Path) -> None:
    whole = record(run_events(), run_folder(tmp_path))
    broken = record(run_events()[:4], runs_folder(tmp_path) / "20261124-110000.000-digits-bbbb")
    with (broken / "events.jsonl").open("ab") as file:
        file.write(b"no event\n")

    view = ProjectSource(tmp_path).advance()

    assert view is not None
    assert [(each.folder, each.state.status) for each in view.runs] == [(broken, "failed"), (whole, "done")]
    assert "cannot be read" in str((view.runs[0].state.error or {})["message"])


def test_a_recipe_at_work_says_how_far_it_is_and_one_from_another_machine_so() -> None:
    happened = run_events()
    path = replay_state(happened).recipe
    row = {**STATUS, "recipe": path, "figures": {**STATUS["figures"], "here": False}}  # type: ignore[dict-item]
    live = RunView(Path("x"), replay_state(happened[:4]), 0.0)
    ended = RunView(Path("x"), replay_state(happened), 0.0)

    at_work = [cell.text for cell in recipe_rows([row], [live, ended])[path]]
    assert at_work[1] == f"● running 0/{len(live.state.steps)}"
    assert at_work[4] == "56.1 µs ×0.42, elsewhere"  # noqa: RUF001
    assert recipe_rows([row], [ended])[path][1].text == "✓ as locked"


@pytest.mark.parametrize(
    ("status", "shown"),
    [
        ("never run", "· never run"),
        ("changed since", "~ changed since"),
        ("not valid: line 3: x\x1b[2J", "✗ not valid: line 3: x\\x1b[2J"),
    ],
)
def test_each_state_is_a_glyph_and_words(status: str, shown: str) -> None:
    row = {**STATUS, "status": status, "figures": None, "choice": ""}

    assert [cell.text for cell in recipe_rows([row])[STATUS["recipe"]]][1:] == [shown, "—", "—", "—"]  # type: ignore[index]


def test_an_error_of_the_app_is_a_sentence_and_not_a_screen_of_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Command, "answer", answers([]))
    app = WorkbenchApp(tmp_path)

    async def flow(pilot: Any) -> None:
        def broken() -> None:
            raise RuntimeError("no such thing")

        app.call_later(broken)
        await until(pilot, lambda: app.broken is not None)

    with pytest.raises(RuntimeError):  # the pilot raises what the app met
        drive(app, flow)
    error = told(app.broken, tmp_path)  # type: ignore[arg-type]
    assert error.exit_code == 1
    assert "no such thing" in error.message
    assert "runs go on" in error.message
    assert "RuntimeError: no such thing" in (tmp_path / ".workbench/app-error.txt").read_text()
    assert "Traceback" not in capsys.readouterr().out


def test_what_the_machine_lacks_can_be_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Command, "answer", answers([]))
    app = WorkbenchApp(tmp_path)

    async def flow(pilot: Any) -> None:
        table = app.screen.query_one("#machine", Rows)
        await until(pilot, lambda: table.row_count > 1)
        table.focus()
        await pilot.press("down", "enter")
        await until(pilot, lambda: len(app._notifications) == 1)
        [told] = app._notifications
        assert (told.title, told.message) == ("git", "missing; apt-get install git")

    drive(app, flow)


def test_a_status_that_fails_is_told_and_no_folder_without_recipes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(self: Command) -> Answer:
        return Answer(2, "", "workbench: recipes/x.yaml cannot be read.\nCorrect it.")

    monkeypatch.setattr(Command, "answer", broken)
    app = WorkbenchApp(tmp_path)

    async def mended(pilot: Any, said: Static) -> None:
        monkeypatch.setattr(Command, "answer", answers([]))
        await pilot.press("f5")
        await until(pilot, lambda: not said.display)

    async def flow(pilot: Any) -> None:
        said = app.screen.query_one("#said", Static)
        await until(pilot, lambda: "cannot be read" in str(said.content))
        assert not app.screen.query_one("#begin").display
        await mended(pilot, said)

    drive(app, flow)


def test_what_a_machine_lacks_stands_in_the_table_and_nowhere_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def lacking(self: Command) -> Answer:
        rows = [{"what": "git", "state": "missing", "found": "", "cure": "apt-get install git"}]
        told = self.words[0] == "doctor"
        return Answer(6, json.dumps(rows), "workbench: This machine lacks something.") if told else Answer(0, "[]", "")

    monkeypatch.setattr(Command, "answer", lacking)
    app = WorkbenchApp(tmp_path)

    async def flow(pilot: Any) -> None:
        await until(pilot, lambda: bool(app.screen.query_one("#machine", Rows).row_count))
        assert not app.screen.query_one("#said", Static).display

    drive(app, flow)
