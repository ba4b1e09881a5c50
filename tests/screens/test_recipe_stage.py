"""The Recipe stage: written in, checked while one writes, saved unless somebody else wrote the file meanwhile;
compared with what is committed, and committed.

The commands are the real ones, in a project that is a git repository.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from app_support import answers, drive, quiet, until
from shots import shown
from support import git
from textual.widgets import Button, Input, OptionList, Static

from screens.app import WorkbenchApp
from screens.block_view import Blocks
from screens.code_area import CodeArea
from screens.command import Answer, Command
from screens.home import HomeScreen
from screens.question import Question
from screens.stages.recipe import CommitForm, RecipeStage
from screens.table import Rows
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


def test_a_check_that_ends_while_the_stage_is_taken_away_is_none_too_many(
    project: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Widgets are removed from the innermost on: the text is gone a moment before who checks it."""
    app = WorkbenchApp(project)
    asked, taken_away = asyncio.Event(), asyncio.Event()

    async def flow(pilot: Any) -> None:
        stage = await opened(pilot)
        real = Command.answer

        async def answer(self: Command) -> Answer:
            found = await real(self)
            if self.words[0] == "validate":
                asked.set()
                await taken_away.wait()
            return found

        monkeypatch.setattr(Command, "answer", answer)
        await pilot.press("i", "q")
        await asked.wait()
        await stage.editor.remove_children()
        taken_away.set()
        await checked(pilot)
        assert app.is_running

    drive(app, flow)


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
        await pilot.press("ctrl+s", "escape")
        await pilot.press("r")
        await until(pilot, lambda: f"workbench run {RECIPE} --detach" in said)
        assert stage.editor.area.text == f"q1rv\nyp{before}"
        await pilot.press("1")
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
        await asked(pilot)
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


async def asked(pilot: Any) -> str:
    """What the question above the screen asks, once there is one."""
    app = pilot.app
    await until(pilot, lambda: isinstance(app.screen, Question) and isinstance(app.focused, Button))
    return str(app.screen.query_one("#asked", Static).content)


@pytest.mark.parametrize(("answer", "saved"), [("enter", True), ("right enter", False)])
@pytest.mark.parametrize("key", ["escape", "q", "ctrl+q"])
def test_an_unsaved_text_is_not_lost_unasked_when_one_leaves(project: Path, key: str, answer: str, saved: bool) -> None:
    app = WorkbenchApp(project)
    before = (project / RECIPE).read_text()

    async def flow(pilot: Any) -> None:
        stage = await opened(pilot)
        await pilot.press("i", "#", "escape", "3")
        await until(pilot, lambda: app.screen.stage.id == "containerize")  # type: ignore[attr-defined]
        await pilot.press(key)
        assert f"{RECIPE} has changes that are not saved" in await asked(pilot)
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.screen, WorkspaceScreen))
        assert stage.editor.area.text == f"#{before}"
        assert (project / RECIPE).read_text() == before
        await pilot.press(key)
        await asked(pilot)
        await pilot.press(*answer.split())
        await until(pilot, lambda: isinstance(app.screen, HomeScreen) if key == "escape" else app._exit)
        assert (project / RECIPE).read_text() == (f"#{before}" if saved else before)

    drive(app, flow)


def test_what_is_saved_is_left_without_a_question(project: Path) -> None:
    app = WorkbenchApp(project)

    async def flow(pilot: Any) -> None:
        await opened(pilot)
        before = (project / RECIPE).read_text()
        await pilot.press("i", "#", "ctrl+s")
        await until(pilot, lambda: (project / RECIPE).read_text() == f"#{before}")
        await pilot.press("escape", "escape")
        await until(pilot, lambda: isinstance(app.screen, HomeScreen))

    drive(app, flow)


def test_a_run_takes_the_text_as_it_is_saved_so_it_is_asked_first(project: Path, said: list[str]) -> None:
    app = WorkbenchApp(project)

    async def flow(pilot: Any) -> None:
        await opened(pilot)
        await pilot.press("i", "#", "escape", "p")
        await asked(pilot)
        assert f"workbench replay {RECIPE}" not in said
        await pilot.press("enter")
        await until(pilot, lambda: f"workbench replay {RECIPE}" in said)
        assert (project / RECIPE).read_text().startswith("#workbench")

    drive(app, flow)


