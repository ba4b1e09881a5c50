"""The parts of a run's page: the tables of the report, with plots beside them. Pure functions of a run's state."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from xml.etree.ElementTree import Element

from screens import present, present_push, words
from screens.blocks import Block
from screens.candidates import candidates
from screens.html import block, el
from screens.present_benchmark import TARGETS, figures
from screens.present_benchmark import benchmarks as benchmark_blocks
from screens.progress import GLYPHS
from screens.report_plots import bars, histogram, latency_over_time, machine, pareto
from screens.run_samples import RunSamples
from screens.samples import Window, merged
from screens.variants import variants as variants_of
from screens.words import ABSENT, items, mapping, number, quantity
from workbench import runs
from workbench.events import RunState, StepState

_MARKS = (("chosen", "chosen"), ("original", "original"), ("variant", "variant"), ("front", "nothing is better"))


def blocks(found: Iterable[Block]) -> Iterator[Element]:
    """Blocks of the report, each on its own."""
    for each in found:
        yield el("div", *block(each), class_="block")


def _figure(drawn: Element | None, caption: str, *legend: tuple[str, str]) -> Iterator[Element]:
    """A plot over its caption; ``legend`` are the classes and names of its series, of which it names those it has."""
    if drawn is None:
        return
    classes = {word for each in drawn.iter() for word in each.get("class", "").split()}
    keys = [
        el("span", el("i", class_=f"key {class_}"), name, class_="entry")
        for class_, name in legend
        if class_ in classes
    ]
    yield el("figure", el("figcaption", el("b", caption), *keys), drawn)


def _side_by_side(plots: Sequence[Element]) -> Iterator[Element]:
    if plots:
        yield el("div", *plots, class_="plots")


def variants(state: RunState, samples: RunSamples) -> Iterator[Element]:
    """The variants: against the original and each other as plots, then the tables of the report."""
    found = variants_of(state)
    every = candidates(state, {})
    compared = next((each for each in found if each.chosen and each.name != "original"), None)
    original = next((each for each in found if each.name == "original"), None)
    plots: list[Element] = []
    if compared is not None and original is not None:
        caption = f"{compared.name} against the original"
        plots += _figure(bars(original, compared), caption, ("s0", "original"), ("s1", compared.name))
    plots += _figure(pareto(every, dropping=False), "Size and median latency", *_MARKS)
    plots += _figure(pareto(every, dropping=True), "Quality lost and median latency", *_MARKS)
    plots += _in_turns(compared.name, samples) if compared is not None else ()
    yield from _side_by_side(plots)
    yield from blocks([*present.variant_table(found), *present.latency_table(found)])
    others = [each for each in found if each is not compared]
    yield from _side_by_side([plot for each in others for plot in _in_turns(each.name, samples)])
    yield from blocks([*present.gate_table(found), *present.choice(state), *present.remarks(state, found)])


def _in_turns(name: str, samples: RunSamples) -> Iterator[Element]:
    """A variant's latencies over the original's, as both were taken in turns."""
    both = [merged(samples.latencies.get((f"latency/{name}", series), ())) for series in ("original", "variant")]
    if all(both):
        drawn = histogram({"original": both[0], name: both[1]})
        yield from _figure(drawn, f"original and {name}, in process", ("s0", "original"), ("s1", name))


def benchmarks(state: RunState, samples: RunSamples) -> Iterator[Element]:
    """Each benchmark: its table, and for each target latencies over time and as a histogram."""
    steps = [step for step in state.steps.values() if step.kind == "benchmark"]
    told = dict(zip([step.id for step in steps if step.values], benchmark_blocks(state), strict=True))
    for step in steps:
        plots = [each for target in TARGETS for each in _target(step, target, samples)]
        if step.id in told:
            yield from blocks([told[step.id]])
        elif plots:
            yield el("h3", f"{step.id}: {step.status}; not judged, this is what came in")
        yield from _side_by_side(plots)


def _target(step: StepState, target: str, samples: RunSamples) -> Iterator[Element]:
    """The plots of one target. What its load voided is not drawn."""
    series = _series(step.id, target, samples)
    values = mapping(step.values, target)
    if not series or (step.values and values.get("valid") is not True):
        return
    over_time, missing = latency_over_time(series)
    said = f"{TARGETS[target]}, over time" + (f"; {missing}: not enough samples" if missing else "")
    yield from _figure(over_time, said, ("p50", "p50"), ("p95", "p95"), ("p99", "p99"))
    whole = merged(window for windows in series.values() for window in windows)
    known = figures(values)
    marks = [(level, known.get(f"{level}_ns"), known.get(f"{level}_interval_ns")) for level in ("p50", "p99")]
    total = words.count(sum(count for _, count in whole))
    said = f"{TARGETS[target]}, {total} queries of {quantity(len(series), 'run')}"
    yield from _figure(histogram({target: whole}, marks), said)


def _series(step: str, target: str, samples: RunSamples) -> Mapping[str, Sequence[Window]]:
    """The measured runs of a target: neither the client's own cost nor the search for a rate."""
    return {
        series: windows
        for (of, series), windows in samples.latencies.items()
        if of == step
        and series.rpartition("-")[0] == target
        and series.rpartition("-")[2].isdigit()
        and any(window.count for window in windows)
    }


