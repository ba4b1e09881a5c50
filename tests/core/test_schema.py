"""The schema that editors use is the one that recipes are read by."""

from __future__ import annotations

import json
from pathlib import Path

from support import ROOT, workbench


def test_the_shipped_schema_has_not_drifted(tmp_path: Path) -> None:
    done = workbench(tmp_path, "schema")
    assert done.returncode == 0
    shipped = ROOT / "assets" / "recipe.schema.json"
    assert json.loads(done.stdout) == json.loads(shipped.read_text()), f"write it anew: workbench schema > {shipped}"


def test_the_shipped_recipes_are_valid(tmp_path: Path) -> None:
    recipes = [str(path) for path in (ROOT / "recipes").glob("*.yaml") if not path.name.endswith(".lock.yaml")]
    assert recipes
    assert workbench(tmp_path, "validate", *recipes).returncode == 0
