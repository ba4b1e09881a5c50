"""The Compress stage: variants of recipe and run in a table and a plot, and the commands that its forms come to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from app_support import answers, drive, run_folder, until
from example_run import VALUES, failed_events, record, run_events, stamped, started, step
from textual.widgets import Input, Select, Static

from screens.app import WorkbenchApp
from screens.candidates import DEFAULTS, Candidate, axes, candidates, chain_words, head, points, rows, standing
from screens.command import Answer, Command
from screens.command_bar import CommandBar
from screens.dialog import Dialog
from screens.pareto_view import ParetoView
from screens.present_variant import variant_blocks
from screens.stages.compress import CompressStage
from screens.table import Rows
from screens.variant_forms import ExportForm, VariantForm, quantization, setting
from screens.workspace import WorkspaceScreen
from workbench import events
from workbench.events import AnyEvent, RunState, replay_state
from workbench.schema import Quantize

STATIC = [{"quantize": {"to": "int8", "mode": "static"}}]
CHAINS = {"int8": STATIC, "int8-dynamic": [{"quantize": {"to": "int8", "mode": "dynamic"}}]}
RECIPE = """\
workbench: 1
name: digits
variants:
  int8: [{quantize: {to: int8, mode: static}}]
  int8-dynamic: [{quantize: {to: int8, mode: dynamic}}]
  later: [{quantize: {to: int8, mode: weight-only}}]
