"""Recipes in git: committing exactly the recipe and its lock, and reading what they were before."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from tenacity import retry, retry_if_exception_message, stop_after_attempt, wait_random_exponential

from workbench.errors import UsageError

if TYPE_CHECKING:
    import git
    from git import Repo

TURN_OFF = "Turn automatic commits off with --no-commit, or for good with: git config workbench.commit false"


class NotCommitted(Exception):
    """The files could not be committed; they stay as they are. The message is a sentence for the user."""


def _repository(project: Path) -> Repo:
    import git

    try:
        return git.Repo(project, search_parent_directories=True)
    except git.InvalidGitRepositoryError:
        raise NotCommitted(
            f"{project} is not in a git repository; the lock lies beside the recipe, uncommitted."
        ) from None
    except git.GitCommandNotFound:
        raise NotCommitted("git is not installed; the lock lies beside the recipe, uncommitted.") from None


def commit(project: Path, paths: Sequence[Path], message: str, *, asked: bool = False) -> str:
    """Commits the files at ``paths`` as they lie on disk, and nothing else; the commit's id, "" where nothing changed.

    The user's staged, unstaged and untracked changes stay what they are; hooks run and signing is done as the
    repository is configured. Raises NotCommitted during a merge, rebase, cherry-pick or bisect, on a detached HEAD,
    where ``workbench.commit`` is false unless the user ``asked`` for this one, or where git refuses; then the index is
    as it was.
    """
    repo = _repository(project)
    _check_state(repo, asked=asked)
    names = [str(path) for path in paths]
    new = [name for name in names if not repo.git.ls_files("--", name)]
    if not new and not repo.git.diff("HEAD", "--name-only", "--", *names):
        return ""
    try:
        if new:
            _git(repo, "add", "--intent-to-add", "--", *new)
        _git(repo, "commit", "--only", "--quiet", "--message", message, "--", *names)
    except NotCommitted:
        if new:
            with contextlib.suppress(NotCommitted):
                _git(repo, "rm", "--cached", "--quiet", "--force", "--", *new)
        raise
    return str(repo.head.commit.hexsha)


def _check_state(repo: Repo, *, asked: bool) -> None:
    folder = Path(repo.git_dir)
    for mark, doing in (
        ("MERGE_HEAD", "a merge"),
        ("rebase-merge", "a rebase"),
        ("rebase-apply", "a rebase"),
        ("CHERRY_PICK_HEAD", "a cherry-pick"),
        ("REVERT_HEAD", "a revert"),
    ):
        if (folder / mark).exists():
            raise NotCommitted(f"{doing.capitalize()} is under way here: recipe and lock are written, not committed.")
    if repo.head.is_detached:
        raise NotCommitted(
            "HEAD is detached: recipe and lock are written, not committed. Check out a branch to commit them."
        )
    with repo.config_reader() as config:
        if not asked and str(config.get_value("workbench", "commit", "true")).lower() in ("false", "no", "off", "0"):
            raise NotCommitted(
                "workbench.commit is false in the git configuration: recipe and lock are written, not committed."
            )


@retry(
    retry=retry_if_exception_message(match=r"(?s).*index\.lock.*"),
    stop=stop_after_attempt(8),
    wait=wait_random_exponential(multiplier=0.05, max=1),
    reraise=True,
)
def _git(repo: Repo, *words: str) -> None:
    """Runs git; another git at work in the same repository is waited for."""
    import git

    try:
        repo.git.execute(["git", *words], env={"GIT_EDITOR": "true", "GIT_TERMINAL_PROMPT": "0"})
    except git.GitCommandError as error:
        said = [line.strip() for line in f"{error.stderr}\n{error.stdout}".splitlines() if line.strip()]
        reason = said[0].removeprefix("stderr: ").strip("' ") if said else f"exit code {error.status}"
        raise NotCommitted(f"git {words[0]} refused ({reason}): recipe and lock are written, not committed.") from None


def first_automatic_commit(project: Path) -> bool:
    """Whether this is the first time that workbench commits in this project; remembers that it was."""
    mark = project / ".workbench" / "commits-announced"
    if mark.exists():
        return False
    mark.touch()
    return True


def is_known(path: Path) -> bool:
    """Whether the last commit has the file at ``path``; False where there is none. Raises UsageError outside git."""
    try:
        repo = _repository(path.parent)
    except NotCommitted as error:
        raise UsageError(str(error), "Make one: git init") from None
    return repo.head.is_valid() and text_at(path, "HEAD") is not None


def text_at(path: Path, revision: str) -> str | None:
    """The content of a file at a revision; None where it was not there. Raises UsageError for an unknown revision."""
    import git

    try:
        repo = _repository(path.parent)
    except NotCommitted as error:
        raise UsageError(str(error)) from None
    try:
        repo.commit(revision)
    except (git.BadName, ValueError, git.GitCommandError):
        raise UsageError(f"There is no revision {revision} in {repo.working_dir}.", "See: git log") from None
    inside = path.resolve().relative_to(Path(str(repo.working_dir)).resolve())
    try:
        return str(repo.git.show(f"{revision}:{inside.as_posix()}", strip_newline_in_stdout=False))
    except git.GitCommandError:
        return None


@dataclass(frozen=True)
class Commit:
    """A commit, and the files it ``changed``: what each held in its first parent and in it, None where it was not."""

    id: str
    when: datetime
    subject: str
    changed: Mapping[Path, tuple[str | None, str | None]]


def commits_of(paths: Sequence[Path], limit: int) -> list[Commit]:
    """The latest ``limit`` commits that changed one of the files at ``paths``, newest first; none before the first.

    Raises UsageError outside git.
    """
    try:
        repo = _repository(paths[0].parent)
    except NotCommitted as error:
        raise UsageError(str(error), "Make one: git init") from None
    with contextlib.closing(repo):
        if not repo.head.is_valid():
            return []
        top = Path(str(repo.working_dir)).resolve()
        inside = {path: path.relative_to(top).as_posix() for path in paths}
        # literal: a name with a * or a : in it is that name and no pattern
        specs = [f":(literal){name}" for name in inside.values()]
        found = []
        for commit in repo.iter_commits("HEAD", paths=specs, max_count=limit):
            now, before = _tree(commit), _tree(next(iter(commit.parents), None))
            texts = {path: (_text(before, name), _text(now, name)) for path, name in inside.items()}
            changed = {path: pair for path, pair in texts.items() if pair[0] != pair[1]}
            found.append(Commit(str(commit.hexsha), commit.committed_datetime, str(commit.summary), changed))
        return found


def _tree(commit: git.Commit | None) -> git.Tree | None:
    """What is in a commit; None for none, also where a shallow clone has not got it."""
    with contextlib.suppress(ValueError):
        return commit.tree if commit is not None else None
    return None


def _text(tree: git.Tree | None, name: str) -> str | None:
    with contextlib.suppress(KeyError):
        found = tree / name if tree is not None else None
        if found is not None and found.type == "blob":
            return bytes(found.data_stream.read()).decode(errors="surrogateescape")
    return None


def head_of(project: Path) -> str:
    """The commit a project is at, with ``+`` where tracked files differ from it; "" outside git."""
    try:
        repo = _repository(project)
        return str(repo.head.commit.hexsha[:12]) + ("+" if repo.is_dirty(untracked_files=False) else "")
    except (NotCommitted, ValueError):
        return ""
