"""What tests of several rooms need: the checkout, git, and the command as a user runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from workbench import runs
from workbench.events import RunState

ROOT = Path(__file__).resolve().parent.parent

RECIPE = """\
workbench: 1
name: digits
model:
  source: assets/digits/digits.onnx   # as trained
  preprocess: {scale: 0.0625}
data:
  evaluate: assets/digits/test.npz
  calibrate: assets/digits/calibrate.npz
  metric: accuracy
variants:
  int8: [{quantize: {to: int8, mode: static}}]
"""


def git(folder: Path, *words: str) -> str:
    """What git prints."""
    return subprocess.run(["git", *words], cwd=folder, check=True, capture_output=True, text=True).stdout


def workbench(folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command, as a user runs it."""
    return subprocess.run(
        [sys.executable, "-m", "workbench", *words],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def run(project: Path, *words: str) -> RunState:
    """A run to its end; its state."""
    workbench(project, "run", "recipes/digits.yaml", *words)
    return runs.state_of(runs.all_runs(project)[0])
