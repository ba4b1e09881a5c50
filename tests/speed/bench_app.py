"""``make bench-app``: what the app costs, in a real terminal (tmux). Prints medians and ratios; asserts nothing."""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "screens"))

from example_run import record, run_events
from terminal import Terminal

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


def keys(terminal: Terminal, count: int) -> list[float]:
    """Seconds from a key press to what it paints, tmux's own part included."""
    found = []
    for number in range(count):
        key, wanted = ("?", b"Keys") if number % 2 == 0 else ("Escape", b"")
        while _readable(terminal):
            terminal.next_bytes()
        begun = time.perf_counter()
        terminal.press(key)
        seen = terminal.next_bytes()
        while wanted not in seen:
            seen += terminal.next_bytes()
        found.append(time.perf_counter() - begun)
        time.sleep(0.05)
    return found


def _readable(terminal: Terminal) -> bool:
    try:
        terminal.next_bytes(0.02)
    except TimeoutError:
        return False
    return True


def key_presses(project: Path) -> None:
    with Terminal(APP, project) as terminal:
        terminal.wait_for("git")
        found = sorted(keys(terminal, 200))
    print(f"key to repaint, tmux's part in it: p50 {found[100] * 1e3:.1f} ms, p99 {found[197] * 1e3:.1f} ms; aim 50")


def large(project: Path) -> None:
    """A run with a million samples and a step's log of 500 MB."""
    folder = record(run_events(), runs_folder(project) / "20261201-100000.000-large-aaaa")
    (folder / "logs").mkdir()
    line = b"a line of a build's output that is eighty letters long, as they often are there.\n"
    with (folder / "logs/model.txt").open("wb") as log:
        for _ in range(500):
            log.write(line * (1_000_000 // len(line)))
    values = {"cpu_percent": 50.0, "cpu_percents": [50.0, 50.0], "memory_used_bytes": 1 << 30}
    sample = json.dumps({"time": 1_700_000_000.0, "step": "benchmark/alone", "kind": "sensors", "values": values})
    with (folder / "samples.jsonl").open("w") as samples:
        for _ in range(100):
            samples.write(f"{sample}\n" * 10_000)
    with Terminal(APP, project) as terminal:
        terminal.wait_for("git")
        terminal.press("Tab")
        terminal.next_bytes()
        begun = time.perf_counter()
        terminal.press("Enter")
        terminal.wait_for("Log of model")
        took = time.perf_counter() - begun
        time.sleep(5)
        memory = psutil.Process(terminal.pid).memory_info().rss
    print(f"a run with 1,000,000 samples and a log of 500 MB: open in {took:.2f} s, aim 1; {memory / 2**20:.0f} MiB")


def main() -> None:
    chosen = sys.argv[1:]
    parts: dict[str, Callable[[Path], None]] = {"start": start, "idle": idle, "keys": key_presses, "large": large}
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
