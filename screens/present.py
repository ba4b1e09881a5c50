"""The end of a run as blocks: pure functions from a RunState, each a part of the report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from screens import words
from screens.blocks import Block, Cell, Tone, cell, row
from screens.present_benchmark import benchmarks
from screens.present_replay import verdict
from screens.variants import Variant, variants
from screens.words import ABSENT, items, mapping, number, part, quantity
from workbench.events import RunState

GATE_TONES: Mapping[str, Tone] = {"holds": "good", "fails": "bad", "undecided": "warn"}
VERDICT_TONES: Mapping[str, Tone] = {"faster": "good", "slower": "bad"}


def report_blocks(state: RunState) -> list[Block]:
    """The whole report of a run or a replay, what matters most at its end left to the eye: where it went, the lock."""
    if state.mode == "replay":
        return [headline(state), *verdict(state), *where_from(state)]
    found = variants(state)
    return [
        headline(state),
        *variant_table(found),
        *latency_table(found),
        *gate_table(found),
        *choice(state),
        *remarks(state, found),
        *image(state),
        *parity(state),
        *benchmarks(state),
        *pushed(state),
        *lock(state),
        *where_from(state),
    ]


def headline(state: RunState) -> Block:
    """What came of it, in a line."""
    made = sum(step.status == "done" for step in state.steps.values())
    reused = sum(step.status == "reused" for step in state.steps.values())
    after = f" in {words.clock(state.ended - state.started)}" if state.ended and state.started else ""
    name = words.safe(state.name or state.recipe or state.run)
    what = "replay " if state.mode == "replay" else ""
    steps = f"{quantity(len(state.steps), 'step')}: {made} made, {reused} reused" if state.steps else "no step"
    return Block(f"{name}: {what}{state.status}{after}; {steps}")


def variant_table(found: list[Variant]) -> Iterator[Block]:
    """Size, metric with interval, and change to the original of each variant, and how its gates stand."""
    if not found:
        return
    metric = next((str(name) for each in found if (name := part(each.evaluate, "metric", "name"))), "metric")
    samples = sorted({int(n) for each in found if (n := number(each.evaluate.get("samples"))) is not None})
    over = " or ".join(words.count(n) for n in samples) or "an unknown number of"
    yield Block(
        "Variants",
        ("variant", "size", words.safe(metric), "change to original", "gates"),
        tuple(
            row(
                Cell(f"{words.safe(each.name)}{' (chosen)' if each.chosen else ''}", "strong" if each.chosen else ""),
                words.size(each.size),
                _metric(each),
                change(each),
                _gates(each),
            )
            for each in found
        ),
        (
            Cell(f"{words.safe(metric)} over {over} samples; 95% intervals.", "dim"),
            *_comparisons(found),
            *(Cell(_REFERENCE, "dim") for each in found if is_reference(each) and _states(each) - {"holds"}),
        ),
        right=frozenset({1}),
    )


def _metric(variant: Variant) -> str:
    metric = mapping(variant.evaluate, "metric")
    return _with_interval(metric.get("value"), metric.get("interval"))


def _with_interval(value: object, interval: object) -> str:
    text = words.measured(value, interval)
    return text if text == ABSENT or "\n" in text else f"{text}\n(no interval)"


def change(variant: Variant) -> Cell:
    """How the metric changed against the original, signed as the metric is, with its significance in words."""
    compare = mapping(variant.evaluate, "compare")
    drop = number(compare.get("drop"))
    if variant.name == "original" or drop is None:
        return Cell(ABSENT)
    sign = -1 if part(variant.evaluate, "metric", "higher_is_better") is not False else 1
    around = words.interval_of(compare.get("interval"))
    turned = sorted((sign * around[0], sign * around[1])) if around else None
    said, tone = significance(compare)
    return Cell(f"{words.measured(sign * drop, turned, sign=True)}\n{said}", tone)


def _comparisons(found: list[Variant]) -> Iterator[Cell]:
    for each in found:
        if said := basis(each):
            yield cell(f"{each.name}: {said}", "dim")


def basis(variant: Variant) -> str:
    """What the paired comparison of a variant with the original rests on; empty where there is none."""
    compare = mapping(variant.evaluate, "compare")
    said = []
    if (flipped := number(compare.get("flipped"))) is not None:
        said.append(f"{quantity(int(flipped), 'prediction')} flipped")
    if (p := number(compare.get("p_value"))) is not None:
        said.append(f"McNemar p = {p:.2g}")
    if (fidelity := number(compare.get("fidelity"))) is not None:
        said.append(f"cosine to original {fidelity:.4f}")
    return ", ".join(said)


def significance(compare: Mapping[str, Any]) -> tuple[str, Tone]:
    """Whether a drop is more than chance, at 5%: by the test's p where there is one, else by the drop's interval."""
    drop, p = number(compare.get("drop")) or 0.0, number(compare.get("p_value"))
    around = words.interval_of(compare.get("interval"))
    if p is None and around is None:
        return "significance unknown", "warn"
    significant = p < 0.05 if p is not None else not (around[0] <= 0 <= around[1])  # type: ignore[index]
    if not significant:
        return "not significant", ""
    return ("significantly worse", "bad") if drop > 0 else ("significantly better", "good")


_REFERENCE = "original is what the variants are compared with; a gate that it fails only keeps it from being chosen."


def is_reference(variant: Variant) -> bool:
    """Whether it is there to compare with: the original, unless it is what was chosen."""
    return variant.name == "original" and not variant.chosen


def _states(variant: Variant) -> set[str]:
    return {str(part(gate, "state")) for gate in variant.gates}


def _gates(variant: Variant) -> Cell:
    states = _states(variant)
    if not states:
        return Cell("none")
    for state in ("fails", "undecided"):
        if state in states:
            names = ", ".join(words.safe(part(g, "gate")) for g in variant.gates if part(g, "state") == state)
            if is_reference(variant):
                return Cell(f"reference\n({state}: {names})")
            return Cell(f"{state}: {names}", GATE_TONES[state])
    return Cell("all hold", "good")


def latency_table(found: list[Variant]) -> Iterator[Block]:
    """Latency of each variant in process, and its ratio to the original with the verdict."""
    measured = [each for each in found if each.latency]
    if not measured:
        return
    rows = []
    for each in measured:
        own = each.percentiles
        verdict_words = str(each.latency.get("verdict", ABSENT))
        rows.append(
            row(
                each.name,
                words.count(own.get("queries")),
                words.latency(own.get("p50_ns"), own.get("p50_interval_ns")),
                words.latency(own.get("p99_ns"), own.get("p99_interval_ns"))
                if own.get("p99_ns") is not None
                else "not enough samples",
                _with_interval(each.latency.get("ratio"), each.latency.get("ratio_interval")),
                Cell(words.safe(verdict_words), VERDICT_TONES.get(verdict_words, "")),
            )
        )
    yield Block(
        "Latency in process",
        ("variant", "queries", "p50", "p99", "ratio", "verdict"),
        tuple(rows),
        (*_latency_conditions(measured), *_disturbed(measured)),
        right=frozenset({1}),
    )


def _latency_conditions(found: list[Variant]) -> Iterator[Cell]:
    threads = sorted({int(n) for each in found if (n := number(part(each.latency, "conditions", "threads")))})
    pairs = sorted({int(n) for each in found if (n := number(each.latency.get("pairs")))})
    said = [" or ".join(quantity(n, "thread") for n in threads) or "threads unknown"]
    if pairs:
        said.append(" or ".join(quantity(n, "pair") for n in pairs) + " of fresh processes")
    yield Cell("; ".join([*said, "95% intervals from the processes; ratio to the original."]), "dim")


def _disturbed(found: list[Variant]) -> Iterator[Cell]:
    for each in found:
        conditions = mapping(each.latency, "conditions")
        if conditions.get("disturbed"):
            yield cell(f"{each.name}: {conditions.get('sentence', words.DISTURBED)}", "warn")


def gate_table(found: list[Variant]) -> Iterator[Block]:
    """Each gate of each variant: holds, fails or undecided, by which value against which limit, and why."""
    rows = tuple(
        row(each.name, part(gate, "gate"), Cell(state, tone), judged, part(gate, "why") or ABSENT)
        for each in found
        for gate in each.gates
        for state in [words.safe(part(gate, "state"))]
        for tone in ["" if is_reference(each) else GATE_TONES.get(state, "")]
        for judged in [f"{part(gate, 'value') or ABSENT}\n({part(gate, 'limit') or 'limit unknown'})"]
    )
    if rows:
        yield Block("Gates", ("variant", "gate", "state", "value, limit", "why"), rows)


def choice(state: RunState) -> Iterator[Block]:
    """Which variant is taken and why; the closest one where none is."""
    values = state.steps["choose"].values if "choose" in state.steps else {}
    if not values:
        return
    chosen, today = values.get("choice"), values.get("today")
    below = [cell(values["why"])] if values.get("why") else []
    if not chosen and values.get("closest"):
        below.append(cell(f"The closest is {values['closest']}."))
    if "today" in values and today != chosen:
        below.append(cell(f"Today's figures would choose {today or 'no variant'}.", "warn"))
    yield Block(f"Chosen: {words.safe(chosen or 'none')}", below=tuple(below))


def remarks(state: RunState, found: list[Variant]) -> Iterator[Block]:
    """What is to be said of variants (larger, slower, worse), of how they were made, and of the run."""
    rows = [row(each.name, remark) for each in found for remark in each.remarks]
    rows += [
        row(step.id, note)
        for step in state.steps.values()
        for note in items(step.values, "notes")
        if isinstance(note, str)
    ]
    if rows or state.notes:
        yield Block("Remarks", rows=tuple(rows), below=tuple(cell(note) for note in state.notes))


def image(state: RunState) -> Iterator[Block]:
    """The image: its sizes, its layers, its digests, and its name in the engine that built it."""
    values = state.steps["image"].values if "image" in state.steps else {}
    if not values:
        return
    layers = [mapping(layer) for layer in items(values, "layers")]
    rows = [
        row(
            layer.get("name", ABSENT),
            words.size(layer.get("size")),
            words.size(layer.get("uncompressed")),
            words.count(layer.get("files")),
            words.size(layer.get("omitted_bytes")),
        )
        for layer in layers
    ]
    total = row("image", words.size(values.get("size")), words.size(values.get("uncompressed")), "", "")
    yield Block(
        f"Image {words.short(values.get('config'))}, {quantity(len(layers), 'layer')}",
        ("layer", "compressed", "unpacked", "files", "left out"),
        (*rows, tuple(Cell(each.text, "strong") for each in total)),
        tuple(cell(f"{label}\n{values[name]}") for name, label in _NAMES.items() if values.get(name)),
        right=frozenset({1, 2, 3, 4}),
    )


_NAMES = {"config": "config", "manifest": "manifest", "in_engine": "in the engine"}


def parity(state: RunState) -> Iterator[Block]:
    """Whether the image answers what the variant answers in process."""
    values = state.steps["parity"].values if "parity" in state.steps else {}
    if not values:
        return
    answers = f"{words.count(values.get('samples'))} answers of the image"
    way = _WAYS.get(str(values.get("method")), "")
    if values.get("bit_equal"):
        said = f"{answers} equal the variant's in process, bit for bit"
    else:
        most = [f"{number(values.get(key)):.3g} {name}" for key, name in _APART if number(values.get(key)) is not None]
        top = {True: "equal", False: "differs"}.get(values.get("top1_equal"), "unknown")  # type: ignore[arg-type]
        said = f"{answers} are within tolerance; largest difference {', '.join(most) or ABSENT}; best class {top}"
    yield Block("Parity", below=(cell(f"{said}{f' ({way})' if way else ''}."),))


_WAYS = {
    "bubblewrap": "run under bubblewrap",
    "loader": "run by its own loader",
    "engine": "run in the container engine",
}
_APART = (("max_abs", "absolute"), ("max_rel", "relative"))


def pushed(state: RunState) -> Iterator[Block]:
    """Where the image was pushed."""
    for step in state.steps.values():
        if step.kind == "push" and step.values:
            values = step.values
            sent = number(values.get("sent"))
            transfer = (
                f"{words.count(sent)} blobs sent ({words.size(values.get('bytes_sent'))}), "
                f"{words.count(values.get('skipped'))} were there already; verified by digest"
            )
            below = [cell(f"manifest\n{values['digest']}")] if values.get("digest") else []
            if sent is not None:
                below.append(Cell(transfer, "dim"))
            yield Block(f"Pushed to {words.safe(values.get('reference', ABSENT))}", below=tuple(below))


def lock(state: RunState) -> Iterator[Block]:
    """The lock that was written and the commit that holds it."""
    if state.lock is None:
        if state.status == "done":
            yield Block("Lock as it was")
        return
    commit = f"committed as {words.safe(state.lock.commit[:12])}" if state.lock.commit else "not committed"
    changes = tuple(cell(change) for change in state.lock.changes)
    yield Block(f"Lock {words.safe(state.lock.path)} written, {commit}", below=changes)


def where_from(state: RunState) -> Iterator[Block]:
    """The machine that the numbers are from."""
    if state.machine:
        yield Block("Measured on", below=(cell(words.machine(state.machine)),))
