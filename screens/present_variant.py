"""Everything that is known of one variant, as blocks: its chain, its gates and why, its figures, remarks."""

from __future__ import annotations

from collections.abc import Iterator

from screens import words
from screens.blocks import Block, Cell, cell, row
from screens.candidates import Candidate, chain_words
from screens.present import GATE_TONES, basis, change
from screens.words import ABSENT, items, mapping, number, part, quantity
from workbench.events import RunState

_GLYPHS = {"holds": "✓ holds", "fails": "✗ fails", "undecided": "? undecided"}


def variant_blocks(found: Candidate, state: RunState | None) -> Iterator[Block]:
    """The variant in detail; what is not known yet is left out."""
    known = found.chain is not None or found.name == "original"
    yield Block(
        chain_words(found.chain) if known else "not in the recipe as it is now", below=tuple(_said(found, state))
    )
    yield from _gates(found)
    yield from _compared(found)
    yield from _remarks(found)


def _said(found: Candidate, state: RunState | None) -> Iterator[Cell]:
    """Sentences on how it stands: the error, why it was chosen, what the recipe has otherwise."""
    for step in found.steps:
        error = mapping(step.error)
        yield from (cell(error[key], tone) for key, tone in (("message", "bad"), ("cure", "")) if error.get(key))  # type: ignore[arg-type]
    choice = state.steps["choose"].values if state and "choose" in state.steps else {}
    if found.variant.chosen and choice.get("why"):
        yield cell(f"Chosen: {choice['why']}.")
    if choice.get("closest") == found.name:
        yield cell("No variant keeps every gate; this one is the closest.", "warn")
    if choice and choice.get("today") == found.name and not found.variant.chosen:
        yield cell("Today's figures would choose it.", "warn")
    if found.changed:
        yield cell("The figures are of the variant as it was; r makes it as the recipe has it now.", "warn")
    elif found.chain is not None and not found.steps:
        yield cell("It is in the recipe and in no run yet; r makes it.")


def _gates(found: Candidate) -> Iterator[Block]:
    rows = tuple(
        row(
            part(gate, "gate"),
            Cell(_GLYPHS.get(state, words.safe(state)), GATE_TONES.get(state, "")),
            Cell(words.safe(f"{part(gate, 'value') or ABSENT}\n{part(gate, 'limit') or 'limit unknown'}")),
            part(gate, "why") or ABSENT,
        )
        for gate in found.variant.gates
        for state in [str(part(gate, "state"))]
    )
    if rows:
        yield Block("Gates", ("gate", "state", "value, limit", "why"), rows)


def _compared(found: Candidate) -> Iterator[Block]:
    """Metric and latency, with what they rest on."""
    evaluate, latency, own = found.variant.evaluate, found.variant.latency, found.variant.percentiles
    compare, metric = mapping(evaluate, "compare"), mapping(evaluate, "metric")
    rows = []
    if metric:
        value = words.measured(metric.get("value"), metric.get("interval"))
        rows.append(
            row(metric.get("name", "metric"), _beside(value), f"{words.count(evaluate.get('samples'))} samples")
        )
    if compare:
        rows.append(row("change to original", Cell(_beside(change(found.variant).text)), basis(found.variant)))
    for level in ("p50", "p95", "p99"):
        if own:
            taken = own.get(f"{level}_ns")
            said = "not enough samples" if taken is None else words.latency(taken, own.get(f"{level}_interval_ns"))
            rows.append(row(f"{level} in process", _beside(said), ""))
    if found.name != "original" and number(latency.get("ratio")) is not None:
        ratio = words.measured(latency.get("ratio"), latency.get("ratio_interval"))
        rows.append(row("ratio to original", _beside(ratio), latency.get("verdict", "")))
    if rows:
        yield Block("Figures", rows=tuple(rows), below=tuple(_conditions(found)))


def _beside(text: str) -> str:
    return " ".join(text.split())


def _conditions(found: Candidate) -> Iterator[Cell]:
    conditions, latency = mapping(found.variant.latency, "conditions"), found.variant.latency
    if not latency:
        return
    threads, pairs = number(conditions.get("threads")), number(latency.get("pairs"))
    said = [quantity(int(threads), "thread") if threads is not None else "threads unknown"]
    if pairs is not None:
        said.append(f"{quantity(int(pairs), 'pair')} of fresh processes")
    yield Cell(f"{'; '.join(said)}; 95% intervals.", "dim")
    if conditions.get("disturbed"):
        yield cell(conditions.get("sentence", words.DISTURBED), "warn")


def _remarks(found: Candidate) -> Iterator[Block]:
    """What is to be said of it, and what its quantization noted."""
    said = [cell(remark, "warn") for remark in found.variant.remarks]
    said += [cell(note) for step in found.steps for note in items(step.values, "notes") if isinstance(note, str)]
    made = next((step.values for step in found.steps if step.kind == "quantize" and step.values), {})
    if (nodes := number(made.get("quantized_nodes"))) is not None:
        said.append(Cell(f"{quantity(int(nodes), 'operator')} quantized.", "dim"))
    if said:
        yield Block("Remarks", below=tuple(said))
