"""The end of a replay: comparing what was made again with the lock."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from workbench import events, lock, outcome
from workbench.errors import PRECEDENCE, ArtifactDiffers, FigureWorse, WorkbenchError

if TYPE_CHECKING:
    from workbench.run import Run

_CAUSES = ("tool ", "model.source", "data.", "server source", "seed", "instruction set", "recipe ", "choice")
_NO_ARTIFACT = (*_CAUSES, "pushed")
"""Differences that explain others, or say where the image went; alone they are no failure."""


def conclude(run: Run) -> list[WorkbenchError]:
    """Compares the results of a replay with the lock and says so; the errors that it comes to, none where as locked.

    ``exact``: every artifact's digest is the locked one (another manifest over the same config is the same content)
    and no figure is worse. ``figures``: only the figures count.
    """
    assert run.lock is not None
    steps = [item.step for item in run.done.values()]
    found = outcome.lock_of(run.file.recipe, steps, run.done, run.store, run.machine, run.isa)
    causes = _recipe_changes(run.lock, found) + lock.differences(run.lock.artifacts, found.artifacts)
    packing = _packing(run.lock.artifacts.image)
    broken = [item for item in causes if not item.name.startswith(_NO_ARTIFACT) and not item.name.startswith(packing)]
    cause = str(_first_cause(causes)) if broken else ""
    worse, remarks = _figures(run, found)
    if causes and not broken and any(item.name == "image manifest" for item in causes):
        remarks.append("The image has the same content, packed differently (another compressor, or another day).")
    today = run.done["choose"].result.values["today"]
    if today != run.lock.artifacts.choice:
        remarks.append(
            f"Today's figures would choose {today or 'no variant'}; the lock says {run.lock.artifacts.choice}."
        )
    flat = lock.flat(found.artifacts)
    same = [
        name
        for name, value in lock.flat(run.lock.artifacts).items()
        if flat.get(name) == value and not name.startswith(_NO_ARTIFACT) and not name.startswith(packing)
    ]
    run.log.write(
        events.Verdict(
            level=run.request.level,
            reproduced=len(same),
            reused=sum(item.reused for item in run.done.values()),
            differences=[{"name": item.name, "locked": item.locked, "found": item.found} for item in broken],
            worse=worse,
            cause=cause,
            remarks=remarks,
            same=same,
            compared=_compared(run, found),
        )
    )
    return _errors(run, broken, cause, worse)


def _packing(image: lock.ImageFacts | None) -> tuple[str, ...]:
    """What differs between two images of the same content: of an engine's, all that carries the time of its making,
    and the parts list, which names the config."""
    return ("image manifest", "image config", "layer ", "sbom") if image and image.tree else ("image manifest",)


def _recipe_changes(locked: lock.Lock, found: lock.Lock) -> list[lock.Difference]:
    return [
        lock.Difference(f"recipe {section}", locked.recipe.get(section, "absent"), digest)
        for section, digest in found.recipe.items()
        if locked.recipe.get(section) != digest
    ]


def _first_cause(causes: list[lock.Difference]) -> lock.Difference:
    """The first differing input. What the code of workbench itself changed has no input to name: then the artifact."""
    return causes[0]


def _figures(run: Run, found: lock.Lock) -> tuple[list[dict[str, Any]], list[str]]:
    """The figures that are worse than locked, and what is to be said of the comparison."""
    assert run.lock is not None
    host, here = next(iter(found.figures.items()))
    if host not in run.lock.figures:
        known = "; ".join(run.lock.figures)
        return [], [f"Figures are not compared: the lock has them for {known}, this machine is {host}."]
    worse = []
    for name, locked in run.lock.figures[host].values.items():
        figure = here.values.get(name)
        if figure is not None and figure.worse_than(locked, run.file.recipe.tolerance):
            intervals = {"locked_interval": locked.interval, "found_interval": figure.interval}
            values = {"locked": locked.value, "found": figure.value, "unit": figure.unit}
            worse.append({"name": name, **values, **intervals})
    return worse, []


def _compared(run: Run, found: lock.Lock) -> list[str]:
    """The figures that both the lock and this replay have for this class of machines."""
    assert run.lock is not None
    host, here = next(iter(found.figures.items()))
    return [name for name in run.lock.figures[host].values if name in here.values] if host in run.lock.figures else []


def _errors(run: Run, broken: list[lock.Difference], cause: str, worse: list[dict[str, Any]]) -> list[WorkbenchError]:
    errors: list[WorkbenchError] = list(run.broken_gates)
    if broken and run.request.level == "exact":
        names = ", ".join(item.name for item in broken)
        errors.append(
            ArtifactDiffers(
                f"Not as locked: {names}; the first differing input is {cause}.",
                "If the change is meant, run the recipe and commit the new lock: workbench run " + run.request.recipe,
            )
        )
    if worse:
        words = "; ".join(f"{item['name']} {item['locked']:.6g} → {item['found']:.6g} {item['unit']}" for item in worse)
        errors.append(FigureWorse(f"Worse than locked, outside interval and tolerance: {words}.", "Find what changed."))
    return sorted(errors, key=lambda error: PRECEDENCE.index(error.exit_code))
