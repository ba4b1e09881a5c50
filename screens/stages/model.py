"""The model of a recipe: signature, operators, parameters, FLOPs and weight by layer."""

from __future__ import annotations

from textual import work
from textual.app import ComposeResult
from textual.containers import VerticalScroll

from screens.block_view import Blocks
from screens.blocks import Block, cell
from screens.command import Command
from screens.inspect import model_blocks
from screens.stage import Stage
from screens.words import mapping, part
from workbench.document import read
from workbench.errors import WorkbenchError


class ModelStage(Stage):
    """What ``workbench inspect`` finds in the recipe's model."""

    def compose(self) -> ComposeResult:
        with VerticalScroll(classes="panel"):
            yield Blocks(id="model-blocks")

    @work(exclusive=True)
    async def look(self) -> None:
        """Inspects the model that the recipe names."""
        try:
            source = part(read(self.project / self.recipe).data, "model", "source")
        except WorkbenchError as error:
            self._say(error.message)
            return
        if not isinstance(source, str):
            self._say("The model lies elsewhere, by its digest; a run brings it here.")
            return
        answer = await Command(("inspect", source, "--json"), self.project).answer()
        if answer.exit_code:
            self._say(answer.stderr.strip())
        else:
            self.query_one(Blocks).show(model_blocks(mapping(answer.json())))

    def _say(self, text: str) -> None:
        self.query_one(Blocks).show([Block("", below=(cell(text),))])
