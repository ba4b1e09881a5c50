"""The whole way in a real terminal with a real engine, by keys alone: from a model file to a pushed image in git."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import services
from support import git, workbench
from terminal import Terminal

APP = [sys.executable, "-P", "-m", "workbench"]
SHIPPED = Path(__file__).parents[2] / "assets" / "digits"
SIZE = (120, 40)
LONG = 900.0
"""Seconds that a run may take on a machine at work on other things."""


@pytest.fixture
def fresh(tmp_path: Path) -> Path:
    """A git repository with a model and its data, and nothing of workbench's."""
    folder = tmp_path / "digits-service"
    (folder / "models").mkdir(parents=True)
    for name in ("digits.onnx", "test.npz", "calibrate.npz"):
        shutil.copy(SHIPPED / name, folder / "models" / name)
    git(folder, "init", "--quiet", "--initial-branch", "main")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "The model")
    return folder


def subjects(folder: Path) -> list[str]:
    """The commits' first lines, the oldest first."""
    return git(folder, "log", "--reverse", "--format=%s").splitlines()


@pytest.mark.integration
@pytest.mark.timeout(2 * LONG)
def test_from_a_model_file_to_a_pushed_image_by_keys_alone(
    fresh: Path, engine: services.Service, tmp_path: Path
) -> None:
    environment = {"DOCKER_HOST": engine.address, "DOCKER_CONFIG": str(tmp_path / "docker-config")}
    with Terminal(APP, fresh, SIZE, environment) as app:
        # A first recipe: the form finds the model and its data, and shows what it will write.
        app.wait_for("No recipe yet")
        app.press("n")
        app.wait_for("source: models/digits.onnx")
        app.press("C-s")
        app.wait_for("Variants")
        assert "builder: docker" in (fresh / "recipes/digits.yaml").read_text()
        app.press("r")
        app.wait_for("run running")
        app.kill()  # in the middle of it, without a word

    with Terminal(APP, fresh, SIZE, environment) as app:
        app.wait_for(lambda text: text.count("running") > 1)  # the recipe's row, and the run's
        app.press("Enter")
        app.wait_for("run done", LONG)
        screen = app.wait_for("◆ chosen")
        assert "✓ gates hold" in screen

        # Another variant by hand, and that committed.
        app.press("Down", "Down")
        app.wait_for("─ int8-dynamic")
        app.press("x")
        app.wait_for("by hand: int8-dynamic")
        app.press("C-s")
        app.wait_for("chosen by hand: int8-dynamic")
        app.press("6")
        app.wait_for("workbench: 1")
        app.press("m")
        app.wait_for("Commit recipe and lock")
        app.type("Choose by hand")
        app.press("C-s")
        app.wait_for(lambda text: "Commit recipe and lock" not in text)

        # Built, measured and pushed again, from what is there already.
        app.press("r")
        app.wait_for("run running")
        app.wait_for("run done", LONG)
        app.press("3")
        app.wait_for("model")
        app.press("4")
        app.wait_for("over HTTP")
        app.press("5")
        pushed = app.wait_for("sha256:")
        app.press("q")
        assert app.wait_for_end() == 0

    assert "Choose by hand" in subjects(fresh)
    assert len(subjects(fresh)) == 4, subjects(fresh)
    [row] = json.loads(workbench(fresh, "status", "--json").stdout)
    assert row["status"] == "as locked"
    assert row["image"].removeprefix("sha256:")[:12] in pushed or "digits" in pushed
    assert git(fresh, "status", "--porcelain") == ""
    verified = workbench(fresh, "verify", "oci:.workbench/registry:digits:latest")
    assert verified.returncode == 0, verified.stderr
    copied = subprocess.run(
        ["skopeo", "inspect", "--raw", "oci:.workbench/registry:digits:latest"],
        cwd=fresh,
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(copied.stdout)["layers"]