def image(state: RunState) -> Iterator[Element]:
    """The image's layers by size, then what the report has of it."""
    found = [*present.image(state), *present.parity(state), *present.pushed(state)]
    values = state.steps["image"].values if "image" in state.steps else {}
    layers = [mapping(layer) for layer in items(values, "layers")]
    sized = [(str(each.get("name", ABSENT)), number(each.get("uncompressed")) or 0.0) for each in layers]
    whole = sum(size for _, size in sized)
    if whole > 0:
        shares = [
            el("i", name if size > whole / 12 else None, style=f"flex-grow:{max(size / whole, 0.0):.4f}", title=name)
            for name, size in sized
        ]
        yield el("p", "Layers by their unpacked size", class_="dim")
        yield el("div", *shares, class_="layers")
    yield from blocks(found)


def steps(state: RunState, until: float, samples: RunSamples) -> Iterator[Element]:
    """A bar a step on the time of the run, and what the machine did meanwhile."""
    if not state.steps or not state.started:
        return
    end = max(state.ended or until, state.started + 1e-3)
    rows = [_step(step, state.started, end) for step in state.steps.values()]
    heads = el("tr", *(el("th", head, scope="col") for head in ("state", "step", "time")))
    heads.append(el("th", f"in the {words.clock(end - state.started)} of the run", scope="col"))
    yield el("div", el("table", el("thead", heads), el("tbody", *rows), class_="steps"), class_="wide")
    cpu, memory = machine(samples.sensors, state.started, end)
    plots = [*_figure(cpu, "Processor, all cores of the machine"), *_figure(memory, "Memory in use on the machine")]
    yield from _side_by_side(plots)


def _step(step: StepState, start: float, end: float) -> Element:
    glyph, tone = GLYPHS.get(step.status, ("?", ""))
    taken = end - step.started if step.status == "running" else step.seconds
    ran = step.started > 0 and step.status != "reused"
    left = min(max((step.started - start) / (end - start), 0.0), 1.0)
    width = min(max(taken / (end - start), 0.0), 1.0 - left)
    at = f"left:{left:.2%};width:max({width:.2%},2px)"
    error = mapping(step.error).get("message")
    return el(
        "tr",
        el("td", el("span", f"{glyph} {step.status}", class_=tone or None)),
        el("td", step.id, el("small", str(error), class_="bad") if error else None),
        el("td", words.clock(taken) if ran else None),
        el("td", el("div", el("i", class_=f"bar {tone}".strip(), style=at) if ran else None, class_="track")),
    )


_MADE = frozenset({"model", "data", "quantize", "prune", "distill", "image", "sbom"})
"""Kinds of steps whose files the lock names."""


def digests(state: RunState) -> Iterator[Element]:
    """The lock, and every artifact by its content as the lock names it."""
    yield from blocks(present.lock(state))
    found = [
        (step.id if name == step.id else f"{step.id}/{name}", file.get("size"), file.get("digest"))
        for step in state.steps.values()
        if step.kind in _MADE
        for name, file in sorted(step.files.items())
    ]
    values = state.steps["image"].values if "image" in state.steps else {}
    layers = [mapping(layer) for layer in items(values, "layers")]
    found += [(f"layer {each.get('name')}", each.get("uncompressed"), each.get("diff_id")) for each in layers]
    rows = [
        el("tr", el("td", name), el("td", words.size(size), class_="right"), el("td", el("code", str(digest))))
        for name, size, digest in found
        if digest
    ]
    if rows:
        made = el("div", el("table", el("tbody", *rows)), class_="wide")
        yield el("div", el("h3", "What was made, by the content of its bytes"), made, *_tools(state))


def _tools(state: RunState) -> Iterator[Element]:
    """The tools that decided the bytes, as the steps' keys name them."""
    of = [each for step in state.steps.values() if step.kind in _MADE for each in step.ingredients.items()]
    tools = {name.removeprefix("tool "): version for name, version in of if name.startswith("tool ")}
    said = [f"{name} {version}" for name, version in sorted(tools.items())]
    said += sorted({f"instruction set {found}" for name, found in of if name == "instruction set"})
    if said:
        yield el("p", f"Made with {', '.join(said)}.", class_="said dim")


def commands(state: RunState) -> Iterator[Element]:
    """The commands that do the same again, and that get and check what was pushed."""
    said = [("This run", runs.command_line(state.command))] if state.command else []
    if state.recipe:
        replay = runs.command_line(["workbench", "replay", state.recipe])
        said.append(("Make every artifact again from the lock, and compare", replay))
    step = present_push.push_step(state)
    said += [(what.capitalize(), command) for what, command in present_push.commands(step)] if step is not None else []
    for what, command in said:
        yield el("p", what, class_="dim")
        yield el("pre", command)
