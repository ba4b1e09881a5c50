"""What ``workbench doctor`` tells of the places where recipes push to."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from services import Service
from support import RECIPE

from workbench import doctor


def recipe_that_pushes(project: Path, name: str, to: str) -> None:
    (project / "recipes" / f"{name}.yaml").write_text(
        RECIPE.replace("name: digits", f"name: {name}")
        + f'image: {{builder: oci, base: {{debian: bookworm}}}}\npush: {{to: "{to}"}}\n'
    )


def rows(project: Path) -> dict[str, doctor.Row]:
    return {row["what"]: row for row in doctor._registries(project)}


def test_without_a_recipe_that_pushes_it_says_how_one_is_named(tmp_path: Path) -> None:
    (row,) = doctor._registries(tmp_path)
    assert (row["what"], row["state"], row["needed"]) == ("registry", "missing", False)
    assert "push: {to: " in row["cure"]


@pytest.mark.integration
def test_each_registry_is_asked_once_and_told_by_its_host(project: Path, registry: Service) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        silent = f"127.0.0.1:{nobody.getsockname()[1]}"
        recipe_that_pushes(project, "one", f"{registry.address}/doctor/one:1")
        recipe_that_pushes(project, "two", f"{registry.address}/doctor/two:1")
        recipe_that_pushes(project, "three", f"{silent}/team/three:1")
        recipe_that_pushes(project, "four", "oci:.workbench/registry")
        (project / "recipes" / "wrong.yaml").write_text("workbench: 1\nname: [")
        found = rows(project)
    assert set(found) == {f"registry {registry.address}", f"registry {silent}", "registry oci:.workbench/registry"}
    assert found[f"registry {registry.address}"]["found"].startswith("answers; nothing yet as ")
    assert found["registry oci:.workbench/registry"]["found"] == "a folder, empty yet"
    assert found[f"registry {silent}"]["state"] == "missing"
    assert silent in found[f"registry {silent}"]["cure"]
