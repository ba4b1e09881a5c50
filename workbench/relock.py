"""The end of a run: what came out goes into the lock, and that into git."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workbench import events, lock, outcome

if TYPE_CHECKING:
    from workbench.run import Run


def relock(run: Run) -> bool:
    """Writes and commits the lock if an artifact changed or a figure left its interval and tolerance.

    Returns whether the lock says what came out: never with ``--set`` or ``--until``, for that is not what the recipe
    says.
    """
    if run.request.overrides or run.request.until:
        run.log.write(events.Note(text="The lock is not written: --set and --until do not do what the recipe says."))
        return False
    found = _found(run)
    changes = _changes(run, found)
    if not changes:
        return True
    kept = {host: values for host, values in run.lock.figures.items() if host not in found.figures} if run.lock else {}
    whole = found.model_copy(update={"figures": dict(sorted((kept | found.figures).items()))})
    lock.save(whole, run.file.lock_path)
    run.log.write(
        events.LockWritten(
            path=str(run.file.lock_path.relative_to(run.project)), changes=changes, commit=_commit(run, changes)
        )
    )
    return True


def _found(run: Run) -> lock.Lock:
    steps = [item.step for item in run.done.values()]
    return outcome.lock_of(run.file.recipe, steps, run.done, run.store, run.machine, run.isa)


def _changes(run: Run, found: lock.Lock) -> list[str]:
    """What is new against the lock there was, in words; empty where it still says what is the case."""
    if run.lock is None:
        return ["first lock"]
    changes = [str(item) for item in lock.differences(run.lock.artifacts, found.artifacts)]
    if not changes and run.lock.recipe != found.recipe:
        changes = ["recipe"]
    for host, values in found.figures.items():
        changes += lock.figure_changes(run.lock.figures, values, host, run.file.recipe.tolerance)
        changes += lock.removed_figures(run.lock.figures, values, host)
    return changes


def _commit(run: Run, changes: list[str]) -> str:
    if not run.request.commit:
        return ""
    from workbench import history  # with what it is built on it takes as long to load as all the rest of this to run

    name = run.file.recipe.name
    what = changes[0] if len(changes) == 1 else f"{len(changes)} changes"
    message = f"{name}: {what}\n\n" + "\n".join(f"- {change}" for change in changes[:40])
    try:
        commit = history.commit(run.project, [run.file.path, run.file.lock_path], message)
    except history.NotCommitted as reason:
        run.log.write(events.Note(text=str(reason)))
        return ""
    if commit and history.first_automatic_commit(run.project):
        run.log.write(events.Note(text=f"Recipe and lock were committed. {history.TURN_OFF}"))
    return commit
