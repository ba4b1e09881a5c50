"""``make bench-serving``: our server and five others over the same models, side by side, with spread and aims.

Each side is installed once in an environment of its own, below ``.workbench/bench/serving`` of the checkout. One
worker, one thread of onnxruntime, the same client (wrk, one thread), server and client on a core each, all sides in
turns, forth and back. ``bare uvloop``, which understands nothing, shows what no server in Python can go below. It
reports and asserts nothing. The whole takes about 20 minutes once all is installed; for a look:
``--only mlp --sides workbench,FastAPI --rounds 2``.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import options
import report
import wrk
from ground import ROOT, call, tell
from measure import Row, Section, median_interval, reap
from serving import served_models
from serving.running import NotStarted, Running, running
from serving.sides import FLOOR, OURS, Side, all_sides, write_input
from wrk import Pace, Taken

from screens.tables import print_table
from workbench import __version__
from workbench.bench.conditions import Watch
from workbench.bench.statistics import minimum_count
from workbench.process import adopt_orphans

GROUND = ROOT / ".workbench" / "bench" / "serving"
BARE = "bare onnxruntime loop"
MB = 1e6

ARRIVALS = 3.0
"""Overload: what arrives, as a multiple of what one core can compute."""
_CROWD = 512
_OVERLOAD = 3
"""An overload lasts so much longer than other loads: its queues fill first."""


@dataclass(frozen=True)
class Scene:
    """One load on one model."""

    title: str
    model: str
    form: str
    connections: int


SCENES: Mapping[str, Scene] = {
    "mlp-1": Scene("MLP of 30 features, JSON, 1 connection", "mlp", "json", 1),
    "mlp-16": Scene("MLP of 30 features, JSON, 16 connections", "mlp", "json", 16),
    "mlp-256": Scene("MLP of 30 features, JSON, 256 connections", "mlp", "json", 256),
    "image-json": Scene("Image of 3x48x192 floats, JSON, 16 connections", "image", "json", 16),
    "image-binary": Scene("Image of 3x48x192 floats, binary, 16 connections", "image", "binary", 16),
    "peak": Scene("Model of 20 ms, JSON, 8 connections: the peak", "slow", "json", 8),
    "overload": Scene(f"The same under overload: {ARRIVALS:g} times the peak arrives", "slow", "json", _CROWD),
}
PARTS: Mapping[str, tuple[str, float]] = {"mlp": ("mlp", 1.0), "image": ("image", 1.5), "overload": ("slow", 0.5)}
"""Parts by name: their model, and how many rounds they take for each that is asked for."""
STARTS = 2
"""Of a side in a round, for they vary more than what comes after: each is measured, the last one is loaded."""


@dataclass
class Found:
    """What was measured: repetitions by scene and side, by model and side, and of the model by itself."""

    loads: dict[str, dict[str, list[Taken]]] = field(default_factory=lambda: {name: {} for name in SCENES})
    memory: dict[str, dict[str, list[float]]] = field(default_factory=lambda: {name: {} for name in SCENES})
    """Bytes."""
    work: dict[str, dict[str, list[float]]] = field(default_factory=lambda: {name: {} for name in SCENES})
    """Seconds of processor an answer: other processes on the machine change them least."""
    starts: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    """Seconds."""
    bare: dict[str, list[dict[str, float]]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    def drop(self, side: str, why: str) -> None:
        """Takes a side out that cannot be measured."""
        self.missing[side] = why
        tell(f"{side} is missing: {why}")
        for values in (*self.loads.values(), *self.memory.values(), *self.work.values(), *self.starts.values()):
            values.pop(side, None)


class Bench:
    """The sides on their ground."""

    def __init__(self, folder: Path, seconds: int) -> None:
        self.folder = folder
        self.seconds = seconds
        cores = sorted(os.sched_getaffinity(0))
        self.client, self.server = (cores[0], cores[-1]) if len(cores) > 1 else (None, None)
        self.pause = 0.0
        served_models.write_all(folder / "models")

    def install(self, sides: Sequence[Side], found: Found) -> list[Side]:
        """Those that could be installed."""
        there = []
        for side in sides:
            try:
                side.install()
                there.append(side)
            except SystemExit as error:
                found.drop(side.name, f"not installed: {str(error).strip().splitlines()[-1]}")
        return there

    def part(self, name: str, sides: Sequence[Side], rounds: int, found: Found) -> None:
        """Measures a part, all sides in turns: A B C, C B A, ..."""
        model, share = PARTS[name]
        count = max(1, round(rounds * share))
        if model == "slow":
            self.pause = _CROWD / (ARRIVALS * self.bare(model, 1)["rate"])
        for number in range(count):
            tell(f"Measuring {name}: round {number + 1} of {count}")
            turns: list[Side | None] = [None, *[side for side in sides if side.name not in found.missing]]
            for side in turns if number % 2 == 0 else reversed(turns):
                if side is None:
                    found.bare.setdefault(model, []).append(self.bare(model, self.seconds))
                    continue
                try:
                    self.one(model, side, found)
                except (NotStarted, RuntimeError) as error:
                    found.drop(side.name, str(error))
                reap()

    def one(self, model: str, side: Side, found: Found) -> None:
        """A side is started a few times, and all loads are put on the last."""
        starts = found.starts.setdefault(model, {}).setdefault(side.name, [])
        for _ in range(STARTS - 1):
            with running(side, model, self.folder / "models", self.server) as server:
                starts.append(server.start)
        with running(side, model, self.folder / "models", self.server) as server:
            starts.append(server.start)
            for name, scene in SCENES.items():
                if scene.model == model:
                    before = server.processor_time()
                    taken, memory = self.load(name, scene, server)
                    work = (server.processor_time() - before) / max(taken.ok + taken.refused, 1)
                    found.work[name].setdefault(side.name, []).append(work)
                    found.loads[name].setdefault(side.name, []).append(taken)
                    found.memory[name].setdefault(side.name, []).append(memory)

    def load(self, name: str, scene: Scene, server: Running) -> tuple[Taken, float]:
        """A load, and the memory towards its end."""
        request = server.side.requests[scene.model, scene.form]
        overload = name == "overload"
        pace = Pace(scene.connections, self.pause if overload else 0.0)
        seconds = self.seconds * _OVERLOAD if overload else self.seconds
        with wrk.loading(server.port, request, pace, seconds, count=overload, core=self.client) as client:
            time.sleep(0.8 * seconds)
            memory = float(server.memory())
            return client.taken(), memory

    def bare(self, model: str, seconds: float) -> dict[str, float]:
        """The model by itself on the server's core: runs per second, seconds of the median run."""
        where = [] if self.server is None else ["taskset", "-c", str(self.server)]
        file = write_input(self.folder / f"{model}.npy", model)
        path = served_models.path_of(self.folder / "models", model)
        program = Path(served_models.__file__).with_name("bare.py")
        words = [*where, sys.executable, program, path, file, str(seconds)]
        told: dict[str, float] = json.loads(call(*words, folder=self.folder, environment={"PYTHONPATH": str(ROOT)}))
        return told


