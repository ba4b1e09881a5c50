"""Where recipes stand, with the figures of their choice: those of a machine like this one where there are any."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support import RECIPE

from workbench import lock, recipe, runs
from workbench.lock import Artifacts, Figure, HostFigures, Lock
from workbench.runs import Request
from workbench.status import recipes_status
from workbench.store import digest_of

HERE = "This CPU, 2 cores, 8 GiB"


def figure(value: float) -> Figure:
    return Figure(value=value, unit="", better="lower", kind="size")


def figures(scale: float = 1.0) -> HostFigures:
    values = {"original.size": 400.0, "int8.size": 100, "original.p50": 2000 * scale, "int8.p50": 1000 * scale}
    return HostFigures(
        machine={}, values={name: figure(value) for name, value in {**values, "int8.ratio": 0.5}.items()}
    )


@pytest.fixture
def locked(project: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Writes a lock with the figures of some machines; this one is HERE."""
    monkeypatch.setattr("workbench.status._this_machine", lambda: HERE)

    def write(choice: str = "int8", **machines: HostFigures) -> dict[str, Any]:
        file = recipe.load(project / "recipes" / "digits.yaml")
        sources = {name: digest_of(project / str(path)) for name, path in file.recipe.inputs.items()}
        artifacts = Artifacts(toolchain={}, instruction_set="", seed=0, sources=sources, made={}, choice=choice)
        lock.save(Lock(recipe=lock.recipe_digests(file.recipe), artifacts=artifacts, figures=machines), file.lock_path)
        return recipes_status(project)[0]

    return write


def test_without_a_lock_there_are_no_figures(project: Path) -> None:
    row = recipes_status(project)[0]

    assert (row["status"], row["figures"]) == ("never run", None)


def test_the_choice_stands_beside_the_original(locked: Any) -> None:
    row = locked(**{HERE: figures()})

    assert row["status"] == "as locked"
    assert row["figures"] == {
        "machine": HERE,
        "here": True,
        "size": {"value": 100, "original": 400},
        "p50": {"value": 1000, "original": 2000},
        "ratio": 0.5,
    }


def test_figures_of_a_machine_like_this_one_go_first_and_others_are_named(locked: Any) -> None:
    assert locked(**{"Another": figures(9), HERE: figures()})["figures"]["p50"]["value"] == 1000

    elsewhere = locked(Another=figures(9))["figures"]
    assert (elsewhere["machine"], elsewhere["here"], elsewhere["p50"]["value"]) == ("Another", False, 9000)


def test_the_original_as_the_choice_has_no_ratio(locked: Any) -> None:
    found = locked("original", **{HERE: figures()})["figures"]

    assert found["size"] == {"value": 400, "original": 400}
    assert found["ratio"] is None


def test_a_recipe_that_was_edited_has_changed_and_keeps_its_figures(locked: Any, project: Path) -> None:
    locked(**{HERE: figures()})
    (project / "recipes" / "digits.yaml").write_text(RECIPE + "gate: {metric_drop: 0.02}\n")
    row = recipes_status(project)[0]

    assert row["status"] == "changed since"
    assert row["figures"]["size"]["value"] == 100


def test_the_last_run_of_each_recipe_is_its_own(project: Path) -> None:
    import json
    from dataclasses import asdict

    (project / "recipes" / "other.yaml").write_text(RECIPE.replace("name: digits", "name: other"))
    for name, path in (("1-a", "digits"), ("2-b", "other"), ("3-c", "digits")):
        folder = runs.runs_folder(project) / name
        folder.mkdir(parents=True)
        request = Request(project=str(project), recipe=str(project / "recipes" / f"{path}.yaml"), command=[])
        (folder / "request.json").write_text(json.dumps(asdict(request)))

    assert [(row["recipe"], row["last_run"]) for row in recipes_status(project)] == [
        ("recipes/digits.yaml", "3-c"),
        ("recipes/other.yaml", "2-b"),
    ]
