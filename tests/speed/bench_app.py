"""``make bench-app``: what the app costs, in a real terminal (tmux). Prints medians and spread; asserts nothing.

Parts, all without words: start, idle, keys, live, large, hours, attached.
"""

from __future__ import annotations

import itertools
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "screens"))

import app_project
from example_run import record, run_events
from measure import median_interval
from terminal import Terminal

from workbench import runs
from workbench.runs import runs_folder

APP = [sys.executable, "-P", "-m", "workbench"]
BARE = [sys.executable, str(Path(__file__).parent / "bare_app.py")]
PAIRS = 10


def first_paint(words: list[str], folder: Path, mark: bytes = b"Recipes") -> float:
    """Seconds from the start of the process to the first painting that shows ``mark``."""
    with Terminal(words, folder) as terminal:
        seen = b""
        while mark not in seen:
            seen += terminal.next_bytes()
        return time.perf_counter() - terminal.started


def spread(values: list[float], unit: str = "s", scale: float = 1.0) -> str:
    """Median with the least and the greatest."""
    low, middle, high = min(values) * scale, statistics.median(values) * scale, max(values) * scale
    return f"{middle:.3g} {unit} ({low:.3g} to {high:.3g})"


def start(project: Path) -> None:
    pairs = [(first_paint(APP, project), first_paint(BARE, project)) for _ in range(PAIRS)]
    ratios = [ours / bare for ours, bare in pairs]
    print(f"first paint: {spread([ours for ours, _ in pairs])}; bare Textual app {spread([bare for _, bare in pairs])}")
    print(f"  ratio {spread(ratios, '')} over {PAIRS} pairs; aim 1.4")


def processor(terminal: Terminal, seconds: float) -> float:
    """The share of one core that the app takes over ``seconds``."""
    process = psutil.Process(terminal.pid)
    before = sum(process.cpu_times()[:2])
    begun = time.perf_counter()
    time.sleep(seconds)
    return (sum(process.cpu_times()[:2]) - before) / (time.perf_counter() - begun)


def idle(project: Path) -> None:
    with Terminal(APP, project) as terminal:
        terminal.wait_for("git")
        time.sleep(3)
        shares = [processor(terminal, 10) for _ in range(3)]
        memory = psutil.Process(terminal.pid).memory_info().rss
    print(f"idle: {spread(shares, '% of a core', 100)}; aim 1; resident {memory / 2**20:.0f} MiB")


def key_seconds(terminal: Terminal, key: str, wanted: bytes) -> float:
    """Seconds from a key press to the painting that has ``wanted``, tmux's own part included."""
    while terminal.readable():
        terminal.next_bytes()
    begun = time.perf_counter()
    terminal.press(key)
    seen = terminal.next_bytes()
    while wanted not in seen:
        seen += terminal.next_bytes()
    return time.perf_counter() - begun


def open_live(terminal: Terminal) -> None:
    """Opens the recipe of the project on its benchmark stage."""
    terminal.wait_for(lambda text: "digits" in text.partition("Recipes")[2].partition("Runs")[0])
    terminal.press("Enter")
    terminal.wait_for("4 Benchmark")
    terminal.press("4")
    terminal.wait_for("Figures")


STAGES = itertools.cycle((("7", b"Steps"), ("2", b"Variants"), ("4", b"Figures")))
ROWS_PRESSED = 4


def presses(terminal: Terminal) -> dict[str, list[float]]:
    """Seconds of some keys: the cursor up or down a table, and then to the next stage, a whole painting."""
    found: dict[str, list[float]] = {"a row": [], "a stage": []}
    stage, told = next(STAGES)
    time.sleep(0.1)
    found["a stage"].append(key_seconds(terminal, stage, told))
    if stage == "7":
        for number in range(ROWS_PRESSED):
            time.sleep(0.1)
            found["a row"].append(key_seconds(terminal, "Down" if number % 2 == 0 else "Up", b""))
    return found


def keys(project: Path) -> None:
    """Goes from stage to stage and along rows, while a run compresses and measures."""
    real = app_project.make(project / "real-keys")
    found: dict[tuple[str, str], list[float]] = {}

    def press(doing: str) -> None:
        for what, each in presses(terminal).items():
            found.setdefault((what, doing), []).extend(each)

    with Terminal(APP, real) as terminal:
        terminal.wait_for("never run")
        terminal.press("Enter")
        terminal.wait_for("Compress")
        run = app_project.start(real, "--set", "benchmark.alone.duration=30s")
        while runs.is_alive(run):
            kinds = app_project.at_work(run)
            doing = "compressing" if kinds & {"quantize", "evaluate", "latency"} else ""
            press("benchmarking" if "benchmark" in kinds else doing or "the rest of a run")
        for _ in range(60):
            press("nothing")
    for (what, doing), each in sorted(found.items()):
        told = f"p50 {1e3 * percentile(each, 0.5):.0f} ms, p99 {1e3 * percentile(each, 0.99):.0f} ms"
        print(f"key to repaint, {what}, at work on {doing}: {told} over {len(each)} keys (with tmux's part); aim 50")


