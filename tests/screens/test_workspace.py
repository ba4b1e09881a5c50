"""The workspace of a recipe: its stages, its runs, its keys, and the habits that all screens have."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from app_support import answers, drive, run_folder, until
from example_run import failed_events, record, run_events
from textual.widgets import Static

from screens.app import WorkbenchApp
from screens.command import Command
from screens.command_bar import CommandBar
from screens.feed import RunSource
from screens.help import HelpScreen
from screens.home import HomeScreen
from screens.keys import all_bindings, key_table
from screens.settings import Settings, load_settings
from screens.stage import STAGES, mark
from screens.table import Rows
from screens.view import RunView
from screens.workspace import WorkspaceScreen
from workbench.errors import UsageError
from workbench.events import replay_state
from workbench.runs import runs_folder


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    said: list[str] = []
    monkeypatch.setattr(Command, "answer", answers(said))
    return said


async def opened(pilot: Any, stage: str = "compress") -> WorkspaceScreen:
    """The workspace of the digits recipe, once it shows a run."""
    app = pilot.app
    await until(pilot, lambda: bool(app.screen.query_one("#runs", Rows).row_count))
    await app.open_recipe("recipes/digits.yaml", stage)
    await until(pilot, lambda: isinstance(app.screen, WorkspaceScreen) and app.screen.view is not None)
    return app.screen  # type: ignore[no-any-return]


def test_enter_on_a_recipe_opens_it_with_its_newest_run_and_digits_go_to_its_stages(
    tmp_path: Path, commands: list[str]
) -> None:
    record(run_events(), run_folder(tmp_path))
    app = WorkbenchApp(tmp_path)

    async def flow(pilot: Any) -> None:
        home = app.screen
        await until(pilot, lambda: bool(home.query_one("#recipes", Rows).row_count))
        await until(pilot, lambda: bool(home.query_one("#runs", Rows).row_count))
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, WorkspaceScreen) and app.screen.view is not None)
        for number, kind in enumerate(STAGES, 1):
            await pilot.press(str(number))
            await until(pilot, lambda: app.screen.stage is not None and app.screen.stage.id == kind.id)  # type: ignore[attr-defined]  # noqa: B023
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.screen, HomeScreen))

    drive(app, flow)


def test_a_stage_is_marked_by_how_its_steps_stand() -> None:
    marks = {}
    for name, happened in (
        ("done", run_events()),
        ("failed", failed_events("image", "No.")),
        ("begun", run_events()[:4]),
    ):
        view = RunView(Path("x"), replay_state(happened), 0.0)
        marks[name] = {kind.id: mark(kind, view)[0] for kind in STAGES}

    assert marks["done"]["compress"] == marks["done"]["push"] == marks["done"]["recipe"] == "✓"
    assert marks["failed"]["compress"] == "✓"
    assert marks["failed"]["containerize"] == "✗"
    assert marks["failed"]["push"] == "-"
    assert marks["begun"]["push"] == "·"
    assert mark(STAGES[0], None) == ("", "")


def test_a_new_run_of_the_recipe_is_followed_and_older_ones_are_a_key_away(tmp_path: Path, commands: list[str]) -> None:
    first = record(run_events(), run_folder(tmp_path))
    app = WorkbenchApp(tmp_path)

    async def flow(pilot: Any) -> None:
        screen = await opened(pilot)
        assert screen.view is not None
        assert screen.view.folder == first
        newer = record(run_events(), runs_folder(tmp_path) / "20261124-110000.000-digits-bbbb")
        await until(pilot, lambda: screen.view is not None and screen.view.folder == newer)
        await pilot.press("left_square_bracket")
        await until(pilot, lambda: screen.view is not None and screen.view.folder == first)
        await pilot.press("right_square_bracket")
        await until(pilot, lambda: screen.view is not None and screen.view.folder == newer)

    drive(app, flow)


def test_a_run_that_is_seen_before_its_first_event_is_followed_all_the_same(tmp_path: Path) -> None:
    folder = record([], run_folder(tmp_path))
    source = RunSource(folder)
    assert source.advance() is not None
    record(run_events(), tmp_path / "other")
    (folder / "events.jsonl").write_bytes((tmp_path / "other/events.jsonl").read_bytes())
    view = source.advance()
    assert view is not None
    assert view.state.status == "done"


def test_a_command_goes_on_when_the_screen_is_left_and_its_error_is_told_where_one_is(
    tmp_path: Path, commands: list[str]
) -> None:
    record(run_events(), run_folder(tmp_path))
    app = WorkbenchApp(tmp_path)

    async def flow(pilot: Any) -> None:
        screen = await opened(pilot)
        await pilot.press("p")
        said = screen.query_one(CommandBar).query_one("#said", Static)
        await until(pilot, lambda: "Start one." in str(said.content))
        assert "workbench replay recipes/digits.yaml" in commands

    drive(app, flow)


def test_help_names_every_key_of_the_screen(tmp_path: Path, commands: list[str]) -> None:
    record(run_events(), run_folder(tmp_path))
    app = WorkbenchApp(tmp_path)

    async def flow(pilot: Any) -> None:
        await opened(pilot)
        await pilot.press("question_mark")
        await until(pilot, lambda: isinstance(app.screen, HelpScreen))
        shown = str(app.screen.query_one(Static).content)
        assert "carry out the recipe" in shown
        assert "leave; runs go on" in shown
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.screen, WorkspaceScreen))

    drive(app, flow)


def test_the_palette_has_every_action_of_the_screen(tmp_path: Path, commands: list[str]) -> None:
    record(run_events(), run_folder(tmp_path))
    app = WorkbenchApp(tmp_path)

    async def flow(pilot: Any) -> None:
        screen = await opened(pilot)
        listed = {each.title: each for each in app.get_system_commands(screen)}
        assert {"Run", "Replay", "Cancel", "Back", "Push", "Quit", "Screenshot", "Theme"} <= listed.keys()
        await listed["Push"].callback()
        await until(pilot, lambda: screen.stage is not None and screen.stage.id == "push")

    drive(app, flow)


def test_keys_and_theme_are_the_users_own(tmp_path: Path, commands: list[str]) -> None:
    (tmp_path / "config.toml").write_text('theme = "light"\n[keys]\n"home.replay" = "x"\n')
    app = WorkbenchApp(tmp_path, load_settings(tmp_path / "config.toml"))

    async def flow(pilot: Any) -> None:
        await until(pilot, lambda: bool(app.screen.query_one("#recipes", Rows).row_count))
        assert app.theme == "light"
        await pilot.press("p", "x")
        await until(pilot, lambda: any("replay" in each for each in commands))
        assert sum("replay" in each for each in commands) == 1

    drive(app, flow)


@pytest.mark.parametrize(
    ("text", "told"),
    [('theme = "pink"', "no theme 'pink'"), ("keys = 3", "keys must be"), ("theme", "cannot be read")],
)
def test_settings_that_are_none_are_told(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "config.toml").write_text(text)

    with pytest.raises(UsageError, match=told):
        load_settings(tmp_path / "config.toml")
    assert load_settings(tmp_path / "none.toml") == Settings()


def test_every_key_has_an_id_of_its_own_and_says_what_it_does_and_none_fights_tmux_or_screen() -> None:
    bindings = list(all_bindings())

    assert len(bindings) > 15
    assert [each.id for each in bindings if not (each.tooltip or each.description)] == []
    assert [each.id for each in bindings if {"ctrl+a", "ctrl+b"} & set(each.key.split(","))] == []


def test_the_key_table_of_the_readme_is_what_the_app_has() -> None:
    """UPDATE_GOLDEN=1 writes it there."""
    readme = Path(__file__).parents[2] / "README.md"
    before, begin, rest = readme.read_text().partition("<!-- keys -->\n")
    kept, end, after = rest.partition("<!-- end of keys -->\n")
    assert begin and end  # noqa: PT018
    if os.environ.get("UPDATE_GOLDEN"):
        readme.write_text(f"{before}{begin}{key_table()}\n{end}{after}")
        kept = f"{key_table()}\n"

    assert kept == f"{key_table()}\n"


def test_what_is_copied_is_kept_in_a_file_for_terminals_that_do_not_take_it(
    tmp_path: Path, commands: list[str]
) -> None:
    record(run_events(), run_folder(tmp_path))
    app = WorkbenchApp(tmp_path)

    async def flow(pilot: Any) -> None:
        await opened(pilot, "push")
        await pilot.press("y")
        await until(pilot, lambda: bool(app.clipboard))
        assert (tmp_path / ".workbench/copied.txt").read_text() == app.clipboard

    drive(app, flow)
