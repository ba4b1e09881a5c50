"""``n`` on Home: from a model file of the project to the recipe on the screen, by the command that one would type."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from app_support import answers, drive, quiet, until
from shots import SIZES, check, in_all_themes
from support import ROOT
from textual.widgets import Input, OptionList, Static

from screens.app import WorkbenchApp
from screens.code_area import CodeArea
from screens.command import Answer, Command, end
from screens.command_bar import CommandBar
from screens.home import HomeScreen
from screens.new import NewForm
from screens.project_files import files_of, matching
from screens.stages.compress import CompressStage
from screens.table import Rows
from screens.workspace import WorkspaceScreen
from workbench.errors import UsageError
from workbench.new import draft


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a model, data for it, another model without, and no recipe; no container engine answers."""
    (tmp_path / ".workbench").mkdir()
    for folder in ("models", "older"):
        (tmp_path / folder).mkdir()
        shutil.copyfile(ROOT / "assets/digits/digits.onnx", tmp_path / folder / "digits.onnx")
    for name in ("test.npz", "calibrate.npz"):
        shutil.copyfile(ROOT / "assets/digits" / name, tmp_path / "models" / name)
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The commands that the app says; a dry run of ``new`` is answered in this process, there are no recipes."""
    said: list[str] = []
    others = answers(said)

    async def answer(self: Command) -> Answer:
        if self.words[0] == "status":
            return Answer(0, "[]", "")
        if self.words[0] != "new" or "--dry-run" not in self.words:
            return await others(self)
        said.append(str(self))
        try:
            return Answer(0, json.dumps(draft(Path(self.words[1])).as_json(written=False)), "")
        except UsageError as error:
            return Answer(2, "", f"workbench: {error.message}\n{error.cure}\n")

    monkeypatch.setattr(Command, "answer", answer)
    return said


async def opened(pilot: Any) -> NewForm:
    """The form, once it knows which files there are."""
    await pilot.press("n")
    await until(pilot, lambda: isinstance(pilot.app.screen, NewForm))
    await quiet(pilot)
    found: NewForm = pilot.app.screen
    return found


def listed(form: NewForm) -> list[str]:
    models = form.query_one("#models", OptionList)
    return [str(option.id) for option in models.options] if models.display else []


def said(form: NewForm) -> str:
    return str(form.query_one("#form-said", Static).content)


def command_of(form: NewForm) -> str:
    return str(form.query_one("#form-command", Static).content)


def preview(form: NewForm) -> str:
    area = form.query_one("#preview", CodeArea)
    return area.text if area.display else ""


def test_a_model_is_taken_its_recipe_seen_written_and_opened(project: Path) -> None:
    """With the real command: what is on the screen before is what is written."""
    app = WorkbenchApp(project)

    async def flow(pilot: Any) -> None:
        form = await opened(pilot)
        assert listed(form) == ["models/digits.onnx", "older/digits.onnx"]
        await pilot.press("down", "up", *"mod", "enter")
        await until(pilot, lambda: "metric: accuracy" in preview(form))
        assert listed(form) == []
        assert command_of(form) == "$ workbench new models/digits.onnx"
        assert form.query_one("#evaluate", Input).placeholder == "models/test.npz (found)"
        assert form.query_one("#calibrate", Input).placeholder == "models/calibrate.npz (found)"
        seen = preview(form)
        await pilot.press("ctrl+s")
        await until(pilot, lambda: isinstance(app.screen, WorkspaceScreen) and app.screen.stage is not None)
        assert (project / "recipes/digits.yaml").read_text() == seen
        stage = app.screen.query_one(CompressStage)
        await until(pilot, lambda: stage.query_one("#variants", Rows).row_count == 4)
        bar = app.screen.query_one(CommandBar)
        await until(pilot, lambda: "new models/digits.onnx" in str(bar.query_one("#command", Static).content))
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.screen, HomeScreen))
        table = app.screen.query_one("#recipes", Rows)
        await until(pilot, lambda: table.row_count == 1)
        assert "never run" in str(table.get_row_at(0)[1])
        assert table.has_focus

    drive(app, flow)


def test_the_form_comes_to_the_command_that_one_would_type(project: Path, commands: list[str]) -> None:
    app = WorkbenchApp(project)

    async def flow(pilot: Any) -> None:
        form = await opened(pilot)
        for name, value in (
            ("model", "older/digits.onnx"),
            ("evaluate", "models/test.npz"),
            ("calibrate", "my data.npz"),
            ("name", "two"),
        ):
            form.query_one(f"#{name}", Input).value = value
        await quiet(pilot)
        expected = "workbench new older/digits.onnx --evaluate models/test.npz --calibrate 'my data.npz' --name two"
        assert command_of(form) == f"$ {expected}"
        assert f"{expected} --dry-run --json" in commands
        await pilot.press("enter")
        await until(pilot, lambda: "No engine answers." in said(form))
        assert commands[-1] == expected
        assert app.screen is form, "the form stays where the command failed"

    drive(app, flow)


def test_what_is_typed_filters_the_models_and_the_arrows_mark_one(project: Path, commands: list[str]) -> None:
    app = WorkbenchApp(project)

    async def flow(pilot: Any) -> None:
        form = await opened(pilot)
        assert said(form).startswith("Choose a model")
        await pilot.press(*"ONNX old")
        assert listed(form) == ["older/digits.onnx"]
        assert form.query_one("#do").disabled
        form.query_one("#model", Input).value = "nothing like it"
        await pilot.pause()
        assert listed(form) == []
        form.query_one("#model", Input).value = ""
        await pilot.pause()
        await pilot.press("down", "enter")
        assert form.query_one("#model", Input).value == "older/digits.onnx"
        assert commands.count("workbench new older/digits.onnx") == 0, "enter takes the model, and no more"
        await until(pilot, lambda: "older/evaluate.npz" in said(form))
        assert form.query_one("#evaluate", Input).placeholder == "a .npz file", "what is to be made is not found"

    drive(app, flow)


def test_the_only_model_is_taken_and_without_any_it_is_said_how_to_bring_one(
    project: Path, commands: list[str]
) -> None:
    (project / "older/digits.onnx").unlink()
    app = WorkbenchApp(project)

    async def flow(pilot: Any) -> None:
        form = await opened(pilot)
        assert form.query_one("#model", Input).value == "models/digits.onnx"
        await until(pilot, lambda: "metric: accuracy" in preview(form))
        await pilot.press("escape")
        (project / "models/digits.onnx").unlink()
        form = await opened(pilot)
        assert "There is no .onnx file in this project" in said(form)
        assert "cp PATH/MODEL.onnx models/" in said(form)

    drive(app, flow, (80, 24))


def test_a_model_elsewhere_is_refused_with_the_cure_and_no_recipe_is_shown(
    project: Path, commands: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    outside = tmp_path_factory.mktemp("elsewhere") / "m.onnx"
    shutil.copyfile(project / "models/digits.onnx", outside)
    app = WorkbenchApp(project)

    async def flow(pilot: Any) -> None:
        form = await opened(pilot)
        form.query_one("#model", Input).value = "models/digits.onnx"
        await until(pilot, lambda: bool(preview(form)))
        form.query_one("#model", Input).value = str(outside)
        await until(pilot, lambda: "lies outside the project" in said(form))
        assert f"cp {outside} models/" in said(form)
        assert preview(form) == ""

    drive(app, flow)


def test_files_are_found_but_for_those_of_packages_and_in_hidden_folders(tmp_path: Path) -> None:
    for name in ("b.onnx", "a/A.onnx", "a/x.npz", ".venv/m.onnx", "site-packages/m.onnx", "a/evil\x1b.onnx", "a/t.txt"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"12345")
    (tmp_path / "gone.onnx").symlink_to("nowhere")

    assert files_of(tmp_path, (".onnx", ".npz")) == {"a/A.onnx": 5, "a/x.npz": 5, "b.onnx": 5}
    assert matching({"models/Digits-v2.onnx": 1, "digits.onnx": 1}, "v2 digits") == ["models/Digits-v2.onnx"]


def test_a_command_that_is_taken_back_is_over_before_the_app_is(tmp_path: Path) -> None:
    """Taken back twice, as it is when an app ends whose screen has a question open."""
    processes: list[asyncio.subprocess.Process] = []

    async def left() -> None:
        start = asyncio.create_subprocess_exec

        async def started(*words: Any, **options: Any) -> asyncio.subprocess.Process:
            processes.append(await start(*words, **options))
            return processes[-1]

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(asyncio, "create_subprocess_exec", started)
            asked = asyncio.create_task(Command(("doctor",), tmp_path).answer())
            while not processes:
                await asyncio.sleep(0)
            await asyncio.sleep(0)
            asked.cancel()
            await asyncio.sleep(0)
            asked.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asked

    asyncio.run(left())
    assert processes[0].returncode is not None


def test_one_that_has_ended_meanwhile_is_taken_back_without_an_error(tmp_path: Path) -> None:
    async def left() -> None:
        process = await asyncio.create_subprocess_exec("true")
        await process.wait()
        await end(process)
        assert process.returncode == 0

    asyncio.run(left())


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("model", ["", "models/digits.onnx"], ids=["choose", "chosen"])
def test_how_it_looks(project: Path, commands: list[str], model: str, size: tuple[int, int]) -> None:
    app = WorkbenchApp(Path())

    async def flow(pilot: Any) -> None:
        form = await opened(pilot)
        form.query_one("#model", Input).value = model
        form.query_one("#model", Input).cursor_blink = False
        await quiet(pilot)
        await until(pilot, lambda: bool(preview(form)) == bool(model))
        check(f"new-{'chosen' if model else 'choose'}-{size[0]}x{size[1]}", await in_all_themes(pilot))

    drive(app, flow, size)


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_home_without_a_recipe_says_how_to_begin(project: Path, commands: list[str], size: tuple[int, int]) -> None:
    app = WorkbenchApp(Path())

    async def flow(pilot: Any) -> None:
        await until(pilot, lambda: bool(app.screen.query_one("#begin").display))
        await quiet(pilot)
        check(f"begin-{size[0]}x{size[1]}", await in_all_themes(pilot))

    drive(app, flow, size)
