"""The Recipe stage: written in, checked while one writes, saved unless somebody else wrote the file meanwhile.

The commands are the real ones, in a project that is a git repository.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from app_support import answers, drive, quiet, until
from shots import shown
from textual.widgets import OptionList, Static

from screens.app import WorkbenchApp
from screens.command import Answer, Command
from screens.home import HomeScreen
from screens.question import Question
from screens.stages.recipe import RecipeStage
from screens.workspace import WorkspaceScreen

RECIPE = "recipes/digits.yaml"


@pytest.fixture(autouse=True)
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every command that was said; those of other screens, and runs, are not carried out."""
    said: list[str] = []
    real, recorded = Command.answer, answers(said)

    async def answer(self: Command) -> Answer:
        if self.words[0] in ("status", "doctor", "run", "replay"):
            return await recorded(self)
        said.append(str(self))
        return await real(self)

    monkeypatch.setattr(Command, "answer", answer)
    return said


async def opened(pilot: Any) -> RecipeStage:
    """The stage, once its text is checked."""
    app = pilot.app
    await app.open_recipe(RECIPE, "recipe")
    await until(pilot, lambda: app.focused is not None and app.focused.id == "recipe-text")
    await checked(pilot)
    stage = app.screen.stage
    assert isinstance(stage, RecipeStage)
    return stage


async def checked(pilot: Any) -> None:
    """Lets the check of what was written last come to its end."""
    await pilot.pause()
    await until(pilot, lambda: all(each.is_finished for each in pilot.app.workers if each.group == "check"))
    await pilot.pause()


def status(stage: RecipeStage) -> str:
    return str(stage.query_one("#text-status", Static).content)


def problems(stage: RecipeStage) -> list[str]:
    return [str(option.prompt) for option in stage.query_one("#problems", OptionList).options]


def test_letters_are_keys_until_one_goes_into_the_text_and_again_when_one_has_left_it(
    project: Path, said: list[str]
) -> None:
    app = WorkbenchApp(project)
    before = (project / RECIPE).read_text()

    async def flow(pilot: Any) -> None:
        stage = await opened(pilot)
        await pilot.press("i", "q", "1", "r", "v", "enter", "y", "p")
        assert stage.editor.area.text == f"q1rv\nyp{before}"
        assert "writing" in status(stage)
        await pilot.press("escape")
        await pilot.press("r")
        await until(pilot, lambda: f"workbench run {RECIPE} --detach" in said)
        assert stage.editor.area.text == f"q1rv\nyp{before}"
        await pilot.press("ctrl+z", "1")
        await until(pilot, lambda: app.screen.stage.id == "model")  # type: ignore[attr-defined]

    drive(app, flow)


def test_the_text_is_checked_when_one_rests_and_enter_on_a_problem_goes_to_its_line(project: Path) -> None:
    app = WorkbenchApp(project)

    async def flow(pilot: Any) -> None:
        stage = await opened(pilot)
        assert "✓ valid" in status(stage)
        area = stage.editor.area
        area.go_to(9)  # metric: accuracy
        await pilot.press("i", "end", "z", "down", "home", "x")
        assert "… checking" in status(stage)
        await checked(pilot)
        assert "✗ 2 problems" in status(stage)
        metric, key = problems(stage)
        assert metric.startswith("line 9")
        assert "data.metric: " in metric
        assert "did you mean 'accuracy'?" in metric
        assert key.startswith("line 10")
        await pilot.press("escape")
        await until(pilot, lambda: app.focused is stage.query_one("#problems"))
        area.go_to(1)
        await pilot.press("enter")
        await until(pilot, lambda: app.focused is area)
        assert area.cursor_location[0] == 8
        await pilot.press("end", "backspace", "down", "home", "delete")
        await checked(pilot)
        assert problems(stage) == []
        assert not stage.query_one("#problems").display
        assert "saved" in status(stage)

    drive(app, flow)


def test_lines_with_problems_are_marked_in_the_text_and_f8_goes_from_one_to_the_next(project: Path) -> None:
    path = project / RECIPE
    path.write_text(path.read_text().replace("accuracy", "acuracy").replace("name:", "nam:"))
    app = WorkbenchApp(project)

    async def flow(pilot: Any) -> None:
        stage = await opened(pilot)
        area = stage.editor.area
        seen = []
        for _ in range(4):
            await pilot.press("f8")
            seen.append(area.cursor_location[0] + 1)
        assert seen == [2, 9, 1, 2]
        underlined = [
            bool(line.spans and any("underline" in str(span.style) for span in line.spans))
            for line in map(area.get_line, range(4))
        ]
        assert underlined == [True, True, False, False]

    drive(app, flow)


