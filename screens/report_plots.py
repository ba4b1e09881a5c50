"""The plots of a run's page: variants against each other, latencies over time and as histograms."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from xml.etree.ElementTree import Element

from screens import words
from screens.candidates import Candidate, axes, points
from screens.html import el
from screens.pareto import Axis, Point, Scale, front, scale_of
from screens.samples import LEAST, ROLLED, Sensor, Window, bucket_end, over_time
from screens.svg import HEIGHT, LEFT, RIGHT, TOP, WIDTH, Frame, path, plot
from screens.variants import Variant
from screens.words import interval_of, mapping, number

UNITS = (("s", 1e9), ("ms", 1e6), ("µs", 1e3), ("ns", 1.0))
_SPAN = 5.0
"""Seconds that a percentile over time is taken over."""

Histogram = Sequence[tuple[int, int]]
Box = tuple[int, int, int, int]


def unit_of(most: float) -> tuple[str, float]:
    """The unit of time that suits ``most`` nanoseconds, and how many nanoseconds it is."""
    return next((each for each in UNITS if most >= each[1]), UNITS[-1])


def pareto(found: Sequence[Candidate], *, dropping: bool) -> Element | None:
    """The variants by size (or the metric's drop) and median latency; None where fewer than two have both."""
    across, up = axes(found, dropping)
    shown = [_scaled(each, across, up) for each in points(found, dropping)]
    if len(shown) < 2:
        return None
    frame = Frame(_scale([(each.x, each.x_interval) for each in shown]), _scale([(p.y, p.y_interval) for p in shown]))
    best = front(shown)
    drawn = frame.axes(across.title, up.title, _plain, _plain)
    steps = [(frame.across(each.x), frame.up(each.y)) for each in best]
    drawn += [el("path", d=f"M{a} {b}H{c}V{d}", class_="front") for (a, b), (c, d) in itertools.pairwise(steps)]
    boxes: list[Box] = []
    for each in shown:
        x, y = frame.across(each.x), frame.up(each.y)
        boxes.append((x - 6, y - 6, x + 6, y + 6))
        drawn += _whiskers(frame, each)
        drawn.append(_mark(each, x, y))
    for each in sorted(shown, key=lambda one: (one.mark != "chosen", one.mark != "original")):
        drawn += _name(each, frame.across(each.x), frame.up(each.y), boxes)
    told = "; ".join(f"{each.name}: {_plain(each.x)}, {_plain(each.y)}" for each in shown)
    return plot(f"{up.title} by {across.title}: {told}", drawn)


def _plain(value: float) -> str:
    return f"{value:.4g}"


def _scaled(point: Point, across: Axis, up: Axis) -> Point:
    def by(around: tuple[float, float] | None, scale: float) -> tuple[float, float] | None:
        return (around[0] / scale, around[1] / scale) if around else None

    x, y = by(point.x_interval, across.scale), by(point.y_interval, up.scale)
    return Point(point.name, point.x / across.scale, point.y / up.scale, x, y, point.mark)


def _scale(values: Sequence[tuple[float, tuple[float, float] | None]]) -> Scale:
    return scale_of([each for value, around in values for each in (value, *(around or ()))])


def _whiskers(frame: Frame, point: Point) -> Iterator[Element]:
    """The intervals, with ends."""
    x, y = frame.across(point.x), frame.up(point.y)
    if point.y_interval:
        low, high = (frame.up(each) for each in point.y_interval)
        yield el("path", d=f"M{x} {low}V{high}M{x - 3} {low}h6M{x - 3} {high}h6", class_="whisker")
    if point.x_interval:
        low, high = (frame.across(each) for each in point.x_interval)
        yield _lying(low, high, y)


def _lying(low: int, high: int, y: int) -> Element:
    return el("path", d=f"M{low} {y}H{high}M{low} {y - 3}v6M{high} {y - 3}v6", class_="whisker")


def _mark(point: Point, x: int, y: int) -> Element:
    """A diamond for the chosen one, a ring for the original, a dot for the others."""
    if point.mark == "chosen":
        return el("path", d=f"M{x} {y - 7}l7 7l-7 7l-7 -7z", class_="chosen")
    return el("circle", cx=x, cy=y, r=5, class_=point.mark or "variant")


def _name(point: Point, x: int, y: int, boxes: list[Box]) -> Iterator[Element]:
    """The name where it is free: beside the point, else above or below it."""
    name = point.name if len(point.name) <= 28 else f"{point.name[:27]}…"
    long = len(name) * 7
    spots = ((x + 10, y - 8), (x - 10 - long, y - 8), (x - long // 2, y - 26), (x - long // 2, y + 10))
    for left, top in (*spots, *((at, up + 16) for at, up in spots)):
        box = (left, top, left + long, top + 16)
        inside = left >= LEFT + 2 and box[2] <= WIDTH - 2 and top >= 16 and box[3] <= HEIGHT - 44
        if inside and not any(_overlap(box, other) for other in boxes):
            boxes.append(box)
            yield el("text", name, x=left, y=top + 12, class_=f"name {point.mark}".strip())
            return


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def latency_over_time(series: Mapping[str, Sequence[Window]]) -> tuple[Element | None, str]:
    """p50, p95 and p99 of each run of a target since the first began, and which of them never had their samples.

    None where none had.
    """
    begun = min((windows[0].time for windows in series.values() if windows), default=0.0)
    found: dict[str, list[list[tuple[float, float | None]]]] = {level: [] for level in LEAST}
    for windows in series.values():
        width = (windows[-1].time - windows[0].time) / max(len(windows) - 1, 1)
        rolled = min(max(round(_SPAN / width), 1), ROLLED) if width > 0 else ROLLED
        for level in LEAST:
            values = over_time(windows, level, rolled)
            found[level].append([(each.time - begun, value) for each, value in zip(windows, values, strict=True)])
    every = [point for runs in found.values() for run in runs for point in run]
    most = max((value for _, value in every if value is not None), default=0.0)
    if most <= 0:
        return None, ", ".join(LEAST)
    unit, scale = unit_of(most)
    frame = Frame(Scale(0.0, max(max(time for time, _ in every), 1e-3)), Scale(0.0, most / scale * 1.08))
    drawn = frame.axes("seconds", f"latency, {unit}", _plain, _plain)
    for level, runs in found.items():
        for run in runs:
            line = [None if at is None else (frame.across(time), frame.up(at / scale)) for time, at in run]
            if any(point is not None for point in line):
                drawn.append(path(line, f"line {level}"))
    has = {level: any(value is not None for run in runs for _, value in run) for level, runs in found.items()}
    told = ", ".join(level for level in has if has[level])
    return plot(f"{told} over {every[-1][0]:.0f} s", drawn), ", ".join(level for level in has if not has[level])


def histogram(found: Mapping[str, Histogram], marks: Sequence[tuple[str, Any, Any]] = ()) -> Element | None:
    """Histograms of latencies in ns over each other, each as the share of its queries.

    ``marks`` are figures among them, as label, ns and interval. None where there is no query.
    """
    shown = {name: each for name, each in found.items() if sum(count for _, count in each)}
    if not shown:
        return None
    low = min(each[0][0] for each in shown.values())
    high = max(bucket_end(each[-1][0]) for each in shown.values())
    unit, scale = unit_of(high)
    totals = {name: sum(count for _, count in each) for name, each in shown.items()}
    top = max(count / totals[name] for name, each in shown.items() for _, count in each)
    x = Scale(max(low, 1) / scale, high / scale, log=high > 4 * max(low, 1))
    frame = Frame(x, Scale(0.0, top * 100 * 1.12))
    drawn = frame.axes(f"latency, {unit}", "% of queries", _plain, _plain)
    for index, (name, each) in enumerate(shown.items()):
        drawn.append(_columns(frame, each, totals[name], scale, f"hist s{index}"))
    drawn += [mark for each in marks for mark in _figure(frame, *each, scale)]
    told = ", ".join(f"{name} {total:,} queries" for name, total in totals.items())
    return plot(f"Histogram of latencies: {told}", drawn)


def _columns(frame: Frame, found: Histogram, total: int, scale: float, class_: str) -> Element:
    """The outline of a histogram: neighbouring columns as one shape, so that none shimmers through another."""
    ground = frame.up(0.0)
    said, end = "", -math.inf
    for bound, count in found:
        left, right = frame.across(max(bound, 1) / scale), frame.across(bucket_end(bound) / scale)
        top = frame.up(100 * count / total)
        if left > end:
            said += f"{'' if not said else f'V{ground}z'}M{left} {ground}"
        said += f"V{top}H{max(right, left + 1)}"
        end = max(right, left + 1)
    return el("path", d=f"{said}V{ground}z", class_=class_)


def _figure(frame: Frame, label: str, value: Any, around: Any, scale: float) -> Iterator[Element]:
    """A figure as an upright line, its interval as a band behind."""
    found, interval = number(value), interval_of(around)
    if found is None or not frame.x.low <= found / scale <= frame.x.high:
        return
    x, ground = frame.across(found / scale), frame.up(0.0)
    if interval:
        left, right = (frame.across(each / scale) for each in interval)
        yield el("rect", x=left, y=TOP, width=max(right - left, 1), height=ground - TOP, class_="band")
    yield el("line", x1=x, x2=x, y1=TOP, y2=ground, class_=f"mark {label}")
    anchor = "end" if x > WIDTH - RIGHT - 30 else "middle"
    yield el("text", label, x=x, y=TOP - 4, text_anchor=anchor, class_=f"name {label}")


def machine(sensors: Sequence[Sensor], start: float, end: float) -> tuple[Element | None, Element | None]:
    """The load of all cores in percent, and the memory in use in GiB, over the time of the run."""
    shown = [each for each in sensors if start <= each.time <= end]
    if len(shown) < 2:
        return None, None
    most = max(each.memory_total for each in shown) / 2**30
    pictures = []
    for values, top, title in (
        ([each.cpu for each in shown], 100.0, "% of all cores"),
        ([each.memory_used / 2**30 for each in shown], most, "GiB"),
    ):
        frame = Frame(Scale(0.0, end - start), Scale(0.0, max(top, *values, 1e-9)), height=160)
        drawn = frame.axes("seconds of the run", title, _plain, _plain)
        line = [(frame.across(each.time - start), frame.up(value)) for each, value in zip(shown, values, strict=True)]
        pictures.append(plot(title, [*drawn, path(line, "line p50")], height=160))
    return pictures[0], pictures[1]


def bars(original: Variant, compressed: Variant) -> Element | None:
    """Size, latencies and metric of a variant under those of the original, each pair on a scale of its own."""
    pairs = [(label, each) for label, each in _pairs(original, compressed) if all(number(v) for v, _, _ in each)]
    drawn: list[Element] = []
    for at, (label, pair) in enumerate(pairs):
        y = 4 + at * 62
        most = max(max(float(value), *(interval_of(around) or (0.0,))) for value, around, _ in pair)
        drawn.append(el("text", label, x=0, y=y + 11, class_="name"))
        for index, (value, around, said) in enumerate(pair):
            top = y + 17 + index * 19
            drawn.append(el("rect", x=0, y=top, width=_long(value, most), height=15, rx=2, class_=f"bar s{index}"))
            if interval := interval_of(around):
                low, high = (_long(each, most) for each in interval)
                drawn.append(
                    el("path", d=f"M{low} {top + 7}H{high}M{low} {top + 4}v7M{high} {top + 4}v7", class_="whisker")
                )
            drawn.append(el("text", said, x=_BARS + 12, y=top + 12))
    told = "; ".join(f"{label}: {pair[0][2]} and {pair[1][2]}" for label, pair in pairs)
    return plot(f"Original and {compressed.name}: {told}", drawn, 4 + len(pairs) * 62) if pairs else None


_BARS = 280
"""How long the longest bar of a pair is."""


def _long(value: Any, most: float) -> int:
    return min(max(round(float(value) / most * _BARS), 1), _BARS)


def _pairs(*both: Variant) -> Iterator[tuple[str, list[tuple[Any, Any, str]]]]:
    """What original and variant are compared in: the value of each, its interval, and both in words."""
    yield "size of the model file", [(each.size, None, words.size(each.size)) for each in both]
    for level in ("p50", "p99"):
        found = [(each.percentiles.get(f"{level}_ns"), each.percentiles.get(f"{level}_interval_ns")) for each in both]
        yield f"{level} in process", [(*each, _beside(words.latency(*each))) for each in found]
    metrics = [mapping(each.evaluate, "metric") for each in both]
    measured = [(each.get("value"), each.get("interval")) for each in metrics]
    yield str(metrics[0].get("name", "metric")), [(*each, _beside(words.measured(*each))) for each in measured]


def _beside(text: str) -> str:
    return " ".join(text.split())