choose: {minimize: p50}
"""


def at_work(until_step: str) -> RunState:
    """A run in which ``until_step`` is half done."""
    found: list[AnyEvent] = started()
    for name in VALUES:
        if name == until_step:
            break
        found += step(name)
    found.append(events.StepStarted(step=until_step, key="", ingredients={}))
    found.append(events.StepProgress(step=until_step, done=1, total=4, text=""))
    return replay_state(stamped(found))


def by_name(state: RunState | None, chains: dict[str, Any]) -> dict[str, Candidate]:
    return {each.name: each for each in candidates(state, chains)}


def stands(state: RunState | None, chains: dict[str, Any]) -> dict[str, str]:
    return {name: standing(each).text for name, each in by_name(state, chains).items()}


def test_the_table_fills_while_variants_are_made() -> None:
    early, later = at_work("int8-dynamic/quantize"), at_work("latency/int8")

    assert stands(early, CHAINS) == {
        "original": "· waiting",
        "int8": "· waiting",
        "int8-dynamic": "● quantize 25%",
    }
    assert stands(later, CHAINS)["int8"] == "● latency 25%"
    cells = rows(candidates(later, CHAINS), 120)["int8"]
    assert "350.0 KiB" in cells[1].text
    assert "26%" in cells[1].text
    assert "0.98" in cells[2].text
    assert cells[4].text.startswith("—"), "no latency before it is measured"


def test_a_variant_says_which_gate_it_fails_and_the_chosen_one_is_marked() -> None:
    found = stands(replay_state(run_events()), CHAINS)

    assert found == {"original": "✗ model_size", "int8": "◆ chosen", "int8-dynamic": "✗ metric_drop"}


def test_a_variant_of_the_recipe_only_or_of_the_run_only_says_so() -> None:
    state = replay_state(run_events())

    assert stands(state, {**CHAINS, "later": STATIC})["later"] == "+ not made yet"
    assert stands(state, {"int8": STATIC})["int8-dynamic"] == "- not in recipe now"
    assert stands(None, {"int8": STATIC}) == {"original": "· not measured", "int8": "+ not made yet"}


def test_a_step_that_failed_is_told_with_its_error() -> None:
    state = replay_state(failed_events("int8/quantize", "It has no operators that fit.", "Use another mode."))
    found = by_name(state, CHAINS)["int8"]

    assert standing(found).text == "✗ quantize failed"
    said = [cell.text for block in variant_blocks(found, state) for cell in block.below]
    assert said[:2] == ["It has no operators that fit.", "Use another mode."]


def test_a_variant_that_the_recipe_makes_otherwise_now_is_marked_as_changed() -> None:
    happened = run_events()
    settings = {f"setting {key}": text for key, text in (("to", '"int8"'), ("mode", '"static"'))}
    settings |= {"setting calibration": '"minmax"', "setting percentile": "99.99", "setting per_channel": "true"}
    happened = [
        events.StepFinished(
            seq=e.seq, time=e.time, step=e.step, key=e.key, reused=False, files={}, values=e.values,
            ingredients=settings,
        )
        if isinstance(e, events.StepFinished) and e.step == "int8/quantize"
        else e
        for e in happened
    ]  # fmt: skip
    state = replay_state(happened)

    assert not by_name(state, CHAINS)["int8"].changed
    changed = by_name(state, {**CHAINS, "int8": [{"quantize": {"to": "int8", "per_channel": False}}]})["int8"]
    assert changed.changed
    assert standing(changed).text == "~ changed since"


def test_what_goes_without_saying_is_what_the_schema_says() -> None:
    assert {**Quantize(to="int8").model_dump()} == dict(DEFAULTS)


def test_narrow_and_wide_tables_have_the_figures_with_what_they_rest_on() -> None:
    found = candidates(replay_state(run_events()), CHAINS)

    assert head(found, 70) == ("variant", "size", "accuracy", "p50")
    assert head(found, 120) == ("variant", "size", "accuracy", "change", "p50", "ratio", "gates")
    narrow, wide = rows(found, 70)["int8"], rows(found, 120)["int8"]
    assert narrow[2].text.endswith("not significant")
    assert "×0.4771" in narrow[3].text  # noqa: RUF001
    assert "[146.0, 151.0]" in narrow[3].text
    assert wide[5].text == "0.4771 faster\n[0.4688, 0.4856]"
    assert wide[6].text == "✓ gates hold\n2 of 2"
    assert {
        cell.text.count("\n") for row in (*rows(found, 70).values(), *rows(found, 120).values()) for cell in row
    } == {1}


def test_the_details_tell_gates_with_reasons_comparison_remarks_and_notes() -> None:
    state = replay_state(run_events())
    found = by_name(state, CHAINS)
    blocks = {block.title: block for block in variant_blocks(found["int8"], state)}
    text = " ".join(cell.text for block in blocks.values() for row in block.rows for cell in row)

    assert "quantize static (minmax, for each channel)" in blocks
    assert "beyond" not in text
    assert "2 of 360 decisions changed" in text
    assert "McNemar p = 1" in text
    assert [cell.text for cell in blocks["Remarks"].below] == [
        "1 node stays in float32: Softmax.",
        "6 operators quantized.",
    ]
    slower = " ".join(cell.text for block in variant_blocks(found["int8-dynamic"], state) for cell in block.below)
    assert "slower than the original" in slower
    assert "Disturbed" in slower


def test_the_plot_has_the_variants_that_are_measured_by_size_or_by_what_they_lose() -> None:
    found = candidates(replay_state(run_events()), {**CHAINS, "later": STATIC})
    by_size, by_loss = ({each.name: each for each in points(found, dropping)} for dropping in (False, True))

    assert by_size.keys() == by_loss.keys() == {"original", "int8", "int8-dynamic"}
    assert by_size["int8"].mark == "chosen"
    assert by_loss["original"].x == 0.0
    assert by_loss["int8"].x_interval == (0.0, 0.00833)
    assert axes(found, False)[0].title == "size of the model file, MiB"
    assert axes(found, True)[0].title == "accuracy lost against the original"
    assert axes(found, True)[1].title == "p50 latency, ms"


def test_a_chain_in_words() -> None:
    assert chain_words(STATIC) == "quantize static (minmax, for each channel)"
    assert (
        chain_words([{"quantize": {"calibration": "percentile", "percentile": 99.9, "per_channel": False}}])
        == "quantize static (percentile 99.9, for each tensor)"
    )
    assert chain_words(None) == "the model as it came"


def test_settings_are_written_as_short_as_people_write_them() -> None:
    assert setting("choose", {"variant": "int8"}) == "choose={variant: int8}"
    chain = [{"quantize": quantization("static", "percentile", "99.9", False)}]
    assert setting("variants.x", chain) == (
        "variants.x=[{quantize: {to: int8, mode: static, calibration: percentile, percentile: 99.9, "
        "per_channel: false}}]"
    )
    assert quantization("dynamic", "percentile", "no number", True) == {"to": "int8", "mode": "dynamic"}
    assert setting("a", "no") == "a=no"
    assert setting("a", "8") == 'a="8"'
    with pytest.raises(ValueError, match="above 50"):
        quantization("static", "percentile", "nan", True)


class Stubbed:
    """Commands that are only said; ``edit`` and ``export`` answer as ``answer`` says."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.answer = Answer(0, "", "")
        self._others = answers(self.said)

    async def __call__(self, command: Command) -> Answer:
        if command.words[0] not in ("edit", "export"):
            return await self._others(command)
        self.said.append(str(command))
        if "--dry-run" in command.words:
            return Answer(0, "--- a/x\n+++ b/x\n@@ -1 +1 @@\n+  as it will be\n", "")
        return self.answer


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> Stubbed:
    stubbed = Stubbed()

    async def answer(self: Command) -> Answer:
        return await stubbed(self)

    monkeypatch.setattr(Command, "answer", answer)
    return stubbed