def test_ctrl_s_saves_also_what_is_not_valid_and_says_so(project: Path) -> None:
    app = WorkbenchApp(project)
    (project / RECIPE).chmod(0o640)

    async def flow(pilot: Any) -> None:
        stage = await opened(pilot)
        await pilot.press("i", "x", "ctrl+s")
        await checked(pilot)
        assert (project / RECIPE).read_text().startswith("xworkbench: 1\n")
        assert (project / RECIPE).stat().st_mode & 0o777 == 0o640
        assert "problem" in status(stage)
        assert "not saved" not in status(stage)
        assert [each.name for each in (project / "recipes").iterdir()] == ["digits.yaml"]

    drive(app, flow)


def overtaken(project: Path, then: Callable[[Any, RecipeStage], Any], *, gone: bool = False) -> None:
    """Somebody else writes (or removes) the file while one writes; ``then`` begins at the question that ctrl+s asks."""
    app = WorkbenchApp(project)

    async def flow(pilot: Any) -> None:
        stage = await opened(pilot)
        await pilot.press("i", "#")
        if gone:
            (project / RECIPE).unlink()
        else:
            (project / RECIPE).write_text("name: theirs\n")
        await pilot.press("ctrl+s")
        await until(pilot, lambda: isinstance(app.screen, Question))
        await then(pilot, stage)

    drive(app, flow)


def test_a_file_that_somebody_else_wrote_is_not_overwritten_unasked(project: Path) -> None:
    async def cancelled(pilot: Any, stage: RecipeStage) -> None:
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(pilot.app.screen, WorkspaceScreen))
        assert (project / RECIPE).read_text() == "name: theirs\n"
        assert stage.editor.area.text.startswith("#workbench: 1")
        stage.look()
        await checked(pilot)
        assert "changed on disk" in status(stage)
        assert "not saved" in status(stage)

    overtaken(project, cancelled)


def test_a_file_that_somebody_else_wrote_can_be_taken_and_ones_own_text_comes_back_by_undo(project: Path) -> None:
    async def reloaded(pilot: Any, stage: RecipeStage) -> None:
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(pilot.app.screen, WorkspaceScreen))
        await checked(pilot)
        assert stage.editor.area.text == "name: theirs\n"
        assert "not saved" not in status(stage)
        await pilot.press("ctrl+z")
        assert stage.editor.area.text.startswith("#workbench: 1")
        await pilot.press("ctrl+s")
        assert (project / RECIPE).read_text().startswith("#workbench: 1")

    overtaken(project, reloaded)


@pytest.mark.parametrize("gone", [False, True])
def test_a_file_that_somebody_else_wrote_or_removed_can_be_written_all_the_same(project: Path, gone: bool) -> None:
    async def overwritten(pilot: Any, stage: RecipeStage) -> None:
        await pilot.press("enter" if gone else "right")
        if not gone:
            await pilot.press("enter")
        await until(pilot, lambda: isinstance(pilot.app.screen, WorkspaceScreen))
        assert (project / RECIPE).read_text().startswith("#workbench: 1")
        assert "not saved" not in status(stage)

    overtaken(project, overwritten, gone=gone)


def test_a_recipe_changed_elsewhere_is_shown_anew_where_nothing_is_unsaved(project: Path) -> None:
    app = WorkbenchApp(project)

    async def flow(pilot: Any) -> None:
        stage = await opened(pilot)
        stage.editor.area.go_to(5)
        (project / RECIPE).write_text((project / RECIPE).read_text() + "sed: 7\n")
        stage.look()
        await checked(pilot)
        assert "sed: 7" in stage.editor.area.text
        assert stage.editor.area.cursor_location[0] == 4
        assert "✗ 1 problem" in status(stage)
        assert "saved" in status(stage)

    drive(app, flow)


def test_what_would_steer_the_terminal_is_shown_as_a_letter_and_saved_as_it_was(project: Path) -> None:
    path = project / RECIPE
    text = path.read_bytes() + "# \x1b]0;x\x07 \u202e tab\there\r\n".encode()
    path.write_bytes(text)
    app = WorkbenchApp(project)

    async def flow(pilot: Any) -> None:
        await opened(pilot)
        painted = shown(app)
        assert "\x1b" not in painted
        assert "\u202e" not in painted
        assert "␛]0;x␇ \N{REPLACEMENT CHARACTER}" in painted
        await pilot.press("i", "#", "ctrl+s")
        await checked(pilot)
        assert path.read_bytes() == b"#" + text.replace(b"\r\n", b"\n")

    drive(app, flow)


def test_a_file_that_is_no_text_is_told_and_not_written_over(project: Path) -> None:
    (project / RECIPE).write_bytes(b"\xff\xfe")
    app = WorkbenchApp(project)

    async def flow(pilot: Any) -> None:
        stage = await opened(pilot)
        assert "is not UTF-8 text" in status(stage)
        await pilot.press("i", "x", "ctrl+s")
        await quiet(pilot)
        assert (project / RECIPE).read_bytes() == b"\xff\xfe"
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.screen, HomeScreen))

    drive(app, flow)
