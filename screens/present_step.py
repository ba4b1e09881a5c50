"""One step of a run as blocks: how it stands, whether it was made or reused and of what, what it said."""

from __future__ import annotations

from collections.abc import Iterator

from screens import words
from screens.blocks import Block, Cell, cell, row
from screens.progress import GLYPHS
from screens.words import mapping
from workbench.events import StepState

_SAID = {
    "waiting": "It waits for the steps before it.",
    "running": "It is at work.",
    "done": "It was made in this run.",
    "reused": "Reused from the store: everything it is made of is as it was, so its key is, too.",
    "failed": "It could not do its work.",
    "cancelled": "It was stopped; nothing of it is kept.",
    "skipped": "The run ended before its turn.",
}


def step_blocks(step: StepState, now: float) -> Iterator[Block]:
    """Everything that a run has on one of its steps."""
    glyph, tone = GLYPHS.get(step.status, ("?", ""))
    taken = now - step.started if step.status == "running" else step.seconds
    facts = [row("state", Cell(f"{glyph} {step.status}", tone)), row("kind", step.kind)]
    if taken and step.status not in ("waiting", "skipped", "reused"):
        facts.append(row("time", words.clock(taken)))
    if step.key:
        facts.append(row("key", step.key))
    said = [cell(_SAID.get(step.status, ""), "dim"), *(cell(f"Note: {note}") for note in step.notes)]
    yield Block(words.safe(step.id), rows=tuple(facts), below=tuple(said))
    yield from _error(step)
    if step.files:
        rows = tuple(
            row(name, words.size(file.get("size")), words.short(file.get("digest")))
            for name, file in sorted(step.files.items())
        )
        yield Block("Made", ("file", "size", "content"), rows, right=frozenset({1}))
    if step.ingredients:
        yield Block("Made of", rows=tuple(row(name, words.short(of)) for name, of in sorted(step.ingredients.items())))


def _error(step: StepState) -> Iterator[Block]:
    error = mapping(step.error)
    if error:
        told = (cell(error.get("message", ""), "bad"), cell(error.get("cure", "")))
        yield Block("What went wrong", below=tuple(each for each in told if each.text))
