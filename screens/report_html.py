"""A run as one HTML page that needs nothing else: no network, no script, the same bytes for the same run folder."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import Element


from screens import present, words
from screens.blocks import Block
from screens.candidates import candidates
from screens.console import failure
from screens.html import block, el, written
from screens.present_benchmark import TARGETS, benchmarks, figures
from screens.present_replay import verdict
from screens.progress import GLYPHS
from screens.report_plots import histogram, latency_over_time, pareto
from screens.report_tiles import Tile, tiles
from screens.run_samples import RunSamples, read_samples
from screens.samples import Window, merged
from screens.variants import variants
from screens.words import mapping
from workbench import runs
from workbench.assets import asset
from workbench.events import EventReader, RunStarted, RunState, StepState, reduce
from workbench.store import unwritable


@dataclass(frozen=True)
class Seen:
    """A run as its folder tells it: its state, the time of its last event, and the version that made it."""

    state: RunState
    until: float
    version: str
    samples: RunSamples


def write_report(run: Path, path: Path) -> None:
    """Writes the page of the run folder ``run``. Raises MachineLacks where the disk takes none."""
    text = page(see(run))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise unwritable(path, error) from error


def see(run: Path) -> Seen:
    """Reads a run folder."""
    alive = runs.is_alive(run)
    state, until, version = RunState(run=run.name), 0.0, ""
    for event in EventReader(run / "events.jsonl").new():
        state, until = reduce(state, event), event.time
        if isinstance(event, RunStarted):
            version = event.workbench
    return Seen(runs.marked(state, alive), until, version, read_samples(run / "samples.jsonl"))


def page(seen: Seen) -> str:
    """The page."""
    state = seen.state
    title = f"{state.name or state.recipe or state.run}: {state.status}"
    root = el(
        "html",
        el(
            "head",
            el("meta", charset="utf-8"),
            el("meta", name="viewport", content="width=device-width, initial-scale=1"),
            el("meta", name="color-scheme", content="light dark"),
            el("title", title),
            el("style", asset("report.css").read_text()),
        ),
        el("body", el("main", *_header(seen), *_sections(seen)), *_footer(seen)),
        lang="en",
    )
    return written(root)


def _header(seen: Seen) -> Iterator[Element]:
    state = seen.state
    glyph, tone = GLYPHS["failed" if state.status == "died" else state.status]
    kind = "replay" if state.mode == "replay" else "run"
    yield el(
        "header",
        el("p", state.recipe or state.run, class_="over"),
        el(
            "h1",
            el("span", state.name or state.run),
            el("span", f"{glyph} {kind} {state.status}", class_=f"pill {tone}".strip()),
        ),
        el("p", present.headline(state).title.partition(": ")[2].capitalize() + "."),
        el("p", _when(seen), class_="dim"),
        el("p", words.machine(state.machine), class_="dim") if state.machine else None,
    )
    if lines := failure(state):
        yield el("aside", *(el("p", line) for line in lines), class_="bad")
    found = [_tile(each) for each in tiles(state)]
    if found:
        yield el("div", *found, class_="tiles")


def _when(seen: Seen) -> str:
    state = seen.state
    if not state.started:
        return "It has not begun yet."
    so_far = f"; this page shows it as it was at {_utc(seen.until)}" if state.status == "running" else ""
    return f"Started {_utc(state.started)}{so_far}"


def _utc(time: float) -> str:
    try:
        found = datetime.datetime.fromtimestamp(time, datetime.UTC)
    except (OverflowError, ValueError, OSError):
        return words.ABSENT
    return f"{found:%Y-%m-%d %H:%M:%S} UTC"


def _tile(tile: Tile) -> Element:
    return el(
        "section",
        el("h2", tile.label),
        el("p", tile.value, class_=f"figure {tile.tone}".strip()),
        *(el("p", each, class_="dim") for each in tile.basis if each),
    )


def _sections(seen: Seen) -> Iterator[Element]:
    state = seen.state
    parts: dict[str, Iterable[Element]] = {
        "Replay": _blocks(verdict(state)),
        "Variants": _variants(seen),
        "Benchmarks": _benchmarks(seen),
        "Image": [*_blocks(present.image(state)), *_blocks(present.parity(state)), *_blocks(present.pushed(state))],
        "Steps": _steps(seen),
        "Lock and digests": [*_blocks(present.lock(state)), *_digests(state)],
        "Again": _again(state),
    }
    for title, found in parts.items():
        children = list(found)
        if children:
            yield el("section", el("h2", title), *children, class_="part")


def _blocks(found: Iterable[Block]) -> Iterator[Element]:
    for each in found:
        yield el("div", *block(each), class_="block")


def _figure(drawn: Element | None, caption: str, *legend: tuple[str, str]) -> Iterator[Element]:
    """A plot over its caption; ``legend`` are the classes and names of its series."""
    if drawn is None:
        return
    keys = [el("span", el("i", class_=f"key {class_}"), name, class_="entry") for class_, name in legend]
    yield el("figure", el("figcaption", el("b", caption), *keys), drawn)


def _variants(seen: Seen) -> Iterator[Element]:
    state = seen.state
    found = variants(state)
    if not found:
        return
    every = candidates(state, {})
    marks = (("chosen", "chosen"), ("original", "original"), ("variant", "variant"), ("front", "front"))
    plots = [
        *_figure(pareto(every, dropping=False), "Size and median latency", *marks),
        *_figure(pareto(every, dropping=True), "Quality lost and median latency", *marks),
    ]
    if plots:
        yield el("div", *plots, class_="plots")
    yield from _blocks([*present.variant_table(found), *present.latency_table(found)])
    compared = [each for one in found if one.name != "original" for each in _compared(one.name, seen)]
    if compared:
        yield el("div", *compared, class_="plots")
    yield from _blocks([*present.gate_table(found), *present.choice(state), *present.remarks(state, found)])


def _compared(name: str, seen: Seen) -> Iterator[Element]:
    """A variant's latencies over the original's, as both were taken in turns."""
    step = f"latency/{name}"
    both = {series: merged(seen.samples.latencies.get((step, series), ())) for series in ("original", "variant")}
    if all(both.values()):
        shown = {"original": both["original"], name: both["variant"]}
        caption = f"original and {name}, in process"
        yield from _figure(histogram(shown), caption, ("s0", "original"), ("s1", name))


def _benchmarks(seen: Seen) -> Iterator[Element]:
    steps = [step for step in seen.state.steps.values() if step.kind == "benchmark"]
    told = dict(zip([step.id for step in steps if step.values], benchmarks(seen.state), strict=True))
    for step in steps:
        plots = [each for target in TARGETS for each in _target(step, target, seen.samples)]
        if step.id in told:
            yield el("div", *block(told[step.id]), class_="block")
        elif plots:
            yield el("h3", f"{step.id}: not judged yet; what came in so far")
        if plots:
            yield el("div", *plots, class_="plots")


def _target(step: StepState, target: str, samples: RunSamples) -> Iterator[Element]:
    """The plots of one target. What its load voided is not drawn."""
    series = _series(step.id, target, samples)
    values = mapping(step.values, target)
    if not series or (step.values and values.get("valid") is not True):
        return
    legend = [(level, level) for level in ("p50", "p95", "p99")]
    yield from _figure(latency_over_time(series), f"{TARGETS[target]}: over time", *legend)
    whole = merged(window for windows in series.values() for window in windows)
    known = figures(values)
    marks = [(level, known.get(f"{level}_ns"), known.get(f"{level}_interval_ns")) for level in ("p50", "p99")]
    runs = words.quantity(len(series), "run")
    total = words.count(sum(count for _, count in whole))
    yield from _figure(histogram({target: whole}, marks), f"{TARGETS[target]}: {total} queries of {runs}")


def _series(step: str, target: str, samples: RunSamples) -> Mapping[str, Sequence[Window]]:
    """The measured runs of a target: neither the client's own cost nor the search for a rate."""
    return {
        series: windows
        for (of, series), windows in samples.latencies.items()
        if of == step and series.rpartition("-")[0] == target and series.rpartition("-")[2].isdigit()
    }


