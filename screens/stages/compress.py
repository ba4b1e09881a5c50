"""The variants of a recipe: a table that fills while they are made, a plot to walk in, forms to change them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.events import Resize
from textual.widgets import DataTable

from screens.block_view import Blocks
from screens.blocks import Block, cell
from screens.candidates import Candidate, axes, candidates, head, points, rows, standing
from screens.command_bar import CommandBar
from screens.dialog import Carried, Dialog
from screens.pareto import LEGEND
from screens.pareto_view import ParetoView
from screens.present_variant import variant_blocks
from screens.stage import Stage
from screens.table import Rows
from screens.variant_forms import ChooseForm, ExportForm, RemoveForm, VariantForm
from screens.view import RunView
from screens.words import mapping, safe
from workbench.document import read
from workbench.errors import WorkbenchError

_UNMEASURED = "Nothing is measured yet. Press r to run the recipe."


_VARIANT = Binding.Group("Variant")


class CompressStage(Stage):
    """The variants of a recipe, in the recipe and in the run on the screen."""

    BINDINGS = [
        Binding("a", "add", "Add", id="compress.add", tooltip="add a variant to the recipe", group=_VARIANT),
        Binding(
            "e,enter",
            "change",
            "Edit",
            id="compress.edit",
            tooltip="change the variant under the cursor",
            group=_VARIANT,
        ),
        Binding(
            "d", "remove", "Remove", id="compress.remove", tooltip="remove the variant under the cursor", group=_VARIANT
        ),
        Binding("x", "choose", "Choose", id="compress.choose", tooltip="choose the variant under the cursor by hand"),
        Binding("X", "aim", "Aim", id="compress.aim", tooltip="choose by p50, p99, size or metric drop", show=False),
        Binding("o", "export", "Export", id="compress.export", tooltip="give the variant out as a file", show=False),
        Binding("v", "switch", "Plot", id="compress.view", tooltip="table or plot; both or the table where wide"),
        Binding("m", "turn", "Axes", id="compress.axes", tooltip="size or metric drop across the plot", show=False),
    ]
    SCOPED_CSS = False  # what is wide or narrow is the screen
    DEFAULT_CSS = """
    CompressStage {
        #variants-panels { height: auto; max-height: 65%; }
        #table-panel { width: 4fr; height: auto; }
        #plot-panel { width: 3fr; display: none; }
        #variant-panel { height: 1fr; }
        #variants { height: auto; max-height: 100%; }
    }
    CompressStage.-switched {
        #variants-panels { height: 65%; }
        #plot-panel { display: block; }
        #table-panel { display: none; }
    }
    .-wide CompressStage {
        #variants-panels { height: 60%; max-height: 60%; }
        #table-panel { height: 1fr; }
        #plot-panel { display: block; }
    }
    .-wide CompressStage.-switched {
        #plot-panel { display: none; }
        #table-panel { display: block; }
    }
    """

    def __init__(self, project: Path, recipe: str, *, id: str) -> None:  # noqa: A002
        super().__init__(project, recipe, id=id)
        self._view: RunView | None = None
        self._recipe_data: Mapping[str, Any] = {}
        self._found: list[Candidate] = []
        self._dropping = False
        self._problem = ""

    def compose(self) -> ComposeResult:
        with Horizontal(id="variants-panels"):
            with Vertical(classes="panel", id="table-panel") as table:
                table.border_title = "Variants"
                yield Rows((), id="variants", lines=2)
            with Vertical(classes="panel", id="plot-panel") as plot:
                plot.border_subtitle = LEGEND
                yield ParetoView(id="plot")
        with VerticalScroll(classes="panel", id="variant-panel"):
            yield Blocks(id="variant-blocks")

    def look(self) -> None:
        """Reads what the recipe has now: variants that no run has made yet are shown, too."""
        try:
            self._recipe_data, self._problem = read(self.project / self.recipe).data, ""
        except WorkbenchError as error:
            self._recipe_data, self._problem = {}, error.message
        self._show()

    def show(self, view: RunView | None) -> None:
        self._view = view
        self._show()

    @property
    def at(self) -> Candidate | None:
        """The variant under the cursor."""
        name = self.query_one("#variants", Rows).key_at_cursor
        return next((each for each in self._found if each.name == name), None)

    def _show(self) -> None:
        state = self._view.state if self._view else None
        self._found = candidates(state, mapping(self._recipe_data, "variants"))
        table = self.query_one("#variants", Rows)
        width = table.size.width or self.size.width
        table.head(head(self._found, width))
        table.show(rows(self._found, width))
        self.query_one("#table-panel").border_subtitle = self._chosen_by()
        self._show_cursor()

    def _show_cursor(self) -> None:
        """The plot and the details of the variant under the cursor."""
        found = self.at
        name = safe(found.name) if found else ""
        shown = points(self._found, self._dropping)
        self.query_one(ParetoView).show(shown, *axes(self._found, self._dropping), name, _UNMEASURED)
        left = [safe(each.name) for each in self._found if safe(each.name) not in {point.name for point in shown}]
        plot = self.query_one("#plot-panel")
        plot.border_title = f"p50 by {'metric drop' if self._dropping else 'size'}"
        if left and shown:
            plot.border_title += f" (not measured: {', '.join(left)})"
        blocks = [*variant_blocks(found, self._view.state if self._view else None)] if found else []
        problem = [Block("", below=(cell(self._problem, "bad"),))] if self._problem else []
        self.query_one("#variant-blocks", Blocks).show([*problem, *blocks])
        self.query_one("#variant-panel").border_title = f"{name}  {standing(found).text}" if found else ""

    def _chosen_by(self) -> str:
        """How the recipe has one chosen."""
        choose = mapping(self._recipe_data, "choose")
        if choose.get("variant"):
            return safe(f"chosen by hand: {choose['variant']}")
        return safe(f"chosen by least {choose.get('minimize', 'p50')}")

    def on_resize(self, _: Resize) -> None:
        self.call_after_refresh(self._show)

    @on(DataTable.RowHighlighted, "#variants")
    def _moved(self) -> None:
        self._show_cursor()

    @on(ParetoView.Walked)
    def _walked(self, message: ParetoView.Walked) -> None:
        names = [safe(each.name) for each in self._found]
        self.query_one("#variants", Rows).move_cursor(row=names.index(message.name), animate=False)

    @on(DataTable.RowSelected, "#variants")
    def _selected(self, event: DataTable.RowSelected) -> None:
        event.stop()
        self.action_change()

    def action_switch(self) -> None:
        """Table or plot where there is room for one; both, or the table with all columns, where there is room."""
        self.toggle_class("-switched")
        first = "#variants" if self.query_one("#table-panel").display else "#plot"
        self.query_one(first).focus()
        self.call_after_refresh(self._show)

    def action_turn(self) -> None:
        self._dropping = not self._dropping
        self._show_cursor()

    def action_add(self) -> None:
        self._ask(VariantForm(self.project, self.recipe, [each.name for each in self._found]))

    def action_change(self) -> None:
        found = self._in_recipe("changed")
        if found is None or found.chain is None:
            return
        if len(found.chain) == 1 and mapping(found.chain[0], "quantize"):
            self._ask(VariantForm(self.project, self.recipe, (), found.name, found.chain))
        else:
            self._refuse("Its chain is longer than this form; change it in the recipe (key 6).")

    def action_remove(self) -> None:
        if (found := self._in_recipe("removed")) is not None:
            self._ask(RemoveForm(self.project, self.recipe, found.name))

    def action_choose(self) -> None:
        if (found := self.at) is not None:
            self._choose(found.name)

    def action_aim(self) -> None:
        self._choose("")

    def action_export(self) -> None:
        if (found := self.at) is not None:
            self._ask(ExportForm(self.project, self.recipe, found.name))

    def _choose(self, hand: str) -> None:
        names = [each.name for each in self._found if each.chain is not None or each.name == "original"]
        self._ask(ChooseForm(self.project, self.recipe, names, mapping(self._recipe_data, "choose"), hand))

    def _in_recipe(self, done: str) -> Candidate | None:
        """The variant under the cursor if the recipe has it; else it is said why it cannot be ``done``."""
        found = self.at
        if found is not None and found.chain is not None:
            return found
        if found is not None:
            why = "is the model as it came" if found.name == "original" else "is not in the recipe"
            self._refuse(f"{safe(found.name)} {why}; it cannot be {done}.")
        return None

    def _refuse(self, sentence: str) -> None:
        self.notify(sentence, severity="warning", markup=False)

    def _ask(self, form: Dialog) -> None:
        self.app.push_screen(form, self._answered)

    def _answered(self, carried: Carried | None) -> None:
        """Shows the command that a form came to, and what is different now."""
        if carried is not None:
            self.screen.query_one(CommandBar).show(carried.command, carried.answer)
            self.look()