async def opened(pilot: Any, project: Path) -> CompressStage:
    """The stage of the recipe with a recorded run, once it shows it."""
    app = pilot.app
    await until(pilot, lambda: bool(app.screen.query_one("#runs", Rows).row_count))
    await app.open_recipe("recipes/digits.yaml")
    await until(pilot, lambda: isinstance(app.screen, WorkspaceScreen) and app.screen.view is not None)
    stage = app.screen.query_one(CompressStage)
    await until(pilot, lambda: stage.query_one("#variants", Rows).row_count == 4)
    return stage


@pytest.fixture
def project(tmp_path: Path) -> Path:
    record(run_events(), run_folder(tmp_path))
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes/digits.yaml").write_text(RECIPE)
    return tmp_path


def form(app: WorkbenchApp, kind: type[Dialog] = Dialog) -> Any:
    return app.screen if isinstance(app.screen, kind) else None


def command_shown(dialog: Dialog) -> str:
    return str(dialog.query_one("#form-command", Static).content)


def test_table_and_plot_have_one_cursor(project: Path, commands: Stubbed) -> None:
    app = WorkbenchApp(project)

    async def flow(pilot: Any) -> None:
        stage = await opened(pilot, project)
        plot = stage.query_one(ParetoView)
        await pilot.press("down")
        await until(pilot, lambda: "[int8]" in str(plot.content))
        assert str(stage.query_one("#variant-panel").border_title) == "int8  ◆ chosen"
        plot.focus()
        await pilot.press("right")
        await until(pilot, lambda: stage.at is not None and stage.at.name == "int8-dynamic")
        await until(pilot, lambda: "[int8-dynamic]" in str(plot.content))
        await pilot.press("m")
        await until(pilot, lambda: "accuracy lost" in str(plot.content))
        assert "later" in str(stage.query_one("#plot-panel").border_title), "what is not measured is named"

    drive(app, flow, (140, 40))


def test_where_it_is_narrow_a_key_goes_between_table_and_plot(project: Path, commands: Stubbed) -> None:
    app = WorkbenchApp(project)

    async def flow(pilot: Any) -> None:
        stage = await opened(pilot, project)
        table, plot = stage.query_one("#table-panel"), stage.query_one("#plot-panel")
        assert (table.display, plot.display) == (True, False)
        await pilot.press("v")
        await until(pilot, lambda: (table.display, plot.display) == (False, True))
        await until(pilot, lambda: "○" in str(stage.query_one(ParetoView).content))
        await pilot.press("left", "left")
        await until(pilot, lambda: stage.at is not None and stage.at.name == "int8")
        await pilot.press("v")
        await until(pilot, lambda: (table.display, plot.display) == (True, False))

    drive(app, flow, (80, 24))


def test_a_variant_is_added_in_a_form_that_shows_its_command_and_what_it_will_change(
    project: Path, commands: Stubbed
) -> None:
    app = WorkbenchApp(project)

    async def flow(pilot: Any) -> None:
        await opened(pilot, project)
        await pilot.press("a")
        await until(pilot, lambda: form(app, VariantForm) is not None and form(app).is_mounted)
        dialog = form(app)
        said = dialog.query_one("#form-said", Static)
        await until(pilot, lambda: "Give the variant a name" in str(said.content))
        name = dialog.query_one("#name", Input)
        name.value = "int8"
        await until(pilot, lambda: "already" in str(said.content))
        assert command_shown(dialog) == ""
        name.value = "tail"
        dialog.query_one("#calibration", Select).value = "percentile"
        await until(pilot, lambda: bool(dialog.query_one("#percentile-field").display))
        dialog.query_one("#percentile", Input).value = "12"
        await until(pilot, lambda: "above 50" in str(said.content))
        dialog.query_one("#percentile", Input).value = "99.9"
        await until(pilot, lambda: str(said.content) == "+  as it will be")
        wanted = (
            "workbench edit recipes/digits.yaml "
            "'variants.tail=[{quantize: {to: int8, mode: static, calibration: percentile, percentile: 99.9}}]'"
        )
        assert command_shown(dialog) == f"$ {wanted}"
        name.focus()
        await pilot.press("enter")
        await until(pilot, lambda: form(app) is None)
        assert wanted in commands.said
        assert f"$ {wanted}" in str(app.screen.query_one(CommandBar).query_one("#command", Static).content)

    drive(app, flow, (80, 24))


