"""What all stages of a recipe's workspace have in common, and which stages there are."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from textual.containers import Vertical
from textual.message import Message

from screens.blocks import Tone
from screens.command import Command
from screens.progress import GLYPHS
from screens.view import RunView
from workbench.events import StepState


class Say(Message):
    """A command that the app is to carry out: the words after ``workbench``. It goes on when the screen is left."""

    def __init__(self, *words: str) -> None:
        super().__init__()
        self.words = words


class Written(Message):
    """A recipe that was written, and is to be opened: its path in the project, and the command that wrote it."""

    def __init__(self, recipe: str, command: Command) -> None:
        super().__init__()
        self.recipe = recipe
        self.command = command


class Copied(Message):
    """A text that the app is to copy."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text


class Stage(Vertical):
    """One stage of the recipe at ``recipe`` (relative to the folder ``project``).

    Only the stage on the screen is told what is new. It reads the run from what it is shown, asks for what else it
    needs by commands (screens.command), and posts :class:`Say` for what is to be done.
    """

    def __init__(self, project: Path, recipe: str, *, id: str) -> None:  # noqa: A002
        super().__init__(id=id)
        self.project = project
        self.recipe = recipe

    def look(self) -> object:
        """Asks for what does not come with a run; called when first shown, after a command, and when a run ended."""

    def show(self, view: RunView | None) -> None:
        """Shows the run as it stands; None where the recipe has never run."""

    @property
    def unsaved(self) -> bool:
        """Whether the stage has something that is not saved and would be lost with it."""
        return False

    def save(self) -> bool:
        """Saves what is unsaved; False where it could not be, which the stage tells."""
        return True

    def discard(self) -> None:
        """Forgets what is unsaved: the stage is about to go."""

    def copyable(self) -> str:
        """What of this stage one may want elsewhere, such as a reference; "" for the command on the screen."""
        return ""


@dataclass(frozen=True)
class StageKind:
    """A stage by name: its title, the kinds of steps that are its part of a run, and the module and class it is."""

    id: str
    title: str
    kinds: frozenset[str]
    place: str

    def make(self, project: Path, recipe: str) -> Stage:
        """The stage's widget; its module is loaded only now."""
        module, name = self.place.split(":")
        found: Stage = getattr(importlib.import_module(f"screens.stages.{module}"), name)(project, recipe, id=self.id)
        return found


STAGES = (
    StageKind("model", "Model", frozenset({"model", "data"}), "model:ModelStage"),
    StageKind(
        "compress", "Compress", frozenset({"quantize", "evaluate", "latency", "choose"}), "compress:CompressStage"
    ),
    StageKind(
        "containerize",
        "Containerize",
        frozenset(
            {
                "base-resolve",
                "base",
                "wheels-resolve",
                "wheels",
                "server-layer",
                "bytecode-layer",
                "model-layer",
                "image",
                "docker-build",
                "sbom",
                "parity",
                "secrets",
            }
        ),
        "containerize:ContainerizeStage",
    ),
    StageKind("benchmark", "Benchmark", frozenset({"benchmark", "gates"}), "benchmark:BenchmarkStage"),
    StageKind("push", "Push", frozenset({"push", "attach"}), "push:PushStage"),
    StageKind("recipe", "Recipe", frozenset(), "recipe:RecipeStage"),
    StageKind("run", "Run", frozenset(), "run:RunStage"),
)
"""The stages in the order of the work; the keys 1 to 7 go to them."""


def steps_of(kind: StageKind, view: RunView) -> Iterator[StepState]:
    """The steps of a run that are a stage's part."""
    return (step for step in view.state.steps.values() if step.kind in kind.kinds)


def mark(kind: StageKind, view: RunView | None) -> tuple[str, Tone]:
    """How a stage stands in a run: the glyph of its most telling step."""
    if view is None:
        return "", ""
    if kind.id == "run":
        return GLYPHS["failed" if view.state.status == "died" else view.state.status]
    if kind.id == "recipe":
        return GLYPHS["done"] if view.state.lock else ("", "")
    found = {step.status for step in steps_of(kind, view)}
    for status in ("failed", "running", "cancelled", "skipped"):
        if status in found:
            return GLYPHS[status]
    if "waiting" in found:
        return GLYPHS["running" if found - {"waiting"} and view.live else "waiting"]
    if not found:
        return "", ""
    return GLYPHS["reused" if found == {"reused"} else "done"]
