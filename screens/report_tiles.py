"""What came of a run at a glance: a few figures, each with what it rests on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from screens import words
from screens.blocks import Tone
from screens.present import change
from screens.variants import Variant, variants
from screens.words import items, mapping, number, part, quantity
from workbench.events import RunState


@dataclass(frozen=True)
class Tile:
    """A figure under a label, and sentences on what it rests on."""

    label: str
    value: str
    basis: tuple[str, ...] = ()
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
        yield Tile("Model size", words.size(size), (f"{chosen.name}",))
        return
    times = f"{size / before:.2f}× the original's {words.size(before)}"  # noqa: RUF001
    yield Tile("Model size", words.size(size), (times,), "good" if size < before else "bad")


def _latency(chosen: Variant) -> Iterator[Tile]:
    latency, own = chosen.latency, chosen.percentiles
    verdict = str(latency.get("verdict", ""))
    basis = f"p50 {_beside(words.latency(own.get('p50_ns'), own.get('p50_interval_ns')))}"
    held = [basis, _conditions(chosen)] if own else []
    if number(latency.get("ratio")) is None:
        if own:
            value, _, around = words.latency(own.get("p50_ns"), own.get("p50_interval_ns")).partition("\n")
            yield Tile("Median latency", value, (around, _conditions(chosen)))
        return
    value, _, around = words.measured(latency.get("ratio"), latency.get("ratio_interval")).partition("\n")
    tones: dict[str, Tone] = {"faster": "good", "slower": "bad"}
    told = f"the original's: {verdict}" if verdict else "the original's"
    yield Tile(
        "Median latency",
        f"{value}×",  # noqa: RUF001
        (f"{around or '(no interval)'} of {told}", *held),
        tones.get(verdict, ""),
    )


def _conditions(chosen: Variant) -> str:
    conditions, pairs = mapping(chosen.latency, "conditions"), number(chosen.latency.get("pairs"))
    threads, queries = number(conditions.get("threads")), number(chosen.percentiles.get("queries"))
    said = ["in process"]
    said += [f"{words.count(queries)} queries"] if queries is not None else []
    said += [quantity(int(pairs), "pair") + " of processes"] if pairs is not None else []
    said += [quantity(int(threads), "thread")] if threads is not None else []
    said += ["disturbed"] if conditions.get("disturbed") else []
    return ", ".join(said)


def _metric(chosen: Variant) -> Iterator[Tile]:
    metric = mapping(chosen.evaluate, "metric")
    if not metric:
        return
    name, samples = str(metric.get("name", "metric")), words.count(chosen.evaluate.get("samples"))
    own = f"{name} {_beside(words.measured(metric.get('value'), metric.get('interval')))} over {samples} samples"
    changed = change(chosen)
    if number(part(chosen.evaluate, "compare", "drop")) is None or chosen.name == "original":
        yield Tile(name.capitalize(), words.measured(metric.get("value"), None), (own,))
        return
    value, *rest = changed.text.split("\n")
    yield Tile(f"Change in {name}", value, (", ".join(rest), own), changed.tone)


def _image(state: RunState) -> Iterator[Tile]:
    values = state.steps["image"].values if "image" in state.steps else {}
    if number(values.get("size")) is None:
        return
    layers = quantity(len(items(values, "layers")), "layer")
    basis = [f"compressed; {words.size(values.get('uncompressed'))} unpacked, {layers}"]
    basis.append(f"config {words.short(values.get('config'))}")
    pushed = next((step.values for step in state.steps.values() if step.kind == "push" and step.values), {})
    if pushed.get("reference"):
        basis.append(f"pushed to {pushed['reference']}")
    yield Tile("Image", words.size(values.get("size")), tuple(basis))


def _beside(text: str) -> str:
    return " ".join(text.split())
