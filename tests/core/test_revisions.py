"""``workbench history``: the commits that changed a recipe or its lock, each with what it changed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from support import git, workbench

from workbench.errors import UsageError
from workbench.revisions import revisions

RECIPE = "recipes/digits.yaml"
LOCK = """\
workbench-lock: 1
figures:
  AMD EPYC, 2 cores, 24 GiB:
    values:
      int8.p50: {value: 56118.0, interval: [55900.0, 56300.0], unit: ns, better: lower, kind: latency}
"""


def committed(project: Path, message: str, **files: str) -> str:
    """A commit of files of the recipe, by their suffix; its id."""
    for suffix, text in files.items():
        (project / RECIPE).with_suffix(f".{suffix.replace('_', '.')}").write_text(text)
    git(project, "add", "--all")
    git(project, "commit", "--quiet", "--message", message)
    return git(project, "rev-parse", "HEAD").strip()


def listed(project: Path, *words: str) -> list[dict[str, Any]]:
    done = workbench(project, "history", RECIPE, "--json", *words)
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def test_each_commit_of_recipe_or_lock_tells_what_it_changed_newest_first(project: Path) -> None:
    recipe = (project / RECIPE).read_text()
    first = committed(project, "digits: first lock", lock_yaml=LOCK)
    (project / "notes").write_text("of no concern")
    committed(project, "notes")
    second = committed(
        project, "digits: seed 7\n\nmore", yaml=f"{recipe}seed: 7\n", lock_yaml=LOCK.replace("56118", "61000")
    )

    newest, before, start = listed(project)

    assert [newest["commit"], before["commit"], start["subject"]] == [second, first, "start"]
    assert newest["subject"] == "digits: seed 7"
    assert newest["date"] == git(project, "log", "-1", "--format=%cI").strip()
    assert (newest["recipe"], newest["lock"], before["recipe"], before["lock"]) == (True, True, False, True)
    assert newest["changes"] == [
        {"where": "recipe", "what": "seed", "before": "—", "now": "7"},
        {
            "where": "lock",
            "what": "figures.AMD EPYC, 2 cores, 24 GiB.values.int8.p50",
            "before": "56.118 µs [55.9, 56.3]",
            "now": "61 µs [55.9, 56.3]",
        },
    ]
    assert {each["before"] for each in before["changes"]} == {"—"}


def test_a_reader_sees_a_line_for_each_commit(project: Path) -> None:
    commit = committed(project, "digits: first lock", lock_yaml=LOCK)

    head, line, _ = workbench(project, "history", RECIPE).stdout.splitlines()

    assert head.split() == ["commit", "date", "changed", "figures", "subject"]
    assert line.split()[0] == commit[:12]
    assert line.split()[3:] == ["lock", "1", "digits:", "first", "lock"]


def test_only_the_latest_are_looked_at(project: Path) -> None:
    recipe = (project / RECIPE).read_text()
    for seed in range(4):
        committed(project, f"seed {seed}", yaml=f"{recipe}seed: {seed}\n")
    assert [each["subject"] for each in listed(project, "--limit", "2")] == ["seed 3", "seed 2"]
    assert workbench(project, "history", RECIPE, "--limit", "0").returncode == 2


def test_a_rename_ends_it(project: Path) -> None:
    git(project, "mv", RECIPE, "recipes/other.yaml")
    git(project, "commit", "--quiet", "--message", "renamed")
    assert [each["subject"] for each in revisions(project / "recipes/other.yaml", 9)] == ["renamed"]
    gone, start = revisions(project / RECIPE, 9)
    assert (gone["subject"], start["subject"]) == ("renamed", "start")
    assert {each["now"] for each in gone["changes"]} == {"—"}


def test_a_recipe_that_is_not_valid_now_or_was_no_yaml_then_has_a_history(project: Path) -> None:
    recipe = (project / RECIPE).read_text()
    committed(project, "broken", yaml="name: [")
    committed(project, "mended", yaml=f"{recipe}seed: 7\n")
    (project / RECIPE).write_text("sed: 7\n")

    mended, broken, start = listed(project)

    assert "no plain YAML" in mended["problem"]
    assert "no plain YAML" in broken["problem"]
    assert (mended["recipe"], mended["changes"]) == (True, [])
    assert (start["problem"], len(start["changes"])) == ("", 9)


def test_a_merge_of_two_changes_is_told_against_the_branch_merged_into(project: Path) -> None:
    recipe = (project / RECIPE).read_text()
    git(project, "checkout", "--quiet", "-b", "other")
    committed(project, "theirs", lock_yaml=LOCK)
    git(project, "checkout", "--quiet", "main")
    committed(project, "ours", yaml=f"{recipe}seed: 7\n")
    git(project, "merge", "--quiet", "--no-edit", "other")

    merge = listed(project)[0]

    assert merge["subject"] == "Merge branch 'other'"
    assert (merge["recipe"], merge["lock"]) == (False, True)


def test_a_shallow_clone_tells_what_it_has(project: Path, tmp_path: Path) -> None:
    recipe = (project / RECIPE).read_text()
    committed(project, "seed", yaml=f"{recipe}seed: 7\n")
    git(tmp_path, "clone", "--quiet", "--depth", "1", f"file://{project}", "clone")

    (only,) = revisions(tmp_path / "clone" / RECIPE, 9)

    assert only["subject"] == "seed"
    assert {each["before"] for each in only["changes"]} == {"—"}


def test_a_name_that_reads_as_a_pattern_is_that_name(project: Path) -> None:
    recipe = (project / RECIPE).read_text()
    odd = project / "recipes" / "d*.yaml"
    odd.write_text(recipe)
    committed(project, "odd")
    committed(project, "digits", yaml=f"{recipe}seed: 7\n")
    assert [each["subject"] for each in revisions(odd, 9)] == ["odd"]


def test_what_has_no_history_says_why(project: Path) -> None:
    with pytest.raises(UsageError, match=r"no file .*none\.yaml, nor was there one"):
        revisions(project / "recipes" / "none.yaml", 9)
    new = project / "recipes" / "new.yaml"
    new.write_text((project / RECIPE).read_text())
    assert list(revisions(new, 9)) == []
    shutil.rmtree(project / ".git")
    done = workbench(project, "history", RECIPE)
    assert done.returncode == 2
    assert "git init" in done.stderr


def test_before_the_first_commit_there_is_none(project: Path) -> None:
    shutil.rmtree(project / ".git")
    git(project, "init", "--quiet")
    assert listed(project) == []


def test_the_text_of_a_recipe_against_a_revision_is_a_unified_difference(project: Path) -> None:
    path = project / RECIPE
    assert workbench(project, "diff", RECIPE, "--text").stdout == ""
    path.write_text(path.read_text().replace("name: digits", "name: digits-2") + "seed: 7")
    lines = workbench(project, "diff", RECIPE, "--text").stdout.splitlines()
    assert lines[:2] == [f"--- a/{RECIPE}", f"+++ b/{RECIPE}"]
    assert [line for line in lines[2:] if line[0] in "+-\\"] == [
        "-name: digits",
        "+name: digits-2",
        "+seed: 7",
        "\\ No newline at end of file",
    ]
    assert workbench(project, "diff", RECIPE, "nowhere", "--text").returncode == 2


def test_the_text_of_a_recipe_that_is_not_valid_or_not_committed_is_compared_all_the_same(project: Path) -> None:
    (project / "recipes" / "new.yaml").write_text("sed: 7\n")
    assert "+sed: 7\n" in workbench(project, "diff", "recipes/new.yaml", "--text").stdout
