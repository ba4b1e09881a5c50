"""The app in a real terminal: opened, driven by keys, killed, opened again."""

from __future__ import annotations

import re
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
        again.wait_for("✓ gates hold")
        again.press("7")
        again.wait_for("✓ done")
        again.press("q")
        assert again.wait_for_end() == 0
    log = subprocess.run(["git", "log", "--format=%s"], cwd=project, check=True, capture_output=True, text=True).stdout
    assert len(log.splitlines()) == 2
    assert (project / "recipes/digits.lock.yaml").exists()


def colours(painted: bytes) -> set[str]:
    """What kinds of colours the terminal was told: ``grey`` and ``other`` of the 256, ``16``, ``true``."""
    found = set()
    for codes in re.findall(rb"\x1b\[([0-9;]+)m", painted):
        if b"8;2;" in codes:
            found.add("true")
        for number in map(int, re.findall(rb"8;5;(\d+)", codes)):
            found.add("grey" if number >= 232 or number in _GREYS else "other")
        if set(codes.split(b";")) & _NAMED:
            found.add("16")
    return found


_GREYS = {0, 7, 8, 15, 16, 59, 102, 145, 188, 231}
_NAMED = {b"%d" % number for first in (30, 40, 90, 100) for number in range(first, first + 8)}


@pytest.mark.integration
@pytest.mark.parametrize(
    ("environment", "allowed"),
    [
        ({"NO_COLOR": "1"}, {"grey"}),
        ({"TERM": "screen", "COLORTERM": ""}, {"16"}),
        ({"TERM": "tmux-256color", "COLORTERM": ""}, {"grey", "other"}),
    ],
    ids=["no colour", "16 colours", "256 colours"],
)
def test_no_terminal_is_told_colours_that_it_has_not_and_states_are_words(
    project: Path, environment: dict[str, str], allowed: set[str]
) -> None:
    with Terminal(APP, project, (100, 36), environment) as terminal:
        painted = b""
        while b"never run" not in painted:
            painted += terminal.next_bytes()
        assert "never run" in terminal.text()
        assert colours(painted) <= allowed
        assert colours(painted)


@pytest.mark.integration
def test_a_project_without_a_recipe_comes_to_one_by_two_keys(project: Path) -> None:
    """The only model is taken, and data for it found."""
    shutil.rmtree(project / "recipes")
    with Terminal(APP, project, (100, 36)) as app:
        app.wait_for("No recipe yet.")
        app.press("n")
        app.wait_for("source: digits.onnx")
        app.press("C-s")
        app.wait_for("+ not made yet")
        app.press("q")
        assert app.wait_for_end() == 0
    assert "source: digits.onnx" in (project / "recipes/digits.yaml").read_text()