def test_saving_on_the_way_out_over_a_file_that_somebody_else_wrote_does_not_go_out(project: Path) -> None:
    app = WorkbenchApp(project)

    async def flow(pilot: Any) -> None:
        stage = await opened(pilot)
        await pilot.press("i", "#", "escape")
        (project / RECIPE).write_text("name: theirs\n")
        await pilot.press("q")
        await asked(pilot)
        await pilot.press("enter")
        await until(pilot, lambda: "was changed since" in shown(app))
        assert (project / RECIPE).read_text() == "name: theirs\n"
        assert stage.editor.unsaved
        assert not app._exit

    drive(app, flow)


def test_the_difference_to_the_last_commit_is_shown_with_the_figures(project: Path) -> None:
    lock = project / "recipes/digits.lock.yaml"
    figure = "{value: %s, interval: [55900.0, 56300.0], unit: ns, better: lower, kind: latency}"
    text = f"workbench-lock: 1\nfigures:\n  A machine:\n    values:\n      int8.p50: {figure}\n"
    lock.write_text(text % "56118.0")
    git(project, "add", "--all")
    git(project, "commit", "--quiet", "--message", "lock")
    lock.write_text(text % "61000.0")
    path = project / RECIPE
    path.write_text(path.read_text().replace("metric: accuracy", "metric: f1"))
    app = WorkbenchApp(project)

    async def flow(pilot: Any) -> None:
        stage = await opened(pilot)
        changes = stage.query_one("#changes-blocks", Blocks)
        await pilot.press("v")
        await until(pilot, lambda: "Figures" in changes.text)
        difference = stage.query_one("#difference", CodeArea)
        assert [line for line in difference.text.splitlines() if line[0] in "+-"][2:] == [
            "-  metric: accuracy",
            "+  metric: f1",
        ]
        told = changes.text.splitlines()
        assert told[0] == "Recipe"
        assert "data.metric  accuracy  f1" in told[2]
        assert told[4] == "Figures on A machine"
        assert "int8.p50  56.118 µs [55.9, 56.3]  61 µs [55.9, 56.3]" in told[6]
        assert "not compared" not in shown(app)
        await pilot.press("t", "i", "#", "escape", "d")
        await until(pilot, lambda: "What is not saved yet is not compared." in shown(app))

    drive(app, flow)


def test_what_is_as_committed_and_what_cannot_be_compared_is_said(project: Path) -> None:
    app = WorkbenchApp(project)

    async def flow(pilot: Any) -> None:
        stage = await opened(pilot)
        await pilot.press("d")
        await until(pilot, lambda: "The recipe's text is as it is committed." in shown(app))
        assert not stage.query_one("#difference", CodeArea).display
        shutil.rmtree(project / ".git")
        (project / ".workbench").mkdir()
        stage.look()
        await until(pilot, lambda: "is not in a git repository" in stage.query_one("#changes-blocks", Blocks).text)
        await pilot.press("h")
        await until(pilot, lambda: "git init" in stage.query_one("#revision-blocks", Blocks).text)

    drive(app, flow)


def test_the_history_lists_the_commits_and_the_one_under_the_cursor_with_its_changes(project: Path) -> None:
    path = project / RECIPE
    for seed in (7, 8):
        path.write_text(path.read_text().replace(f"seed: {seed - 1}\n", "") + f"seed: {seed}\n")
        git(project, "commit", "--quiet", "--all", "--message", f"seed {seed} \x1b[31m")
    app = WorkbenchApp(project)

    async def flow(pilot: Any) -> None:
        stage = await opened(pilot)
        table, changes = stage.query_one("#revisions", Rows), stage.query_one("#revision-blocks", Blocks)
        await pilot.press("h")
        await until(pilot, lambda: table.row_count == 3)
        await until(pilot, lambda: "seed  7       8" in changes.text)
        assert "\x1b" not in shown(app)
        await pilot.press("down")
        await until(pilot, lambda: "seed  —       7" in changes.text)
        await pilot.press("enter")
        await until(pilot, lambda: app.focused is stage.query_one("#revision"))
        await pilot.press("escape")
        await until(pilot, lambda: app.focused is table)
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.screen, HomeScreen))

    drive(app, flow)


