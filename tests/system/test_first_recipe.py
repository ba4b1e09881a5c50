"""From a model file to a run, by the commands that ``workbench new`` says."""

from __future__ import annotations

import json
from pathlib import Path

from support import workbench


def test_a_first_recipe_runs_and_its_variants_keep_its_gate(project: Path) -> None:
    """Up to the choice; what comes after is the same as for every recipe."""
    made = workbench(project, "new", "assets/digits/digits.onnx", "--name", "first")
    assert "workbench run recipes/first.yaml" in made.stderr
    done = workbench(project, "run", "recipes/first.yaml", "--until", "choose", "--json")

    assert done.returncode == 0, done.stderr
    state = json.loads(done.stdout)
    gates = {each["name"]: [gate["state"] for gate in each["gates"]] for each in state["variants"]}
    assert gates == {name: ["holds"] for name in ("original", "int8", "int8-dynamic", "int8-weights")}
