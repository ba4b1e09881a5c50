"""A Dockerfile given away: built by hand it makes the image that the recipe makes."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import services
from docker_helpers import client_of
from support import workbench

from workbench import runs
from workbench.events import RunState
from workbench.image import buildkit, saved
from workbench.image.tree import differences, tree_entries
from workbench.store import Store

SECRET = "http://me:hunter2@proxy.example.com:3128"
MORE = """\
gate: {model_size: 1MiB}   # only int8 keeps it, however fast the machine finds which of the two
image: {base: {debian: bookworm}}
"""


def test_a_recipe_that_was_not_run_yet_is_refused(project: Path, tmp_path: Path) -> None:
    done = workbench(project, "eject", "recipes/digits.yaml", str(tmp_path / "out"))
    assert done.returncode == 2
    assert "makes no image" in done.stderr
    recipe = project / "recipes" / "digits.yaml"
    recipe.write_text(recipe.read_text() + MORE)
    done = workbench(project, "eject", "recipes/digits.yaml", str(tmp_path / "out"))
    assert done.returncode == 2
    assert "was not run yet" in done.stderr
    assert "workbench run recipes/digits.yaml" in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.fixture
def state(project: Path) -> RunState:
    """A run of the recipe with an image, to its end."""
    recipe = project / "recipes" / "digits.yaml"
    recipe.write_text(recipe.read_text() + MORE)
    done = workbench(project, "run", "recipes/digits.yaml")
    assert done.returncode == 0, done.stderr
    return runs.state_of(runs.all_runs(project)[0])


def docker(folder: Path, engine: services.Service, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The plain command line, as a user types it."""
    env = {**os.environ, "DOCKER_HOST": engine.address, "DOCKER_BUILDKIT": "1", **environment}
    program = buildkit.find_cli().words[0]
    return subprocess.run([program, *words], cwd=folder, env=env, capture_output=True, text=True, check=False)


@pytest.mark.integration
def test_built_by_hand_it_is_the_recipes_image(
    state: RunState, project: Path, engine: services.Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker-config"))
    out = tmp_path / "out"
    done = workbench(project, "eject", "recipes/digits.yaml", str(out))
    assert done.returncode == 0, done.stderr
    assert {path.name for path in out.iterdir()} == {
        *("Dockerfile", ".dockerignore", "README.md", "base.tar", "build", "wheels", "server.tar", "model.tar")
    }
    for path in (path for path in out.rglob("*") if path.is_file() and path.name != "base.tar"):
        assert str(tmp_path).encode() not in path.read_bytes()
    assert [path for path in tmp_path.iterdir() if path.name.startswith(".eject")] == []
    assert workbench(project, "dockerfile", "recipes/digits.yaml").stdout == (out / "Dockerfile").read_text()
    again = workbench(project, "eject", "recipes/digits.yaml", str(out))
    assert again.returncode == 2
    assert "is there already" in again.stderr

    commands = [line.strip() for line in (out / "README.md").read_text().splitlines() if line.startswith("    docker ")]
    assert commands[:2] == ["docker load --input base.tar", "docker build --network=none --tag digits ."]
    assert docker(out, engine, *commands[0].split()[1:]).returncode == 0

    with_network = docker(out, engine, "build", ".")
    assert with_network.returncode != 0
    assert "Build with --network=none." in with_network.stderr

    words = ["build", "--network=none", "--build-arg", "HTTP_PROXY", "--tag", "by-hand", "."]
    made = docker(out, engine, *words, HTTP_PROXY=SECRET)
    assert made.returncode == 0, made.stderr
    with client_of(engine.address) as client:
        image = client.images.get("by-hand")
        told = json.dumps([image.attrs, image.history()])
        found = saved.read(image.save(), tmp_path / "saved")
        client.images.remove("by-hand")
    assert "hunter2" not in told + found.config.decode() + made.stderr
    assert str(tmp_path) not in told
    by_hand = tree_entries(found.layers, json.loads(found.config)["rootfs"]["diff_ids"])
    assert differences(tree_entries(blobs_of(project, state)), by_hand) == []


def blobs_of(project: Path, state: RunState) -> list[Path]:
    """The layers of the recipe's image, lowest first."""
    store = Store(project / ".workbench")
    steps: dict[str, Any] = {
        name: state.steps[name].files for name in ("base", "wheels", "server-layer", "bytecode-layer", "model-layer")
    }
    return [store.path(files["blob"]["digest"]) for files in steps.values()]