def percentile(values: list[float], level: float) -> float:
    return sorted(values)[min(len(values) - 1, int(level * len(values)))]


def live(project: Path) -> None:
    """The app's processor time on the benchmark stage, while a benchmark runs."""
    real = app_project.make(project / "real-live")
    run = app_project.start(real, "--set", "benchmark.alone.duration=30s")
    with Terminal(APP, real) as terminal:
        open_live(terminal)
        while "benchmark" not in app_project.at_work(run):
            time.sleep(0.5)
        terminal.wait_for("Latency over time")
        terminal.wait_for("image")
        shares = [processor(terminal, 10) for _ in range(3)]
        if "benchmark" not in app_project.at_work(run):
            raise SystemExit("The benchmark ended before the app was measured.")
        runs.cancel(run)
    print(f"live panels: {spread(shares, '% of a core', 100)}; aim 10")


def large(project: Path) -> None:
    """A run with a million samples and a step's log of 500 MB."""
    folder = app_project.large_run(project)
    with Terminal(APP, project) as terminal:
        terminal.wait_for(lambda text: text.count("21/21") == 2)
        terminal.press("Tab")
        while terminal.readable():
            terminal.next_bytes()
        begun = time.perf_counter()
        terminal.press("Enter")
        seen = b""
        while b"Steps" not in seen:
            seen += terminal.next_bytes()
        opened = time.perf_counter() - begun
        terminal.wait_for("Variants")
        asked = time.perf_counter()
        terminal.press("o")  # from the report to the log, of the first step
        terminal.wait_for("eighty letters")
        read = time.perf_counter() - asked
        terminal.press("4")
        time.sleep(3)
        memory = psutil.Process(terminal.pid).memory_info().rss
    shutil.rmtree(folder)
    print(f"a run with 1,000,000 samples and a log of 500 MB: open in {opened:.2f} s, aim 1; its log in {read:.2f} s;")
    print(f"  resident {memory / 2**20:.0f} MiB")


def hours(project: Path) -> None:
    """Memory with live panels over the samples of hours, which come a hundred times as fast."""
    times, minutes = 100, 4
    with app_project.live_run(project, times), Terminal(APP, project) as terminal:
        terminal.wait_for("running")
        terminal.press("Tab", "Enter")
        terminal.wait_for("Steps")
        terminal.press("4")
        terminal.wait_for("Live")
        found = []
        for _ in range(minutes * 2):
            time.sleep(30)
            found.append(psutil.Process(terminal.pid).memory_info().rss / 2**20)
    told = ", ".join(f"{each:.0f}" for each in found)
    print(f"live panels over the samples of {times * minutes / 60:.1f} h, come in {minutes} min: resident {told} MiB")


def attached(project: Path) -> None:
    """What the app changes of the p99 that a benchmark measures: the app beside it against none, in turns."""
    real = app_project.make(project / "real-attached")
    app_project.wait(app_project.start(real, "--until", "parity"))
    taken = 0

    def p99(app: bool) -> float:
        nonlocal taken
        taken += 1  # another duration is another figure: it is measured, not taken from the store
        words = ("--set", f"benchmark.alone.duration={5000 + taken}ms", "--until", "benchmark/alone")
        if not app:
            return p99_of(app_project.wait(app_project.start(real, *words)))
        with Terminal(APP, real) as terminal:
            open_live(terminal)
            return p99_of(app_project.wait(app_project.start(real, *words)))

    def p99_of(steps: object) -> float:
        return float(steps["benchmark/alone"].values["image"]["p99_ns"])  # type: ignore[index]

    ratios: dict[str, list[float]] = {"app attached": [], "A/A": []}
    for number in range(PAIRS):
        for name, app in (("app attached", True), ("A/A", False)):
            if number % 2:
                one, other = p99(app), p99(False)
            else:
                other, one = p99(False), p99(app)
            ratios[name].append(one / other)
    for name, each in ratios.items():
        interval = median_interval(each)
        low, high = interval or (min(each), max(each))
        told = f"{statistics.median(each):.3f} times [{low:.3f}, {high:.3f}]"
        print(f"p99 of the image, {name}: {told} over {PAIRS} pairs")
    print("  aim: within 2%")


def main() -> None:
    chosen = sys.argv[1:]
    each = (start, idle, keys, live, large, hours, attached)
    parts: dict[str, Callable[[Path], None]] = {part.__name__: part for part in each}
    print(f"load of the machine before: {os.getloadavg()[0]:.2f}")
    with tempfile.TemporaryDirectory(prefix="workbench-bench-app-") as folder:
        project = Path(folder)
        (project / "recipes").mkdir()
        record(run_events(), runs_folder(project) / "20261124-100000.000-digits-aaaa")
        for name, part in parts.items():
            if not chosen or name in chosen:
                part(project)


if __name__ == "__main__":
    main()
