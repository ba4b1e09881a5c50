"""Every variant of a recipe and of a run, also those that are still to be made: how each stands, as table rows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from screens import words
from screens.blocks import Cell, Tone, cell
from screens.pareto import Axis, Point
from screens.present import change
from screens.variants import Variant, variants
from screens.words import ABSENT, interval_of, mapping, number, part
from workbench.events import RunState, StepState

DEFAULTS: Mapping[str, Any] = {
    "to": "int8",
    "mode": "static",
    "calibration": "minmax",
    "percentile": 99.99,
    "per_channel": True,
}
"""What a recipe means where it says nothing of a quantization (workbench.schema, which is too heavy for the app)."""

WIDE = 100
"""Letters from which on a table has a column for each figure."""


@dataclass(frozen=True)
class Candidate:
    """A variant: what the run found, its own steps in their order, and its chain as the recipe has it now (None where
    the recipe has none such)."""

    variant: Variant
    steps: tuple[StepState, ...] = ()
    chain: Sequence[Any] | None = None
    changed: bool = False
    """Whether the recipe makes it otherwise now than the run did."""

    @property
    def name(self) -> str:
        return self.variant.name


def candidates(state: RunState | None, chains: Mapping[str, Any]) -> list[Candidate]:
    """The original, the variants of the run in its order, and those that only the recipe (``chains``) has."""
    measured = {each.name: each for each in variants(state)} if state else {}
    planned = [step.id.partition("/")[2] for step in state.steps.values() if step.kind == "evaluate"] if state else []
    names = dict.fromkeys(["original", *planned, *measured, *map(str, chains)])
    return [_candidate(name, measured.get(name), state, chains) for name in names]


def _candidate(name: str, found: Variant | None, state: RunState | None, chains: Mapping[str, Any]) -> Candidate:
    steps = tuple(step for step in state.steps.values() if _own(step, name)) if state else ()
    chain = chains.get(name)
    links = chain if isinstance(chain, Sequence) and not isinstance(chain, str) else None
    return Candidate(found or Variant(name, False, {}, {}), steps, links, _changed(steps, links))


def _own(step: StepState, name: str) -> bool:
    return step.id in (f"evaluate/{name}", f"latency/{name}") or step.id.startswith(f"{name}/")


def _changed(steps: Sequence[StepState], chain: Sequence[Any] | None) -> bool:
    """Whether a quantization had other settings than the recipe gives it now."""
    made = next((step for step in steps if step.kind == "quantize" and step.ingredients), None)
    asked = next((mapping(link, "quantize") for link in chain or () if mapping(link, "quantize")), None)
    if made is None or asked is None:
        return False
    return any(_setting(made, key) != asked.get(key, default) for key, default in DEFAULTS.items())


def _setting(step: StepState, key: str) -> object:
    try:
        return json.loads(step.ingredients.get(f"setting {key}", "null"))
    except ValueError:
        return None


def chain_words(chain: Sequence[Any] | None) -> str:
    """A chain as one says it: ``quantize static (minmax, per channel)``."""
    return " → ".join(_link(mapping(link)) for link in chain or ()) or "the model as it came"


def _link(link: Mapping[str, Any]) -> str:
    name, given = next(iter(link.items()), ("nothing", {}))
    if name != "quantize":
        return words.safe(name)
    settings = {**DEFAULTS, **mapping(given)}
    said = ["for each channel" if settings["per_channel"] is True else "for each tensor"]
    if settings["mode"] == "static":
        percentile = f" {settings['percentile']}" if settings["calibration"] == "percentile" else ""
        said.insert(0, f"{settings['calibration']}{percentile}")
    return words.safe(f"quantize {settings['mode']} ({', '.join(said)})")


def standing(found: Candidate) -> Cell:
    """How a variant stands: a glyph and a word, the most telling first."""
    by_status = {step.status: step for step in reversed(found.steps)}
    if step := by_status.get("failed"):
        return cell(f"✗ {step.kind} failed", "bad")
    if step := by_status.get("running"):
        share = f" {min(step.done / step.total, 1.0):.0%}" if step.total > 0 else ""
        return cell(f"● {step.kind}{share}", "strong")
    if found.name != "original" and found.steps and found.chain is None:
        return Cell("- not in recipe now", "dim")
    if not found.steps and not found.variant.evaluate:
        return Cell("+ not made yet" if found.chain is not None else "· not measured", "dim")
    if found.changed:
        return Cell("~ changed since", "warn")
    if found.variant.chosen:
        return Cell("◆ chosen", "good")
    for status, said in (("waiting", "· waiting"), ("cancelled", "■ cancelled"), ("skipped", "- skipped")):
        if status in by_status:
            return Cell(said, "warn" if status == "cancelled" else "dim")
    return gates(found.variant)


def gates(variant: Variant) -> Cell:
    """Which gates fail or are undecided; that all hold, else; that there are none."""
    states = [str(part(gate, "state")) for gate in variant.gates]
    looks: tuple[tuple[str, str, Tone], ...] = (("fails", "✗", "bad"), ("undecided", "?", "warn"))
    for state, glyph, tone in looks:
        names = [str(part(gate, "gate")) for gate in variant.gates if part(gate, "state") == state]
        if names:
            return cell(f"{glyph} {', '.join(names)}{' undecided' if state == 'undecided' else ''}", tone)
    return Cell("✓ gates hold", "good") if states else Cell("✓ measured")


def head(found: Sequence[Candidate], width: int) -> tuple[str, ...]:
    """The columns of the table in ``width`` letters."""
    metric = next((str(name) for each in found if (name := part(each.variant.evaluate, "metric", "name"))), "metric")
    named = words.safe(metric)
    if width < WIDE:
        return "variant", "size", named, "p50"
    return "variant", "size", named, "change", "p50", "ratio", "gates"


def rows(found: Sequence[Candidate], width: int) -> dict[str, tuple[Cell, ...]]:
    """The rows of the table by the variants' names, two lines each, the second one for what the first rests on."""
    original = number(next((each.variant.size for each in found if each.name == "original"), None))
    return {each.name: tuple(map(_two_lines, _row(each, original, width))) for each in found}


