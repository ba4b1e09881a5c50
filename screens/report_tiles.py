"""What came of a run at a glance: a few figures, each with what it rests on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from screens import present, words
from screens.blocks import Cell, Tone, cell
from screens.variants import Variant, variants
from screens.words import items, mapping, number, quantity
from workbench.events import RunState


@dataclass(frozen=True)
class Tile:
    """A figure under a label, and sentences on what it rests on."""

    label: str
    value: str
    basis: tuple[Cell, ...] = ()
    tone: Tone = ""


def tiles(state: RunState) -> Iterator[Tile]:
    """The chosen variant against the original, the image, and where it was pushed; what is not there is left out."""
    found = {each.name: each for each in variants(state)}
    chosen = next((each for each in found.values() if each.chosen), None)
    if chosen is not None:
        yield from _size(chosen, found.get("original"))
        yield from _latency(chosen)
        yield from _metric(chosen)
    yield from _image(state)


def _size(chosen: Variant, original: Variant | None) -> Iterator[Tile]:
    size, before = number(chosen.size), number(original.size) if original else None
    if size is None:
        return
    if chosen.name == "original" or not before:
        yield Tile("Model size", words.size(size), (cell(chosen.name),))
        return
    share = f"{size / before:.2f}× the original's {words.size(before)}"  # noqa: RUF001
    yield Tile("Model size", words.size(size), (cell(f"{chosen.name}, {share}"),), "good" if size < before else "bad")


def _latency(chosen: Variant) -> Iterator[Tile]:
    latency, own = chosen.latency, chosen.percentiles
    if not own:
        return
    median = words.latency(own.get("p50_ns"), own.get("p50_interval_ns"))
    if chosen.name == "original" or number(latency.get("ratio")) is None:
        value, _, around = median.partition("\n")
        yield Tile("Median latency", value, (cell(around), *_conditions(chosen)))
        return
    value, _, around = words.measured(latency.get("ratio"), latency.get("ratio_interval")).partition("\n")
    verdict = str(latency.get("verdict", "no verdict"))
    tone = present.VERDICT_TONES.get(verdict, "")
    basis = (cell(f"{around or '(no interval)'} of the original's, {verdict}"), cell(f"p50 {_beside(median)}"))
    yield Tile("Median latency", f"{value}×", (*basis, *_conditions(chosen)), tone)  # noqa: RUF001


def _conditions(chosen: Variant) -> Iterator[Cell]:
    conditions, pairs = mapping(chosen.latency, "conditions"), number(chosen.latency.get("pairs"))
    threads, queries = number(conditions.get("threads")), number(chosen.percentiles.get("queries"))
    said = ["in process", "threads unknown" if threads is None else quantity(int(threads), "thread")]
    said += [quantity(int(queries), "query", "queries")] if queries is not None else []
    said += [quantity(int(pairs), "pair") + " of processes"] if pairs is not None else []
    yield cell(", ".join(said))
    if conditions.get("disturbed"):
        yield cell(conditions.get("sentence", words.DISTURBED), "warn")


def _metric(chosen: Variant) -> Iterator[Tile]:
    metric = mapping(chosen.evaluate, "metric")
    if not metric:
        return
    name, samples = str(metric.get("name", "metric")), words.count(chosen.evaluate.get("samples"))
    own = _beside(words.measured(metric.get("value"), metric.get("interval")))
    changed = present.change(chosen)
    if changed.text == words.ABSENT:
        yield Tile(f"{name} of {chosen.name}", own.partition(" ")[0], (cell(f"{own} over {samples} samples"),))
        return
    value, *rest = changed.text.split("\n")
    basis = (cell(f"{', '.join(rest)}"), cell(f"now {own}"), cell(f"over {samples} samples"))
    yield Tile(f"Change in {name}", value, basis, changed.tone)


def _image(state: RunState) -> Iterator[Tile]:
    values = state.steps["image"].values if "image" in state.steps else {}
    if number(values.get("size")) is None:
        return
    layers = quantity(len(items(values, "layers")), "layer")
    basis = [cell(f"compressed, {words.size(values.get('uncompressed'))} unpacked, {layers}")]
    basis.append(cell(f"config {words.short(values.get('config'))}"))
    pushed = next((step.values for step in state.steps.values() if step.kind == "push" and step.values), {})
    if pushed.get("reference"):
        basis.append(cell(f"pushed to {pushed['reference']}"))
    yield Tile("Image", words.size(values.get("size")), tuple(basis))


def _beside(text: str) -> str:
    return " ".join(text.split())
