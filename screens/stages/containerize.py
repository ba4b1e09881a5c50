"""The image of a recipe: its Dockerfile, the build as it goes, its layers with what is in them, and what changed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from textual import work
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal, Vertical, VerticalScroll

from screens.block_view import Blocks, unsaid
from screens.blocks import Block, cell
from screens.code import dockerfile_spans
from screens.code_area import CodeArea
from screens.command import Command
from screens.image import image_blocks
from screens.log_panel import LogPanel
from screens.present import image, parity
from screens.stage import STAGES, steps_of
from screens.steps_stage import STEPS, StepsStage
from screens.table import Rows
from screens.view import RunView
from screens.views import Views
from screens.words import safe
from workbench.events import StepState

VIEWS = {"layers": "Layers", "dockerfile": "Dockerfile", "logs": "Build log", "contents": "Contents"}
_KIND = next(kind for kind in STAGES if kind.id == "containerize")
_NONE = Block("", below=(cell("No image has been built yet. Press r to run the recipe."),))


def summary(view: RunView | None, found: Mapping[str, Any] | None) -> Iterator[Block]:
    """The layers of the run's image and its parity; then what changed against the image before, where that is known."""
    built = [] if view is None else [*image(view.state), *parity(view.state)]
    yield from built or [_NONE]
    if found:
        yield from (block for block in image_blocks(found) if block.title.startswith("Changed"))


class ContainerizeStage(StepsStage):
    """The image of a recipe."""

    BINDINGS = [
        Binding("l", "go('layers')", "Layers", id="image.layers", tooltip="the layers, and what changed", show=False),
        Binding("d", "go('dockerfile')", "Dockerfile", id="image.dockerfile", tooltip="as it will be", show=False),
        Binding("b", "go('logs')", "Build log", id="image.log", tooltip="the output of a step", show=False),
        Binding("i", "go('contents')", "Contents", id="image.contents", tooltip="files in the layers", show=False),
    ]
    SCOPED_CSS = False  # what is wide or narrow is the screen
    DEFAULT_CSS = """
    ContainerizeStage {
        #panels { height: 1fr; layout: vertical; }
        #steps-panel { height: auto; max-height: 35%; width: 1fr; }
        #steps { height: auto; max-height: 100%; }
        Views { height: 1fr; width: 1fr; }
    }
    .-wide ContainerizeStage {
        #panels { layout: horizontal; }
        #steps-panel { width: 2fr; height: 1fr; max-height: 100%; }
        Views { width: 4fr; height: 1fr; }
    }
    """

    def __init__(self, project: Path, recipe: str, *, id: str) -> None:  # noqa: A002
        super().__init__(project, recipe, id=id)
        self._found: Mapping[str, Any] | None = None

    def compose(self) -> ComposeResult:
        with Horizontal(id="panels"):
            with Vertical(classes="panel", id="steps-panel") as steps:
                steps.border_title = "Build"
                yield Rows(STEPS, id="steps")
            yield Views(
                VIEWS,
                VerticalScroll(Blocks(id="layers-blocks"), id="layers"),
                Vertical(
                    CodeArea(dockerfile_spans, id="dockerfile-text"), Blocks(id="dockerfile-said"), id="dockerfile"
                ),
                LogPanel(id="logs"),
                VerticalScroll(Blocks(id="contents-blocks"), id="contents"),
                id="views",
            )

    def look(self) -> None:
        self.ask_for_dockerfile()
        self.ask_for_contents()

    @work(exclusive=True, group="dockerfile")
    async def ask_for_dockerfile(self) -> None:
        """Asks for the Dockerfile as it would be built now."""
        answer = await Command(("dockerfile", self.recipe), self.project).answer()
        failed = bool(answer.exit_code)
        text, said = self.query_one(CodeArea), self.query_one("#dockerfile-said", Blocks)
        text.display, said.display = not failed, failed
        text.show("\n".join(map(safe, answer.stdout.splitlines())))
        said.show([unsaid(answer)] if failed else [])

    @work(exclusive=True, group="contents")
    async def ask_for_contents(self) -> None:
        """Asks what is in the layers of the last image, and what changed against the one before."""
        answer = await Command(("image", self.recipe, "--json"), self.project).answer()
        found = answer.json() if not answer.exit_code else None
        self._found = found if isinstance(found, dict) else None
        blocks = [*image_blocks(self._found)] if self._found else [unsaid(answer)]
        self.query_one("#contents-blocks", Blocks).show(blocks)
        self._show_layers()

    def steps(self, view: RunView) -> list[StepState]:
        return list(steps_of(_KIND, view))

    def show(self, view: RunView | None) -> None:
        """Shows the build; its log comes up when it begins, or failed, and nothing else was chosen."""
        before = [] if self._view is None else [step.status for step in self.steps(self._view)]
        super().show(view)
        now = [] if view is None else [step.status for step in self.steps(view)]
        self.query_one("#steps-panel").display = bool(now)
        views = self.query_one(Views)
        for status in ("running", "failed"):
            if status in now and status not in before and views.shown == "layers":
                views.go("logs")
        self._show_layers()

    def _show_layers(self) -> None:
        self.query_one("#layers-blocks", Blocks).show(summary(self._view, self._found))

    def action_go(self, view: str) -> None:
        self.query_one(Views).go(view)

    def copyable(self) -> str:
        """The Dockerfile, while it is on the screen."""
        return self.query_one(CodeArea).text if self.query_one(Views).shown == "dockerfile" else ""
