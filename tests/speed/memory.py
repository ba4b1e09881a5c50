"""The largest memory of the processes that only watch and lead, with a model near what a protocol buffer can hold."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
from ground import WORKBENCH, Ground, tell
from measure import Row, Section, reap
from models import write_model, write_samples

from workbench.process import children_of, descendants

WIDTH, LAYERS = 6880, 10  # 1.89 GB of float32
NEEDED = 14e9
POLL_S = 0.01

RECIPE = """\
workbench: 1
name: large
model: {source: assets/large/model.onnx}
data: {evaluate: assets/large/samples.npz, metric: fidelity}
"""

MB = 1e6
UNTIL = "evaluate/original"


def leading(ground: Ground) -> Section:
    """``workbench run --until evaluate/original``: VmHWM of the command, of the run process, and of the workers."""
    title = "Memory with a model of 1.9 GB"
    if psutil.virtual_memory().available < NEEDED:
        return Section(title, [], [f"Left out: the steps themselves need about {NEEDED / 1e9:.0f} GB here."])
    project = ground.folder / "large"
    (project / ".workbench").mkdir(parents=True, exist_ok=True)
    (project / "recipes").mkdir(exist_ok=True)
    (project / "recipes" / "large.yaml").write_text(RECIPE)
    source = project / "assets" / "large" / "model.onnx"
    write_samples(source.with_name("samples.npz"), WIDTH, 2)
    tell("Writing a model of 1.9 GB.")
    size = write_model(source, WIDTH, LAYERS, seed=0)
    try:
        tell("Running it.")
        peaks = _peaks([str(WORKBENCH), "run", "recipes/large.yaml", "--fresh", "--until", UNTIL], project)
    finally:
        source.unlink()
        reap()
        _remove_objects(project)
    rows = [
        Row("the command, watching", (peaks["command"] / MB,), "MB", aim=150.0),
        Row("the run process", (peaks["run"] / MB,), "MB", aim=150.0),
        Row("the largest worker", (peaks["worker"] / MB,), "MB"),
    ]
    said = f"VmHWM, MB is 10^6 bytes; model of {size / 1e9:.2f} GB; workbench run --until {UNTIL}."
    return Section(title, rows, [said])


def _peaks(words: list[str], project: Path) -> dict[str, int]:
    """The peaks of resident memory, in bytes, read until each process is gone: what it had last is its peak."""
    peaks = {"command": 0, "run": 0, "worker": 0}
    with subprocess.Popen(words, cwd=project, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as command:
        while command.poll() is None:
            for role, pid in _roles(command.pid):
                peaks[role] = max(peaks[role], _peak(pid))
            time.sleep(POLL_S)
    if command.returncode or not all(peaks.values()):
        raise SystemExit(f"The run with the large model ended with {command.returncode}; seen: {peaks}")
    return peaks


def _roles(command: int) -> Iterator[tuple[str, int]]:
    yield "command", command
    for run in children_of(command):
        yield "run", run
        for worker in descendants(run):
            yield "worker", worker


def _peak(pid: int) -> int:
    """VmHWM in bytes; 0 for a process that is gone, or that is still the copy of its parent."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:
        return 0
    found = next((line for line in status.splitlines() if line.startswith("VmHWM:")), None)
    return int(found.split()[1]) * 1024 if found else 0


def _remove_objects(project: Path) -> None:
    """The large model's copy in the store is not kept for the next time."""
    for path in (project / ".workbench" / "store" / "objects").glob("*/*"):
        path.unlink()
