"""Commits hold exactly the recipe and its lock; what else the user has in the works stays as it is."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from support import git

from workbench import history
from workbench.errors import UsageError


def lock_and_recipe(project: Path) -> list[Path]:
    lock = project / "recipes" / "digits.lock.yaml"
    lock.write_text("workbench-lock: 1\n")
    return [project / "recipes" / "digits.yaml", lock]


def test_the_commit_holds_recipe_and_lock_and_nothing_else(project: Path) -> None:
    paths = lock_and_recipe(project)
    paths[0].write_text(paths[0].read_text() + "seed: 3\n")
    commit = history.commit(project, paths, "digits: first lock")
    assert git(project, "show", "--name-only", "--format=%s", commit).split("\n")[:4] == [
        "digits: first lock",
        "",
        "recipes/digits.lock.yaml",
        "recipes/digits.yaml",
    ]
    assert git(project, "status", "--porcelain") == ""


def test_staged_unstaged_and_untracked_changes_stay_what_they_are(project: Path) -> None:
    (project / "staged").write_text("staged")
    git(project, "add", "staged")
    (project / "staged").write_text("staged, then changed")
    (project / "assets" / "digits" / "test.npz").write_bytes(b"unstaged")
    (project / "untracked").write_text("untracked")
    before = git(project, "status", "--porcelain")
    index = git(project, "ls-files", "--stage")
    history.commit(project, lock_and_recipe(project), "lock")
    assert git(project, "status", "--porcelain") == before
    after = git(project, "ls-files", "--stage")
    assert [line for line in after.splitlines() if "lock" not in line] == index.splitlines()


def test_nothing_changed_is_no_commit(project: Path) -> None:
    paths = lock_and_recipe(project)
    assert history.commit(project, paths, "one") != ""
    assert history.commit(project, paths, "two") == ""


def refused(project: Path, words: str) -> None:
    """The commit is refused with these words; files and index are as they were, the lock lies there untracked."""
    index = git(project, "ls-files", "--stage")
    head = git(project, "rev-parse", "HEAD")
    paths = lock_and_recipe(project)
    with pytest.raises(history.NotCommitted, match=words):
        history.commit(project, paths, "lock")
    assert git(project, "ls-files", "--stage") == index
    assert git(project, "rev-parse", "HEAD") == head
    assert paths[1].exists()


def test_on_a_detached_head_the_files_stay(project: Path) -> None:
    git(project, "checkout", "--quiet", "--detach")
    refused(project, "HEAD is detached")


def test_during_a_merge_with_conflicts_the_files_stay(project: Path) -> None:
    git(project, "checkout", "--quiet", "-b", "other")
    (project / "notes").write_text("theirs")
    git(project, "add", "notes")
    git(project, "commit", "--quiet", "-m", "theirs")
    git(project, "checkout", "--quiet", "main")
    (project / "notes").write_text("ours")
    git(project, "add", "notes")
    git(project, "commit", "--quiet", "-m", "ours")
    subprocess.run(["git", "merge", "other"], cwd=project, capture_output=True, check=False)
    conflict = (project / "notes").read_text()
    refused(project, "merge is under way")
    assert (project / "notes").read_text() == conflict


def test_a_hook_that_refuses_is_respected(project: Path) -> None:
    hook = project / ".git" / "hooks" / "pre-commit"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\necho 'no commits on Fridays' >&2\nexit 1\n")
    hook.chmod(0o755)
    refused(project, "no commits on Fridays")


def test_signing_is_done_as_configured_and_its_failure_keeps_the_files(project: Path) -> None:
    git(project, "config", "commit.gpgsign", "true")
    git(project, "config", "gpg.program", "/bin/false")
    refused(project, "git commit refused")


def test_automatic_commits_can_be_turned_off(project: Path) -> None:
    git(project, "config", "workbench.commit", "false")
    refused(project, r"workbench\.commit is false")


def test_outside_git_it_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(history.NotCommitted, match="not in a git repository"):
        history.commit(tmp_path, [tmp_path / "x"], "lock")


def test_the_first_automatic_commit_is_announced_once(project: Path) -> None:
    (project / ".workbench").mkdir()
    assert history.first_automatic_commit(project)
    assert not history.first_automatic_commit(project)


def test_files_are_read_as_they_were_at_a_revision(project: Path) -> None:
    path = project / "recipes" / "digits.yaml"
    before = path.read_text()
    path.write_text("changed")
    assert history.text_at(path, "HEAD") == before
    assert history.text_at(project / "recipes" / "none.yaml", "HEAD") is None
    with pytest.raises(UsageError, match="no revision"):
        history.text_at(path, "nowhere")
