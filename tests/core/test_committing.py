"""``workbench commit``: an edited recipe and its lock go into git, and nothing else of the user's."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from support import git, workbench

RECIPE = "recipes/digits.yaml"


def test_an_edited_recipe_is_committed_with_what_changed_and_nothing_else(project: Path) -> None:
    (project / "mine.txt").write_text("mine")
    git(project, "add", "mine.txt")
    assert workbench(project, "edit", RECIPE, "seed=7").returncode == 0
    done = workbench(project, "commit", RECIPE)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == git(project, "rev-parse", "HEAD").strip()
    assert git(project, "show", "--name-only", "--format=%s").split() == ["digits:", "seed", "—", "→", "7", RECIPE]
    assert git(project, "status", "--porcelain") == "A  mine.txt\n"


def test_several_changes_are_listed_and_a_message_is_taken(project: Path) -> None:
    workbench(project, "edit", RECIPE, "seed=7", "data.metric=f1")
    workbench(project, "commit", RECIPE)
    said = git(project, "log", "-1", "--format=%B")
    assert said.startswith("digits: 2 changes\n")
    assert "- data.metric accuracy → f1" in said
    workbench(project, "edit", RECIPE, "seed=8")
    workbench(project, "commit", RECIPE, "-m", "another seed")
    assert git(project, "log", "-1", "--format=%s") == "another seed\n"


def test_nothing_changed_is_said_and_no_commit(project: Path) -> None:
    before = git(project, "rev-parse", "HEAD")
    done = workbench(project, "commit", RECIPE)
    assert (done.returncode, done.stdout) == (0, "")
    assert "nothing to commit" in done.stderr
    assert json.loads(workbench(project, "commit", RECIPE, "--json").stdout)["commit"] == ""
    assert git(project, "rev-parse", "HEAD") == before


def test_the_first_commit_of_a_repository_is_made(project: Path) -> None:
    shutil.rmtree(project / ".git")
    git(project, "init", "--quiet")
    assert workbench(project, "commit", RECIPE).returncode == 0
    assert git(project, "show", "--name-only", "--format=%s").split() == ["digits:", "first", "recipe", RECIPE]


def test_a_commit_that_is_asked_for_needs_no_automatic_ones(project: Path) -> None:
    git(project, "config", "workbench.commit", "false")
    workbench(project, "edit", RECIPE, "seed=7")
    assert workbench(project, "commit", RECIPE).returncode == 0
    assert git(project, "status", "--porcelain") == ""


@pytest.mark.parametrize("why", ["not in a git repository", "not valid", "HEAD is detached"])
def test_what_cannot_be_committed_says_why(project: Path, why: str) -> None:
    (project / RECIPE).write_text((project / RECIPE).read_text() + "seed: 7\n")
    if why == "not in a git repository":
        shutil.rmtree(project / ".git")
        (project / ".workbench").mkdir()
    elif why == "not valid":
        (project / RECIPE).write_text((project / RECIPE).read_text() + "sed: 7\n")
    else:
        git(project, "checkout", "--quiet", "--detach")
    done = workbench(project, "commit", RECIPE)
    assert done.returncode == 2
    assert why in done.stderr