# --- figures


def rates(taken: Sequence[Taken]) -> tuple[float, ...]:
    return tuple(each.rate for each in taken)


def milliseconds(taken: Sequence[Taken], fraction: float) -> tuple[float, ...]:
    """A percentile of each round, of all rounds together where only they have enough samples, or none at all. Where
    some were refused, of those that were answered: a refusal waits for nothing, so the refused are the quickest."""
    least = minimum_count(fraction)
    if all(each.ok >= least for each in taken):
        return tuple(wrk.percentile(each.latencies, fraction, above=_unanswered(each)) / 1e3 for each in taken)
    if sum(each.ok for each in taken) < least:
        return ()
    together: dict[int, int] = {}
    for each in taken:
        for value, count in sorted(each.latencies.items()):
            together[value] = together.get(value, 0) + count
    return (wrk.percentile(together, fraction, above=sum(map(_unanswered, taken))) / 1e3,)


def refusals(taken: Sequence[Taken]) -> tuple[float, ...]:
    """The 99th percentile of the refusals, in milliseconds."""
    return tuple(
        wrk.percentile(each.latencies, 0.99, below=each.ok) / 1e3
        for each in taken
        if each.refused >= minimum_count(0.99)
    )


def _unanswered(taken: Taken) -> int:
    return taken.refused + taken.failed + taken.other


Values = Mapping[str, tuple[float, ...]]


def best_of(values: Values, *, most: bool) -> str | None:
    """Which of the others has the best median."""
    theirs = {
        name: statistics.median(each) for name, each in values.items() if name not in (OURS, FLOOR, BARE) and each
    }
    if not theirs:
        return None
    return (max if most else min)(theirs, key=theirs.__getitem__)


def against_best(
    what: str, values: Values, aim: float | None = None, *, most: bool = False, side: str = OURS
) -> Iterator[Row]:
    """A side against the best of the others, round by round where both have a value for each."""
    best = best_of(values, most=most)
    if best is not None and values.get(side):
        yield Row(f"{what}, {side} : {best}", ratios(values[side], values[best]), "x", aim, at_least=most)


def ratios(mine: tuple[float, ...], theirs: tuple[float, ...]) -> tuple[float, ...]:
    """Round by round where both have a value for each, else that of the medians."""
    if len(mine) == len(theirs):
        return tuple(one / other for one, other in zip(mine, theirs, strict=True))
    return (statistics.median(mine) / statistics.median(theirs),)


