"""A run as one HTML page that needs nothing else: no network, no script, the same bytes for the same run folder."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree.ElementTree import Element

from screens import present, words
from screens import report_parts as parts
from screens.console import failure
from screens.html import el, written
from screens.present_replay import verdict
from screens.progress import GLYPHS
from screens.report_tiles import Tile, tiles
from screens.run_samples import RunSamples, read_samples
from workbench import runs
from workbench.assets import asset
from workbench.events import EventReader, RunStarted, RunState, reduce
from workbench.store import unwritable


@dataclass(frozen=True)
class Seen:
    """A run as its folder tells it: its state, the time of its last event, and the version that made it."""

    state: RunState
    until: float = 0.0
    version: str = ""
    samples: RunSamples = field(default_factory=RunSamples)


def write_report(run: Path, path: Path) -> None:
    """Writes the page of the run folder ``run`` to ``path``. Raises MachineLacks where it cannot be written."""
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
    """The page. It has no clock of its own: a run that goes on is shown as of its last event."""
    state = seen.state
    head = el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", name="color-scheme", content="light dark"),
        # Nothing may be fetched or run, whatever a name in a recipe or a log might slip in.
        el("meta", http_equiv="Content-Security-Policy", content="default-src 'none'; style-src 'unsafe-inline'"),
        el("title", f"{state.name or state.recipe or state.run}: {state.status}"),
        el("style", asset("report.css").read_text(encoding="utf-8")),
    )
    return written(el("html", head, el("body", el("main", *_header(seen), *_sections(seen)), _footer(seen)), lang="en"))


def _header(seen: Seen) -> Iterator[Element]:
    state = seen.state
    glyph, tone = GLYPHS["failed" if state.status == "died" else state.status]
    kind = "replay" if state.mode == "replay" else "run"
    pill = el("span", f"{glyph} {kind} {state.status}", class_=f"pill {tone}".strip())
    yield el(
        "header",
        el("p", state.recipe or state.run, class_="over"),
        el("h1", el("span", state.name or state.run), pill),
        el("p", present.headline(state).title),
        el("p", _when(seen), class_="dim"),
        el("p", words.machine(state.machine), class_="dim") if state.machine else None,
    )
    if lines := failure(state):
        yield el("aside", *(el("p", line) for line in lines), class_="bad")
    if found := [_tile(each) for each in tiles(state)]:
        yield el("div", *found, class_="tiles")


def _when(seen: Seen) -> str:
    state = seen.state
    if not state.started:
        return "It has not begun yet."
    so_far = f", goes on, and is shown as it was at {_utc(seen.until)}" if state.status == "running" else ""
    return f"Started {_utc(state.started)}{so_far}"


def _utc(time: float) -> str:
    try:
        found = datetime.datetime.fromtimestamp(time, datetime.UTC)
    except (OverflowError, ValueError, OSError):
        return words.ABSENT
    return f"{found:%Y-%m-%d %H:%M:%S} UTC"


def _tile(tile: Tile) -> Element:
    figure = el("p", tile.value, class_=f"figure {tile.tone}".strip())
    basis = (el("p", each.text, class_=each.tone or "dim") for each in tile.basis if each.text)
    return el("section", el("h2", tile.label), figure, *basis)


def _sections(seen: Seen) -> Iterator[Element]:
    state = seen.state
    found: dict[str, Iterable[Element]] = {
        "Replay": parts.blocks(verdict(state)),
        "Variants": parts.variants(state, seen.samples),
        "Benchmarks": parts.benchmarks(state, seen.samples),
        "Image": parts.image(state),
        "Steps": parts.steps(state, seen.until, seen.samples),
        "Lock and digests": parts.digests(state),
        "Do it again": parts.commands(state),
    }
    for title, elements in found.items():
        if children := list(elements):
            yield el("section", el("h2", title), *children, class_="part")


def _footer(seen: Seen) -> Element:
    by = f"workbench {seen.version}" if seen.version else "workbench"
    return el("footer", f"Run {seen.state.run}, by {by}. 95% intervals stand in square brackets.")
