"""Recipes checked for editors: problems with their lines as JSON, also of a text that is not saved."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from support import workbench

RECIPE = "recipes/digits.yaml"


def unsaved(project: Path, text: bytes, *words: str) -> subprocess.CompletedProcess[bytes]:
    """``workbench validate --stdin`` with that text."""
    command = [sys.executable, "-m", "workbench", "validate", "--stdin", *words]
    return subprocess.run(command, cwd=project, input=text, capture_output=True, check=False)


def test_each_problem_has_its_line_as_json(project: Path) -> None:
    path = project / RECIPE
    (project / "recipes" / "good.yaml").write_text(path.read_text())
    path.write_text(path.read_text().replace("metric: accuracy", "metric: acuracy").replace("name:", "nam:"))
    done = workbench(project, "validate", RECIPE, "recipes/good.yaml", "recipes/none.yaml", "--json")
    assert done.returncode == 2
    bad, good, none = json.loads(done.stdout)
    assert (bad["recipe"], bad["valid"]) == (RECIPE, False)
    assert [(each["line"], each["where"]) for each in bad["problems"]] == [(1, "name"), (2, "nam"), (9, "data.metric")]
    assert "did you mean 'accuracy'?" in bad["problems"][2]["message"]
    assert (good["valid"], good["problems"]) == (True, [])
    assert none["problems"][0]["line"] == 0
    assert "There is no file" in none["problems"][0]["message"]


def test_locks_that_a_pattern_takes_along_are_left_out(project: Path) -> None:
    (project / "recipes" / "digits.lock.yaml").write_text("workbench-lock: 1\n")
    both = ["recipes/digits.lock.yaml", RECIPE]  # what a shell makes of recipes/*.yaml
    done = workbench(project, "validate", *both)
    assert (done.returncode, done.stdout) == (0, f"{RECIPE}: valid\n")
    for command in ("validate", "replay"):
        done = workbench(project, command, both[0])
        assert (done.returncode, done.stderr) == (2, f"workbench: {both[0]} is a lock.\nName its recipe.\n")


def test_a_valid_recipe_is_exit_0_as_json(project: Path) -> None:
    done = workbench(project, "validate", RECIPE, "--json")
    assert done.returncode == 0
    assert [each["valid"] for each in json.loads(done.stdout)] == [True]


def test_yaml_that_does_not_parse_has_its_line(project: Path) -> None:
    (project / RECIPE).write_text("workbench: 1\nname: [a\nmodel: {}\n")
    found = json.loads(workbench(project, "validate", RECIPE, "--json").stdout)
    assert [each["line"] for each in found[0]["problems"]] == [3]


def test_an_unsaved_text_is_checked_as_if_it_stood_there(project: Path) -> None:
    saved = (project / RECIPE).read_bytes()
    assert unsaved(project, saved, "recipes/new.yaml").returncode == 0
    done = unsaved(project, saved.replace(b"test.npz", b"tset.npz"), RECIPE, "--json")
    assert done.returncode == 2
    assert "there is no file assets/digits/tset.npz" in json.loads(done.stdout)[0]["problems"][0]["message"]
    assert (project / RECIPE).read_bytes() == saved
    assert not (project / "recipes" / "new.yaml").exists()


def test_an_unsaved_text_that_is_none_is_told_as_such(project: Path) -> None:
    done = unsaved(project, b"\xff\xfe", RECIPE)
    assert done.returncode == 2
    assert b"is not UTF-8 text" in done.stderr
    assert unsaved(project, b"", RECIPE, "recipes/other.yaml").returncode == 2