# --- tables


Columns = Mapping[str, tuple[Values, bool]]
"""What each side has, and whether more is better."""


def table(title: str, columns: Columns, notes: Mapping[str, str]) -> None:
    """Prints a line for each side: medians, how they spread, and their ratio to the best of the others'."""
    print(f"\n{title}")
    names = list(dict.fromkeys(name for values, _ in columns.values() for name in values))
    lines = []
    for name in names:
        line: dict[str, Any] = {"side": name}
        for column, (values, most) in columns.items():
            line[column] = _cell(values.get(name, ()))
            best = best_of(values, most=most)
            mine = values.get(name, ())
            ratio = statistics.median(mine) / statistics.median(values[best]) if mine and best else None
            line[f"{column}: best"] = "" if ratio is None else report.number(ratio)
        lines.append({**line, "note": notes.get(name, "")})
    heads = [head for column in columns for head in (column, f"{column}: best")]
    print_table(["side", *heads, *(["note"] if any(notes.values()) else [])], lines, json=False)


def _cell(values: tuple[float, ...]) -> str:
    if not values:
        return ""
    interval = median_interval(values)
    spread = f" ({report.number(interval[0])}..{report.number(interval[1])})" if interval else ""
    return f"{report.number(statistics.median(values))}{spread}"


def scene_columns(name: str, found: Found) -> dict[str, tuple[Values, bool]]:
    loads = found.loads[name]
    columns: dict[str, tuple[Values, bool]] = {
        "answers/s": ({side: rates(taken) for side, taken in loads.items()}, True),
        "p50 ms": ({side: milliseconds(taken, 0.5) for side, taken in loads.items()}, False),
        "p99 ms": ({side: milliseconds(taken, 0.99) for side, taken in loads.items()}, False),
        "CPU ms": ({side: tuple(each * 1e3 for each in found.work[name][side]) for side in loads}, False),
        "memory MB": ({side: tuple(each / MB for each in found.memory[name][side]) for side in loads}, False),
    }
    model = SCENES[name].model
    columns["answers/s"][0][BARE] = tuple(each["rate"] for each in found.bare[model])
    columns["p50 ms"][0][BARE] = tuple(each["median"] * 1e3 for each in found.bare[model])
    return columns


def scene_notes(name: str, found: Found, sides: Sequence[Side]) -> dict[str, str]:
    notes = {}
    for side in sides:
        taken = found.loads[name].get(side.name, [])
        asked = sum(each.ok + each.refused + each.errors for each in taken)
        said = [side.note] if name == "image-binary" else []
        if refused := sum(each.refused for each in taken):
            said.append(f"{refused / asked:.0%} refused with 429")
            if quick := refusals(taken):
                said.append(f"p99 of those {statistics.median(quick):.3g} ms")
        for kind, told in (("failed", "with 5xx"), ("other", "answered otherwise"), ("broken", "broken or late")):
            if count := sum(getattr(each, kind) for each in taken):
                said.append(f"{count} of {asked} {told}")
        notes[side.name] = ", ".join(said)
    return notes


def start_columns(model: str, found: Found) -> Columns:
    return {"start to first answer s": ({side: tuple(each) for side, each in found.starts[model].items()}, False)}


# --- what is aimed at


def mlp_aims(found: Found) -> Iterator[Row]:
    for name in ("mlp-1", "mlp-16", "mlp-256"):
        columns, told = scene_columns(name, found), SCENES[name].title.rpartition(", ")[2]
        yield from against_best(f"answers/s, {told}", columns["answers/s"][0], 5.0, most=True)
        yield from against_best(f"p99, {told}", columns["p99 ms"][0], 1 / 3)
        yield from against_best(f"answers/s, {told}", columns["answers/s"][0], most=True, side=FLOOR)
        yield from against_best(f"p99, {told}", columns["p99 ms"][0], side=FLOOR)
    columns = scene_columns("mlp-1", found)
    alone, own = columns["p50 ms"][0].get(OURS, ()), columns["p50 ms"][0][BARE]
    if len(alone) == len(own):
        over = tuple((mine - bare) * 1e3 for mine, bare in zip(alone, own, strict=True))
        note = "median of an answer less that of the model's own run"
        yield Row("overhead, 1 connection", over, "µs", 150.0, note)
    yield from against_best("start to first answer", start_columns("mlp", found)["start to first answer s"][0], 0.5)
    yield from against_best("memory, 256 connections", scene_columns("mlp-256", found)["memory MB"][0], 1.0)


