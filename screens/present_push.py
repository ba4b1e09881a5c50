"""A push as it goes and what came of it: each blob, where it all is, what is attached, and how others get it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping

from screens import words
from screens.blocks import Block, Cell, Tone, cell, row
from screens.present import pushed
from screens.progress import GLYPHS
from screens.words import items, mapping, number
from workbench.events import RunState, StepState

PARTS = ("blob", "size", "state", "")

_STATES: Mapping[str, tuple[str, Tone]] = {
    "waiting": (f"{GLYPHS['waiting'][0]} waiting", "dim"),
    "sent": ("✓ sent", "good"),
    "there": ("↻ there already", "good"),
    "mounted": ("↻ mounted from another repository", "good"),
}
_PART = re.compile(r"(config|layer \d+ of \d+) (\S+)(?:, |$)")
_BAR = 20
_ATTACHED = {
    "sbom": "what is in it (CycloneDX)",
    "provenance": "how it came about (in-toto)",
    "recipe": "recipe and lock",
}


def push_step(state: RunState, kind: str = "push") -> StepState | None:
    """The step of a run that pushes (or attaches)."""
    return next((step for step in state.steps.values() if step.kind == kind), None)


def part_rows(state: RunState) -> dict[str, tuple[Cell, ...]]:
    """Each blob of the image: its size, and whether it is waiting, on its way, sent, or was there already."""
    step = push_step(state)
    image = state.steps.get("image")
    layers = [mapping(layer) for layer in items(image.values, "layers")] if image is not None else []
    ended = {str(part.get("what")): mapping(part) for part in map(mapping, items(step and step.values, "parts"))}
    under_way = dict(_PART.findall(step.text)) if step is not None and not ended else {}
    names = list(ended) or list(under_way) or [f"layer {at} of {len(layers)}" for at in range(1, len(layers) + 1)]
    if step is not None and step.status in ("done", "reused") and not ended:
        return {}  # a run of before this was written down
    return {name: _part_row(name, layers, ended.get(name, {}), under_way.get(name, "")) for name in names}


def _part_row(name: str, layers: list[Mapping[str, object]], part: Mapping[str, object], said: str) -> tuple[Cell, ...]:
    at = int(name.split()[1]) - 1 if name.startswith("layer ") else -1
    layer = layers[at] if 0 <= at < len(layers) else {}
    state = str(part.get("state") or said or "waiting")
    shown, tone = _STATES.get(state, (f"● {state}", "strong"))
    done = number(int(state[:-1])) if state.endswith("%") and state[:-1].isdigit() else None
    filled = round(min(done or 0, 100) * _BAR / 100)
    bar = "█" * filled + "░" * (_BAR - filled) if done is not None else ""
    label = f"{layer['name']}  ({name})" if layer.get("name") else name
    return cell(label), Cell(words.size(part.get("size", layer.get("size")))), Cell(shown, tone), Cell(bar)


def push_blocks(state: RunState) -> Iterator[Block]:
    """Where the image is, what is attached, and the commands that get and check it; or why it is not there."""
    step = push_step(state)
    if step is None:
        said = "This recipe pushes nowhere. It does with a line such as  push: {to: registry.example.com/team/name:1.0}"
        yield Block("", below=(cell(said),))
        return
    error = mapping(step.error)
    if error:
        told = (cell(error.get("message", ""), "bad"), cell(error.get("cure", "")))
        yield Block("Not pushed", below=tuple(each for each in told if each.text))
    if not step.values:
        return
    yield from pushed(state)
    yield from _attached(push_step(state, "attach"))
    yield Block("To get and to check it", below=tuple(cell(f"{what}:\n{said}") for what, said in commands(step)))


def _attached(step: StepState | None) -> Iterator[Block]:
    if step is None or not step.values:
        return
    rows = [row(name, what, words.short(step.values[name])) for name, what in _ATTACHED.items() if name in step.values]
    signed = number(step.values.get("signed")) or 0
    said = f"{words.count(signed)} signatures made" if signed else "not signed in this run; see: workbench sign"
    yield Block("Attached", (), tuple(rows), (Cell(said, "dim"),))


def commands(step: StepState) -> Iterator[tuple[str, str]]:
    """What one does with a pushed image, each with its command."""
    by_digest = str(step.values.get("by_digest") or "")
    if not by_digest:
        return
    if not by_digest.startswith("oci:"):
        yield "pull", shlex.join(["docker", "pull", by_digest])
    yield "verify", shlex.join(["workbench", "verify", by_digest])
    yield "get the recipe back", shlex.join(["workbench", "pull-recipe", by_digest])