def test_what_an_edit_had_to_say_stands_in_the_form_which_stays(project: Path, commands: Stubbed) -> None:
    app = WorkbenchApp(project)
    commands.answer = Answer(2, "", "workbench: recipes/digits.yaml is not valid:\n  line 3: data.calibrate: missing")

    async def flow(pilot: Any) -> None:
        await opened(pilot, project)
        await pilot.press("down", "e")
        await until(pilot, lambda: form(app, VariantForm) is not None and form(app).is_mounted)
        dialog = form(app)
        dialog.query_one("#mode", Select).value = "dynamic"
        await until(pilot, lambda: "mode: dynamic" in command_shown(dialog))
        assert not dialog.query_one("#calibration-field").display
        await pilot.press("ctrl+s")
        await until(pilot, lambda: "data.calibrate: missing" in str(dialog.query_one("#form-said", Static).content))
        assert form(app) is dialog
        await pilot.press("escape")
        await until(pilot, lambda: form(app) is None)

    drive(app, flow)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (("down", "d"), "workbench edit recipes/digits.yaml --remove variants.int8"),
        (("down", "x"), "workbench edit recipes/digits.yaml 'choose={variant: int8}'"),
        (("X",), "workbench edit recipes/digits.yaml 'choose={minimize: p50}'"),
        (("down", "o"), "workbench export recipes/digits.yaml int8 -o digits-int8.onnx"),
    ],
)
def test_removing_choosing_and_exporting_are_confirmed_commands(
    project: Path, commands: Stubbed, keys: tuple[str, ...], said: str
) -> None:
    app = WorkbenchApp(project)

    async def flow(pilot: Any) -> None:
        await opened(pilot, project)
        await pilot.press(*keys)
        await until(pilot, lambda: form(app) is not None and form(app).is_mounted)
        dialog = form(app)
        await until(pilot, lambda: command_shown(dialog) == f"$ {said}")
        assert said not in commands.said, "nothing is done before it is confirmed"
        await pilot.press("ctrl+s")
        await until(pilot, lambda: form(app) is None)
        assert commands.said.count(said) == 1

    drive(app, flow)


def test_an_export_does_not_go_over_a_file_that_is_there(project: Path, commands: Stubbed) -> None:
    (project / "digits-original.onnx").touch()
    app = WorkbenchApp(project)

    async def flow(pilot: Any) -> None:
        await opened(pilot, project)
        await pilot.press("o")
        await until(pilot, lambda: form(app, ExportForm) is not None and form(app).is_mounted)
        await until(pilot, lambda: "is there already" in str(form(app).query_one("#form-said", Static).content))
        await pilot.press("ctrl+s", "escape")
        await until(pilot, lambda: form(app) is None)
        assert not [each for each in commands.said if "export" in each]

    drive(app, flow)


def test_the_original_can_be_neither_changed_nor_removed_and_the_app_says_why(project: Path, commands: Stubbed) -> None:
    app = WorkbenchApp(project)

    async def flow(pilot: Any) -> None:
        await opened(pilot, project)
        await pilot.press("d")
        await until(pilot, lambda: bool(app._notifications))
        assert "is the model as it came" in next(iter(app._notifications)).message
        assert form(app) is None

    drive(app, flow)


def test_a_changed_recipe_is_shown_at_once(project: Path, commands: Stubbed) -> None:
    app = WorkbenchApp(project)

    async def flow(pilot: Any) -> None:
        stage = await opened(pilot, project)
        await pilot.press("down", "x")
        await until(pilot, lambda: form(app) is not None and form(app).is_mounted)
        (project / "recipes/digits.yaml").write_text(RECIPE.replace("minimize: p50", "variant: int8"))
        await pilot.press("ctrl+s")
        await until(pilot, lambda: stage.query_one("#table-panel").border_subtitle == "chosen by hand: int8")

    drive(app, flow)
