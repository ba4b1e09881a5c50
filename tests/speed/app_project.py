"""Projects that the app is measured on: real runs of the digits recipe, and a run that only is written down."""

from __future__ import annotations

import contextlib
import fcntl
import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from example_run import record, run_events
from support import ROOT

from workbench import runs
from workbench.events import EventReader, RunFinished, StepFinished

RECIPE = """\
workbench: 1
name: digits
model: {source: digits.onnx, preprocess: {scale: 0.0625}}
data: {evaluate: test.npz, calibrate: calibrate.npz, metric: accuracy}
variants:
  int8: [{quantize: {to: int8, mode: static}}]
  dynamic: [{quantize: {to: int8, mode: dynamic}}]
choose: {minimize: size}
image: {base: {debian: bookworm}}
benchmark:
  alone: {scenario: single-stream, duration: 5s}
"""


def make(folder: Path) -> Path:
    """A git repository with the digits, and their recipe."""
    (folder / "recipes").mkdir(parents=True)
    (folder / "recipes/digits.yaml").write_text(RECIPE)
    for name in ("digits.onnx", "test.npz", "calibrate.npz"):
        shutil.copy(ROOT / "assets/digits" / name, folder)
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    return folder


def start(folder: Path, *words: str) -> Path:
    """Starts a run of the recipe; its run folder."""
    command = [sys.executable, "-P", "-m", "workbench", "run", "recipes/digits.yaml", "--detach", "--no-commit"]
    said = subprocess.run([*command, *words], cwd=folder, check=True, capture_output=True, text=True).stdout
    return runs.runs_folder(folder) / said.strip()


def wait(run: Path) -> dict[str, StepFinished]:
    """The run's steps by name, when it has ended well."""
    for _ in runs.follow(run):
        pass
    found = list(EventReader(run / "events.jsonl").new())
    if not isinstance(found[-1], RunFinished) or found[-1].exit_code:
        raise SystemExit(f"The run failed: {found[-1]}")
    return {event.step: event for event in found if isinstance(event, StepFinished)}


def at_work(run: Path) -> set[str]:
    """The kinds of the steps that are running now."""
    return {step.kind for step in runs.state_of(run).steps.values() if step.status == "running"}


SENSORS = {
    "cpu": 50.0,
    "cpu_each": [50.0, 50.0],
    "memory_used": 1 << 30,
    "memory_total": 24 << 30,
    "gpus": [],
}
HISTOGRAM = [[100_000 + 6_000 * number, 40 - number] for number in range(40)]


def sample_lines(now: float) -> bytes:
    """What 250 ms of a benchmark leave in ``samples.jsonl``."""
    samples = [
        ("sensors", SENSORS),
        ("container", {"tree": {"cpu": 80.0, "memory": 80 << 20}}),
        ("latency", {"series": "image", "histogram": HISTOGRAM}),
        ("latency", {"series": "process", "histogram": HISTOGRAM}),
    ]
    return b"".join(
        json.dumps({"time": now, "step": "benchmark/alone", "kind": kind, "values": values}).encode() + b"\n"
        for kind, values in samples
    )


def large_run(project: Path) -> Path:
    """A run with a million samples, and a step's log of 500 MB."""
    folder = record(run_events(), runs.runs_folder(project) / "20261201-100000.000-large-aaaa")
    (folder / "logs").mkdir(exist_ok=True)
    line = b"a line of a build's output that is eighty letters long, as they often are there.\n"
    with (folder / "logs/model.txt").open("wb") as log:
        for _ in range(500):
            log.write(line * (1_000_000 // len(line)))
    with (folder / "samples.jsonl").open("wb") as samples:
        for number in range(250_000):
            samples.write(sample_lines(1_700_000_000.0 + number / 4))
    return folder


@contextlib.contextmanager
def live_run(project: Path, times: int) -> Iterator[None]:
    """A run at work whose samples come ``times`` as fast as those of a real one: what hours leave, in minutes."""
    events = [event for event in run_events() if not isinstance(event, RunFinished)]
    ends = [isinstance(event, StepFinished) and event.step.startswith("benchmark") for event in events]
    last = ends.index(True)
    folder = record(events[:last], runs.runs_folder(project) / "20261202-100000.000-live-aaaa")
    ended = threading.Event()

    def write() -> None:
        now = time.time()
        with (folder / "samples.jsonl").open("ab", buffering=0) as samples:
            while not ended.wait(0.25):
                for _ in range(times):
                    now += 0.25
                    samples.write(sample_lines(now))

    with (folder / "lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        writer = threading.Thread(target=write)
        writer.start()
        try:
            yield
        finally:
            ended.set()
            writer.join()