def _steps(seen: Seen) -> Iterator[Element]:
    """A bar a step on the time of the run."""
    state = seen.state
    if not state.steps or not state.started:
        return
    whole = max((state.ended or seen.until) - state.started, 1e-3)
    rows = [_step(step, state.started, whole, seen.until) for step in state.steps.values()]
    yield el("div", el("table", el("tbody", *rows), class_="steps"), class_="wide")


def _step(step: StepState, start: float, whole: float, until: float) -> Element:
    glyph, tone = GLYPHS.get(step.status, ("?", ""))
    taken = until - step.started if step.status == "running" else step.seconds
    ran = step.started > 0 and step.status != "reused"
    left = min(max((step.started - start) / whole, 0.0), 1.0)
    width = min(max(taken / whole, 0.0), 1.0 - left)
    bar = el("i", class_=f"bar {tone}".strip(), style=f"left:{left:.2%};width:max({width:.2%},2px)") if ran else None
    error = mapping(step.error).get("message")
    return el(
        "tr",
        el("td", el("span", f"{glyph} {step.status}", class_=tone or None)),
        el("td", step.id, el("small", str(error), class_="bad") if error else None),
        el("td", words.clock(taken) if ran else "", class_="right"),
        el("td", el("div", bar, class_="track"), class_="time"),
    )


_MADE = frozenset({"model", "data", "quantize", "prune", "distill", "image", "sbom"})
"""Kinds of steps whose files the lock names."""


def _digests(state: RunState) -> Iterator[Element]:
    """Every artifact by its content, and what the layers unpack to."""
    rows = [
        (f"{step.id} {name}" if len(step.files) > 1 else step.id, words.size(file.get("size")), file.get("digest", ""))
        for step in state.steps.values()
        if step.kind in _MADE
        for name, file in sorted(step.files.items())
    ]
    image = state.steps["image"].values if "image" in state.steps else {}
    layers = [mapping(layer) for layer in words.items(image, "layers")]
    rows += [
        (f"layer {layer.get('name', '')}, unpacked", words.size(layer.get("uncompressed")), layer["diff_id"])
        for layer in layers
        if layer.get("diff_id")
    ]
    if rows:
        body = (
            el("tr", el("td", name), el("td", size, class_="right"), el("td", el("code", digest)))
            for name, size, digest in rows
        )
        yield el("div", el("h3", "What was made, by content"), el("div", el("table", el("tbody", *body)), class_="wide"))


def _again(state: RunState) -> Iterator[Element]:
    from screens.present_push import commands, push_step

    said = [("what ran", runs.command_line(state.command))] if state.command else []
    if state.recipe:
        said.append(("make everything again and compare", runs.command_line(["workbench", "replay", state.recipe])))
    step = push_step(state)
    said += commands(step) if step is not None else []
    for what, command in said:
        yield el("p", what, class_="dim")
        yield el("pre", command)


def _footer(seen: Seen) -> Iterator[Element]:
    by = f"workbench {seen.version}" if seen.version else "workbench"
    yield el("footer", f"Run {seen.state.run}, by {by}. 95% intervals stand in square brackets.")