def _row(found: Candidate, original: float | None, width: int) -> tuple[Cell, ...]:
    variant, stands = found.variant, standing(found)
    name = Cell(f"{words.safe(found.name)}\n{stands.text}", "strong" if variant.chosen else "")
    size = Cell(f"{words.size(variant.size)}{_share(variant, original)}")
    metric = mapping(variant.evaluate, "metric")
    value = words.measured(metric.get("value"), metric.get("interval"))
    own, changed, ratio = variant.percentiles, change(variant), _ratio(variant)
    median = words.latency(own.get("p50_ns"), own.get("p50_interval_ns"))
    if width >= WIDE:
        return name, size, Cell(value), changed, Cell(median), ratio, _gates(variant)
    if changed.text != ABSENT:
        value = f"{value.partition(chr(10))[0]}  {changed.text.splitlines()[0]}\n{changed.text.splitlines()[-1]}"
    if ratio.text != ABSENT:
        first, _, rest = median.partition("\n")
        median = f"{first}  ×{ratio.text.splitlines()[0].split()[0]}\n{rest}"  # noqa: RUF001
    return name, size, Cell(value, changed.tone), Cell(median, ratio.tone)


def _share(variant: Variant, original: float | None) -> str:
    size = number(variant.size)
    return f"\n{size / original:.0%}" if size is not None and original and variant.name != "original" else ""


def _ratio(variant: Variant) -> Cell:
    """The latency as a part of the original's, with the verdict."""
    found = variant.latency
    if variant.name == "original" or number(found.get("ratio")) is None:
        return Cell(ABSENT)
    value, _, around = words.measured(found.get("ratio"), found.get("ratio_interval")).partition("\n")
    verdict = words.safe(found.get("verdict", ""))
    tones: Mapping[str, Tone] = {"faster": "good", "slower": "bad"}
    return Cell(f"{value} {verdict}\n{around or '(no interval)'}", tones.get(verdict, ""))


def _gates(variant: Variant) -> Cell:
    """How many gates hold, and below it the one that does not."""
    if not variant.gates:
        return Cell(ABSENT)
    held = sum(part(gate, "state") == "holds" for gate in variant.gates)
    found = gates(variant)
    if held == len(variant.gates):
        return Cell(f"{found.text}\n{held} of {held}", found.tone)
    return Cell(f"{found.text}\n{held} of {len(variant.gates)} hold", found.tone)


def _two_lines(found: Cell) -> Cell:
    lines = [*found.text.splitlines(), "", ""]
    return Cell("\n".join(lines[:2]), found.tone)


def axes(found: Sequence[Candidate], dropping: bool) -> tuple[Axis, Axis]:
    """What is across the plot (the metric's drop, or the size) and up (the median latency), in units that suit."""
    latencies = [each for one in found if (each := number(one.variant.percentiles.get("p50_ns"))) is not None]
    most, largest = max(latencies, default=1.0), max((number(one.variant.size) or 0.0 for one in found), default=0.0)
    unit, scale = _unit(most, (("s", 1e9), ("ms", 1e6), ("µs", 1e3), ("ns", 1.0)))
    up = Axis(f"p50 latency, {unit}", scale)
    if dropping:
        name = head(found, 0)[2]
        return Axis(f"{name} lost against the original"), up
    label, by = _unit(largest, (("GiB", 2.0**30), ("MiB", 2.0**20), ("KiB", 2.0**10)))
    return Axis(f"size of the model file, {label}", by), up


def _unit(value: float, units: Sequence[tuple[str, float]]) -> tuple[str, float]:
    return next((each for each in units if value >= each[1]), units[-1])


def points(found: Sequence[Candidate], dropping: bool) -> list[Point]:
    """The variants that have both figures of the plot."""
    made = (_point(each.variant, dropping) for each in found)
    return [each for each in made if each is not None]


def _point(variant: Variant, dropping: bool) -> Point | None:
    own, compare = variant.percentiles, mapping(variant.evaluate, "compare")
    across, around = number(variant.size), None
    if dropping:
        across, around = number(compare.get("drop")), interval_of(compare.get("interval"))
        if variant.name == "original" and variant.evaluate:
            across = 0.0
    up = number(own.get("p50_ns"))
    if across is None or up is None:
        return None
    mark: Literal["", "chosen", "original"] = (
        "chosen" if variant.chosen else "original" if variant.name == "original" else ""
    )
    return Point(words.safe(variant.name), across, up, around, interval_of(own.get("p50_interval_ns")), mark)