async def asked_for_message(pilot: Any) -> None:
    """Lets the form to commit come up, its line ready to be written in."""
    app = pilot.app
    await until(pilot, lambda: isinstance(app.screen, CommitForm) and isinstance(app.focused, Input))


@pytest.mark.parametrize("message", ["", "another seed"])
def test_the_recipe_is_committed_by_a_form_and_the_history_has_it(project: Path, said: list[str], message: str) -> None:
    app = WorkbenchApp(project)

    async def flow(pilot: Any) -> None:
        stage = await opened(pilot)
        stage.editor.area.move_cursor(stage.editor.area.document.end)
        await pilot.press("i", *"seed", "colon", "space", "7", "enter", "escape", "h")
        table = stage.query_one("#revisions", Rows)
        await until(pilot, lambda: table.row_count == 1)
        await pilot.press("m")
        await asked(pilot)
        await pilot.press("enter")
        await asked_for_message(pilot)
        await pilot.press(*(key if key != " " else "space" for key in message), "enter")
        await until(pilot, lambda: table.row_count == 2)
        assert git(project, "log", "-1", "--format=%s").strip() == (message or "digits: seed — → 7")
        assert git(project, "status", "--porcelain") == ""
        assert said.count(f"workbench commit {RECIPE}" + (f" -m '{message}'" if message else "")) == 1

    drive(app, flow)


def test_a_commit_that_is_refused_says_why_in_the_form(project: Path) -> None:
    git(project, "checkout", "--quiet", "--detach")
    (project / RECIPE).write_text((project / RECIPE).read_text() + "seed: 7\n")
    app = WorkbenchApp(project)

    async def flow(pilot: Any) -> None:
        await opened(pilot)
        await pilot.press("m")
        await asked_for_message(pilot)
        await pilot.press("enter")
        await until(pilot, lambda: "HEAD is detached" in str(app.screen.query_one("#form-said", Static).content))

    drive(app, flow)


def test_what_was_not_saved_when_the_app_ended_without_asking_is_back_and_gone_once_it_is_discarded(
    project: Path,
) -> None:
    before = (project / RECIPE).read_text()

    async def write(pilot: Any) -> None:
        stage = await opened(pilot)
        await pilot.press("i", "#")
        await checked(pilot)
        assert stage.editor.unsaved  # and the app ends here, as with a terminal that is closed

    async def find(pilot: Any) -> None:
        stage = await opened(pilot)
        assert stage.editor.area.text == f"#{before}"
        assert "not saved" in status(stage)
        assert git(project, "status", "--porcelain") == ""
        await pilot.press("ctrl+z")
        assert stage.editor.area.text == before
        await pilot.press("ctrl+y", "q")
        await asked(pilot)
        await pilot.press("right", "enter")
        await until(pilot, lambda: pilot.app._exit)

    async def find_nothing(pilot: Any) -> None:
        stage = await opened(pilot)
        assert stage.editor.area.text == before

    for flow in (write, find, find_nothing):
        drive(WorkbenchApp(project), flow)
    assert (project / RECIPE).read_text() == before


def test_what_is_saved_or_undone_leaves_no_draft(project: Path) -> None:
    app = WorkbenchApp(project)
    drafts = project / ".workbench" / "drafts"

    async def flow(pilot: Any) -> None:
        await opened(pilot)
        for ends_it in ("ctrl+s", "ctrl+z"):
            await pilot.press("i", "#")
            await checked(pilot)
            assert [each.name for each in drafts.iterdir()] == ["recipes%2Fdigits.yaml"]
            await pilot.press(ends_it, "escape")
            await checked(pilot)
            assert list(drafts.iterdir()) == []

    drive(app, flow)