def image_aims(found: Found) -> Iterator[Row]:
    for name in ("image-json", "image-binary"):
        columns, told = scene_columns(name, found), "JSON" if name == "image-json" else "binary"
        yield from against_best(f"answers/s, image, {told}", columns["answers/s"][0], most=True)
        yield from against_best(f"p99, image, {told}", columns["p99 ms"][0])
        yield from against_best(f"memory, image, {told}", columns["memory MB"][0], 1.0)
    rate = scene_columns("image-binary", found)["answers/s"][0]
    for side, aim in ((OURS, 0.85), (FLOOR, None)):
        if rate.get(side):
            told = f"answers/s, image, binary, {side} : {BARE}"
            yield Row(told, ratios(rate[side], rate[BARE]), "x", aim, at_least=True)


def overload_aims(found: Found) -> Iterator[Row]:
    for side, taken in found.loads["overload"].items():
        peaks = found.loads["peak"][side]
        kept = tuple(over.rate / peak.rate for over, peak in zip(taken, peaks, strict=True))
        aim = 0.95 if side == OURS else None
        yield Row(f"answered under overload : at the peak, {side}", kept, "x", aim, at_least=True)
    ours = found.loads["overload"].get(OURS, [])
    if ours:
        yield Row(f"neither answered nor refused, {OURS}", (float(sum(each.errors for each in ours)),), "", 0.0)
    if quick := refusals(ours):
        yield Row(f"p99 of the refusals, {OURS}", quick, "ms")


AIMS: Mapping[str, Callable[[Found], Iterator[Row]]] = {
    "mlp": mlp_aims,
    "image": image_aims,
    "overload": overload_aims,
}


# --- the command


def main() -> None:
    asked = _arguments()
    if not wrk.is_there():
        raise SystemExit("wrk is missing: apt-get install wrk")
    asked.ground.mkdir(parents=True, exist_ok=True)
    adopt_orphans()
    found = Found()
    bench = Bench(asked.ground, asked.seconds)
    wanted = [side for side in all_sides(asked.ground) if asked.sides is None or side.name in asked.sides]
    sides = bench.install(wanted, found)
    machine = report.machine()
    print(", ".join(f"{side.name} {side.version}" for side in sides))
    pinned = "no core of its own for each" if bench.server is None else "server and client on a core each"
    print(f"One worker, one thread of onnxruntime, wrk with one thread for {bench.seconds} s a load; {pinned}.")
    written: dict[str, Any] = {"size": _show_size(sides)}
    for name in asked.only:
        with Watch(threads=1) as watch:
            bench.part(name, sides, asked.rounds, found)
        section = Section(f"Aims: {name}", list(AIMS[name](found)), conditions=watch.values())
        shown = [scene for scene in SCENES if SCENES[scene].model == PARTS[name][0]]
        for scene in shown:
            table(SCENES[scene].title, scene_columns(scene, found), scene_notes(scene, found, sides))
        table(f"Start, model {PARTS[name][0]}", start_columns(PARTS[name][0], found), {})
        report.show(section)
        written[name] = {
            "aims": section.as_json(),
            "scenes": {scene: _raw(scene, found) for scene in shown},
            "starts": found.starts[PARTS[name][0]],
            "bare": found.bare[PARTS[name][0]],
        }
    for side, why in found.missing.items():
        print(f"\n{side} is missing. {why}")
    if asked.json:
        versions = {side.name: side.version for side in sides}
        whole = {"workbench": __version__, "machine": machine, "time": round(time.time()), "versions": versions}
        asked.json.write_text(json.dumps({**whole, "missing": found.missing, "parts": written}, indent=1) + "\n")


def _show_size(sides: Sequence[Side]) -> dict[str, float]:
    sizes = {side.name: (side.size() / MB,) for side in sides}
    table("Installed, without Python itself", {"MB": (sizes, False)}, {})
    return {name: values[0] for name, values in sizes.items()}


def _raw(scene: str, found: Found) -> dict[str, Any]:
    return {
        side: [
            {
                "seconds": each.seconds,
                "ok": each.ok,
                "refused": each.refused,
                "errors": each.errors,
                **{f"p{fraction * 100:g}_us": wrk.percentile(each.latencies, fraction) for fraction in (0.5, 0.99)},
                "memory": memory,
                "processor_s": work,
            }
            for each, memory, work in zip(taken, found.memory[scene][side], found.work[scene][side], strict=True)
        ]
        for side, taken in found.loads[scene].items()
    }


def _arguments() -> argparse.Namespace:
    parser = options.parser(__doc__, PARTS, GROUND)
    parser.add_argument("--sides", type=lambda text: text.split(","), help="some of the sides")
    parser.add_argument("--rounds", type=int, default=6, help="of the first part; others take more or fewer (6)")
    parser.add_argument("--seconds", type=int, default=2, help="of one load; an overload lasts 3 times as long (2)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
