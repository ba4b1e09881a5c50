"""The app in a real terminal: opened, driven by keys, killed, opened again."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from terminal import Terminal

APP = [sys.executable, "-P", "-m", "workbench"]
SHIPPED = Path(__file__).parents[2]
RECIPE = """\
workbench: 1
name: digits
model: {source: digits.onnx, preprocess: {scale: 0.0625}}
data: {evaluate: test.npz, calibrate: calibrate.npz, metric: accuracy}
variants:
  int8: [{quantize: {to: int8, mode: static}}]
gate: {metric_drop: 0.05}
choose: {minimize: size}
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A git repository with the digits model and a short recipe."""
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes/digits.yaml").write_text(RECIPE)
    for name in ("digits.onnx", "test.npz", "calibrate.npz"):
        shutil.copy(SHIPPED / "assets/digits" / name, tmp_path)
    for words in (
        ["init", "-q"],
        ["config", "user.name", "T"],
        ["config", "user.email", "t@example.com"],
        ["add", "."],
        ["commit", "-qm", "The model"],
    ):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    return tmp_path


@pytest.mark.integration
def test_a_run_started_by_a_key_goes_on_when_the_app_is_killed_and_is_there_when_it_opens_again(
    project: Path, tmp_path: Path
) -> None:
    with Terminal(APP, project, (100, 36)) as first:
        first.wait_for("never run")
        first.press("r")
        first.wait_for("running")
        first.kill()

    with Terminal(APP, project, (100, 36)) as again:
        again.wait_for(lambda text: "as locked" in text and "✓ done" in text, 300)
        again.press("Enter")
        again.wait_for("all hold")
        again.press("7")
        again.wait_for("✓ done")
        again.press("q")
        assert again.wait_for_end() == 0
    log = subprocess.run(["git", "log", "--format=%s"], cwd=project, check=True, capture_output=True, text=True).stdout
    assert len(log.splitlines()) == 2
    assert (project / "recipes/digits.lock.yaml").exists()
