"""The benchmarks of a recipe: while one runs, latencies, throughput and what the machine does; then the figures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from rich.console import Group
from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import VerticalScroll
from textual.message import Message
from textual.widgets import Static

from screens.block_view import Blocks
from screens.blocks import Block, cell
from screens.charts import Line, bar, columns, line_chart, spark
from screens.present_benchmark import benchmarks
from screens.progress import progress
from screens.samples import LEAST, Samples, Window, merged, over_time, percentile, throughput
from screens.stage import STAGES, Stage, steps_of
from screens.view import RunView
from screens.views import Views
from screens.words import count, safe, size
from screens.words import number as figure
from workbench.events import StepState
from workbench.units import format_seconds

VIEWS = {"figures": "Figures", "panels": "Live"}
PANELS = {
    "over-time": "Latency over time",
    "histogram": "Latencies",
    "throughput": "Last five seconds",
    "machine": "Machine",
}
_CORES = 8
"""Cores that have a line each."""

_MEASURING = ("benchmark", "latency")
_KIND = next(kind for kind in STAGES if kind.id == "benchmark")
_NONE = Block("", below=(cell("Nothing has been benchmarked yet. Press r to run the recipe."),))
_STYLES = {"p50": "green", "p95": "yellow", "p99": "red"}


def latency_lines(windows: tuple[Window, ...], width: int, height: int) -> list[Text]:
    """p50, p95 and p99 over time; those with too few queries are named as such."""
    lines = [Line(level, over_time(windows, level), style) for level, style in _STYLES.items()]
    shown = [line for line in lines if any(value is not None for value in line.values)]
    missing = [line.name for line in lines if line not in shown]
    painted = line_chart(shown, width, height - bool(missing), nanoseconds)
    if missing:
        painted.append(Text(f"{', '.join(missing)}: not enough samples", style="yellow", no_wrap=True))
    return painted


def nanoseconds(value: float) -> str:
    """Nanoseconds in a unit that suits."""
    return format_seconds(value / 1e9)


def series_of(samples: Samples, step: str) -> dict[str, tuple[Window, ...]]:
    """The latencies of a step by series, the newest last."""
    found = {series: windows for (of, series), windows in samples.latencies.items() if of == step and windows}
    return dict(sorted(found.items(), key=lambda each: each[1][-1].time))


def charted(series: dict[str, tuple[Window, ...]]) -> tuple[str, tuple[Window, ...]]:
    """The series that the charts show: the newest that is no measurement of the client itself."""
    names = [name for name in series if not name.endswith("-null")] or list(series)
    return (names[-1], series[names[-1]]) if names else ("", ())


def figures_now(series: dict[str, tuple[Window, ...]]) -> Iterator[Text]:
    """A line a series: throughput and percentiles over its last five seconds, and how many queries wait now."""
    yield Text(f"{'':<12}{'queries/s':>10}{'p50':>9}{'p95':>9}{'p99':>9}{'queue':>6}", style="dim", no_wrap=True)
    for name, windows in series.items():
        rate, newest = throughput(windows), merged(windows[-20:])
        levels = [percentile(newest, level) for level in LEAST]
        told = "".join(f"{'too few' if value is None else nanoseconds(value):>9}" for value in levels)
        waiting = "—" if windows[-1].waiting is None else count(windows[-1].waiting)
        yield Text(f"{safe(name)[:12]:<12}{'—' if rate is None else count(rate):>10}{told}{waiting:>6}", no_wrap=True)


def machine_lines(samples: Samples, step: str, width: int) -> Iterator[Text]:
    """The last minute of all cores, each core now, memory of the host and of the container, GPUs."""
    room = max(width - 26, 4)

    def told(name: str, now: str, chart: str) -> Text:
        return Text(f"{name:<10}{now:>14}  {chart}", no_wrap=True)

    if samples.sensors:
        now = samples.sensors[-1]
        yield told("all cores", f"{now.cpu:.0f} %", spark([each.cpu for each in samples.sensors], room))
        if len(now.cpu_each) <= _CORES:
            for number, share in enumerate(now.cpu_each):
                yield told(f"core {number}", f"{share:.0f} %", bar(share / 100, room))
        else:  # a letter a core
            for first in range(0, len(now.cpu_each), room):
                each = now.cpu_each[first : first + room]
                yield told("cores", f"{first} to {first + len(each) - 1}", spark(each, len(each)))
        share = now.memory_used / now.memory_total if now.memory_total else 0.0
        yield told("memory", size(now.memory_used), bar(share, room))
    if readings := samples.containers.get(step):
        last = readings[-1]
        yield told("container", f"{last.cpu:.0f} %", spark([each.cpu for each in readings], room))
        yield told("", size(last.memory), "resident")
    for number in range(len(samples.sensors[-1].gpus) if samples.sensors else 0):
        yield from gpu_lines(samples, number, told, room)


def gpu_lines(samples: Samples, number: int, told: Callable[[str, str, str], Text], room: int) -> Iterator[Text]:
    """A GPU: the last minute of its load, its memory, and a line of power, temperature and clock."""
    readings = [each.gpus[number] for each in samples.sensors if number < len(each.gpus)]
    now = {name: figure(readings[-1].get(name)) for name in _GPU}
    yield Text(f"GPU {number}  {safe(readings[-1].get('name', ''))}", style="bold", overflow="ellipsis", no_wrap=True)
    busy = [figure(each.get("busy")) or 0.0 for each in readings]
    yield told("  busy", "not told" if now["busy"] is None else f"{now['busy']:.0f} %", spark(busy, room))
    if now["memory_used"] is not None and now["memory_total"]:
        share = now["memory_used"] / now["memory_total"]
        yield told(
            "  memory", size(now["memory_used"]), f"{bar(share, max(room - 14, 4))} of {size(now['memory_total'])}"
        )
    limit = "" if now["power_limit"] is None else f" of {now['power_limit']:.0f}"
    more = [
        f"{now[name]:.0f}{f'{limit} W' if name == 'power' else unit}"
        for name, unit in (("power", " W"), ("temperature", " °C"), ("clock", " MHz"))
        if now[name] is not None
    ]
    if more:
        yield Text(f"  {'  '.join(more)}", no_wrap=True)


_GPU = ("busy", "memory_used", "memory_total", "power", "power_limit", "temperature", "clock")


class Panel(Static):
    """A part of the live panels; it says when it has another size, for what is painted is made for one."""

    class Sized(Message):
        """A panel has another size."""

    def on_resize(self) -> None:
        self.post_message(self.Sized())


class BenchmarkStage(Stage):
    """Live panels and figures of the benchmarks."""

    BINDINGS = [Binding("v", "go_on", "View", id="benchmark.view", tooltip="figures or live panels")]
    SCOPED_CSS = False  # what is wide or narrow is the screen
    DEFAULT_CSS = """
    BenchmarkStage {
        #now { height: 1; padding: 0 1; color: $text-muted; }
        #panels { layout: grid; grid-size: 1 4; grid-rows: 9; }
        .chart { height: 100%; border: round $primary-muted; border-title-color: $text-primary; padding: 0 1; }
    }
    .-wide BenchmarkStage #panels { grid-size: 2 2; grid-rows: 1fr; }
    """

    def __init__(self, project: Path, recipe: str, *, id: str) -> None:  # noqa: A002
        super().__init__(project, recipe, id=id)
        self._view: RunView | None = None
        self._painted: Samples | None = None

    def compose(self) -> ComposeResult:
        yield Static(id="now", markup=False)
        with Views(VIEWS, id="views"):
            yield VerticalScroll(Blocks(id="benchmark-blocks"), id="figures")
            with VerticalScroll(id="panels"):
                for name, title in PANELS.items():
                    panel = Panel(id=name, classes="chart", markup=False)
                    panel.border_title = title
                    yield panel

    def show(self, view: RunView | None) -> None:
        """Shows what is measured now. The live panels come up when a benchmark begins, the figures when it ends."""
        before, now = _at_work(self._view), _at_work(view)
        self._view = view
        if (before is None) != (now is None):
            self.query_one(Views).go("panels" if now else "figures")
        said = f"● {now.id}  {progress(now)}" if now else ""
        self.query_one("#now", Static).update(safe(said))
        found = [*benchmarks(view.state)] if view else []
        self.query_one(Blocks).show(found or [_NONE])
        self._paint()

    def on_views_switched(self) -> None:
        self._paint()

    def on_panel_sized(self) -> None:
        self._painted = None
        self._paint()

    def action_go_on(self) -> None:
        self.query_one(Views).go_on()

    def _paint(self) -> None:
        """Paints the panels, where they are on the screen and something came."""
        view = self._view
        if view is None or self.query_one(Views).shown != "panels" or view.samples is self._painted:
            return
        self._painted = view.samples
        step = _newest(view)
        series = series_of(view.samples, step)
        name, windows = charted(series)
        panels = {each: self.query_one(f"#{each}", Static) for each in PANELS}
        panels["over-time"].border_title = f"Latency over time: {safe(step)} {safe(name)}".rstrip()
        room = panels["over-time"].content_size
        panels["over-time"].update(Group(*latency_lines(windows, room.width, room.height)))
        room = panels["histogram"].content_size
        panels["histogram"].update(Group(*columns(merged(windows), room.width, room.height, nanoseconds)))
        panels["throughput"].update(Group(*figures_now(series)))
        panels["machine"].update(Group(*machine_lines(view.samples, step, panels["machine"].content_size.width)))


def _at_work(view: RunView | None) -> StepState | None:
    """The step that measures now."""
    steps = view.state.steps.values() if view else ()
    return next((step for step in steps if step.status == "running" and step.kind in _MEASURING), None)


def _newest(view: RunView) -> str:
    """The step that measures now, or measured last."""
    at_work = _at_work(view)
    if at_work is not None:
        return at_work.id
    ended = [step.id for step in steps_of(_KIND, view) if any(of == step.id for of, _ in view.samples.latencies)]
    return ended[-1] if ended else ""
