"""The run process: ``python -m workbench.run RUN_FOLDER LOCK_FD`` carries out what the folder's request asks for.

Started by :func:`workbench.runs.start` in a session of its own. It is the one writer of the run folder.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from workbench import __version__, events, recipe
from workbench.decide import DECISIONS, Decided
from workbench.errors import Cancelled, MachineLacks, StepFailed, UsageError, WorkbenchError
from workbench.executor import Stop, execute
from workbench.lock import Lock, recipe_digests
from workbench.lock import load as load_lock
from workbench.lookup import Lookup, expanded
from workbench.outcome import Done
from workbench.plan import (
    Pins,
    SourceFile,
    Step,
    base_request,
    key_of,
    plan,
    toolchain,
    wheels_request,
)
from workbench.process import adopt_orphans, kill_descendants
from workbench.runs import Request, load_request
from workbench.samples import SampleLog
from workbench.steps import KINDS, check_machine
from workbench.store import Result, Store, remove_tree, unwritable


def machine_facts() -> tuple[dict[str, Any], str]:
    """This machine (``class``: which figures compare, ``facts``: information) and its instruction-set class."""
    from workbench.host.fingerprint import host_class, host_facts, isa_class

    return {"class": host_class(), "facts": host_facts()}, isa_class()


def pins_for(file: recipe.RecipeFile, lock: Lock | None, update: list[str]) -> Pins:
    """What the lock pins for this recipe: all that the recipe did not change and ``--update`` does not name."""
    if lock is None:
        return Pins()
    found = lock.artifacts
    base = wheels = choice = None
    if file.recipe.image is not None:
        if found.base and found.base.request == base_request(file.recipe) and "base" not in update:
            base = found.base.pin_bytes()
        if found.wheels and found.wheels.request == wheels_request(file.recipe) and "wheels" not in update:
            wheels = found.wheels.pin_bytes()
    decides = ("model", "data", "variants", "gate", "choose")
    now = recipe_digests(file.recipe)
    known = found.choice in ("original", *file.recipe.variants)
    if "choice" not in update and known and all(lock.recipe.get(part) == now[part] for part in decides):
        choice = found.choice
    return Pins(base, wheels, choice)


def planned(file: recipe.RecipeFile, pins: Pins, until: str) -> list[Step]:
    """The steps of a recipe, up to and with ``until`` where it is given."""
    steps = plan(file, pins)
    if not until:
        return steps
    return steps[: [step.id for step in steps].index(until) + 1]


def check_toolchain(lock: Lock, steps: list[Step], path: Path) -> None:
    """Raises MachineLacks where another toolchain is installed than the lock was made with."""
    now = toolchain(steps)
    locked = {name: version for name, version in lock.artifacts.toolchain.items() if name in now}
    if changed := [f"{name} {old} → {now[name]}" for name, old in locked.items() if now[name] != old]:
        words = " ".join(f"'{name}=={version}'" for name, version in locked.items() if now[name] != version)
        raise MachineLacks(
            f"{path.name} was made with another toolchain: {', '.join(changed)} is here.",
            f"Make that environment with: pip install {words}   or take this one: workbench run --update tools",
        )


class Run:
    """One run: goes through the plan step by step, from the store where it can, and says so in the event log."""

    def __init__(self, folder: Path, request: Request, stop: Stop) -> None:
        self.folder = folder
        self.request = request
        self.stop = stop
        self.log = events.EventLog(folder / "events.jsonl")
        self.project = Path(request.project)
        self.file = recipe.load(Path(request.recipe), request.overrides)
        self.lock = load_lock(self.file.lock_path)
        if self.request.mode == "replay" and self.lock is None:
            raise UsageError(f"There is no lock {self.file.lock_path}.", f"Make one: workbench run {request.recipe}")
        self.machine, self.isa = machine_facts()
        self.store = Store(self._store_folder())
        replay = request.mode == "replay"
        self.lookup = Lookup(
            self.project, self.store, self.machine, self.isa, request.fresh, tuple(request.update), fresh_figures=replay
        )
        self.done: dict[str, Done] = {}
        self.samples = SampleLog(folder / "samples.jsonl")
        self.at: Step
        self.ahead: list[Step] = []
        self.deferred: list[Step] = []
        self.broken_gates: list[WorkbenchError] = []

    def _store_folder(self) -> Path:
        """A replay takes nothing from the project's store: it has an empty one of its own."""
        if self.request.mode == "replay" and not self.request.cached:
            return self.project / ".workbench" / "replays" / self.folder.name
        return self.project / ".workbench"

    def carry_out(self) -> None:
        """Goes through the whole plan. Raises the error that ended it early."""
        self._announce()
        self.store.create()
        self.store.sweep()
        pins = pins_for(self.file, self.lock, self.request.update)
        steps = planned(self.file, pins, self.request.until)
        if self.request.mode == "replay":  # a replay proves; what it makes stays here
            steps = [step for step in steps if KINDS[step.kind].nature != "effect"]
        if self.lock is not None and "tools" not in self.request.update:
            check_toolchain(self.lock, steps, self.file.lock_path)
        self.log.write(events.Planned(steps=[(step.id, step.kind) for step in steps]))
        self.ahead = steps
        self.deferred = [step for step in steps if KINDS[step.kind].reads_lock]
        self._go_through([step for step in steps if step not in self.deferred])

    def finish(self) -> None:
        """Carries out what had to wait for the lock."""
        self._go_through(self.deferred)

    def _go_through(self, steps: list[Step]) -> None:
        try:
            for step in steps:
                self.at = step
                self.stop.check()
                self._step(step)
        except Cancelled:
            raise  # the run's end says so, of the step that is at work
        except WorkbenchError as error:
            self.log.write(events.StepFailed(step=self.at.id, error=error.as_record()))
            raise

    def _announce(self) -> None:
        self.log.write(
            events.RunStarted(
                run=self.folder.name,
                recipe=str(self.file.path.relative_to(self.project)),
                name=self.file.recipe.name,
                mode="replay" if self.request.mode == "replay" else "run",
                command=self.request.command,
                pid=os.getpid(),
                machine=self.machine,
                workbench=__version__,
            )
        )

    def _step(self, step: Step) -> None:
        if KINDS[step.kind].nature == "decision":
            self._decide(step)
            return
        found = self.lookup.ingredients(step, self.results)
        key = key_of(step.kind, found)
        if self._take(step, key, found):
            return
        with contextlib.ExitStack() as alone:
            alone.enter_context(self.store.alone(key.removeprefix("sha256:"), self.stop.event))
            if self._take(step, key, found):
                return  # another run made it while this one waited
            if KINDS[step.kind].nature == "figure":
                alone.enter_context(self.store.alone("measuring", self.stop.event))
            self._make(step, key, found)

    @property
    def results(self) -> dict[str, Result]:
        return {name: item.result for name, item in self.done.items()}

    def _take(self, step: Step, key: str, found: dict[str, str]) -> bool:
        """Takes the result of ``step`` from the store, if it is there and may be taken."""
        result = self.lookup.find(step, found, self.results)
        if result is not None:
            self._finish(step, key, found, result, reused=True, seconds=0.0)
        return result is not None

    def _check_machine(self, step: Step) -> None:
        """Before ``step`` is made, the first of all: a machine that lacks what a later one needs says so at once."""
        ahead, self.ahead = self.ahead, []
        for later in ahead[ahead.index(step) :] if ahead else ():
            self.at = later
            check_machine(later.kind)
        self.at = step

    def _make(self, step: Step, key: str, found: dict[str, str]) -> None:
        self._check_machine(step)
        started = time.monotonic()
        self.log.write(events.StepStarted(step=step.id, key=key, ingredients=found))
        sources = [self.project / source.path for source in step.inputs.values() if isinstance(source, SourceFile)]
        before = [_identity(path) for path in sources]
        log = self.folder / "logs" / f"{step.id.replace('/', '-')}.txt"
        inputs = expanded(step.inputs, self.results)
        paths = {name: self.lookup.path(source, self.results) for name, source in inputs.items()}
        with self.store.scratch(step.id.replace("/", "-")) as scratch, self.samples.of(step.id):
            files, values = execute(step, paths, scratch, self.project, log, self.stop, lambda m: self._hear(step, m))
            if [_identity(path) for path in sources] != before:
                raise StepFailed(
                    f"A file that step {step.id} reads changed while it ran.", "Run the same command again."
                )
            result = self.store.put(key, files, values, values.pop("also_read", {}))
        self._finish(step, key, found, result, reused=False, seconds=time.monotonic() - started)

    def _finish(
        self, step: Step, key: str, found: Mapping[str, str], result: Result, *, reused: bool, seconds: float
    ) -> None:
        self.done[step.id] = Done(step, result, found, reused)
        self.log.write(
            events.StepFinished(
                step=step.id,
                key=key,
                reused=reused,
                files={name: dict(file) for name, file in result.files.items()},
                values=dict(result.values),
                ingredients=dict(found),
                seconds=round(seconds, 3),
            )
        )

    def _decide(self, step: Step) -> None:
        decided: Decided = DECISIONS[step.kind](step, self.results)
        self.log.write(events.StepStarted(step=step.id, key="", ingredients={}))
        model = decided.model
        files = {} if model is None else {"model": self.done[model.step].result.files[model.output]}
        self._finish(step, "", {}, Result(files, decided.values, {}), reused=False, seconds=0.0)
        if decided.error is not None:
            if self.request.mode != "replay" or not files:
                raise decided.error
            self.broken_gates.append(
                decided.error
            )  # a replay makes the locked variant all the same, and tells at the end

    def _hear(self, step: Step, message: Mapping[str, Any]) -> None:
        match message["is"]:
            case "progress":
                done, total, text = message["done"], message["total"], message["text"]
                self.log.write(events.StepProgress(step=step.id, done=done, total=total, text=text))
            case "note":
                self.log.write(events.StepNote(step=step.id, text=message["text"]))
            case "sample":
                self.samples.write(step.id, message["kind"], message["values"])

    def close(self, status: str) -> None:
        """Removes what only this run needed, and what its killed steps left in the engine."""
        image = self.file.recipe.image
        if status != "done" and image is not None and image.builder == "docker":
            from workbench.engine.leftovers import sweep

            with contextlib.suppress(WorkbenchError):
                sweep()
        if self.store.folder != self.project / ".workbench":
            remove_tree(self.store.folder)
        self.samples.close()


def _identity(path: Path) -> tuple[int, int, int]:
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns, stat.st_ino


def _conclude(run: Run) -> events.RunFinished:
    """What follows on a plan that was carried out: the lock and its commit, or the verdict of a replay."""
    if run.request.mode != "replay":
        from workbench.relock import relock

        if relock(run):
            run.finish()
        return events.RunFinished(status="done", exit_code=0)
    from workbench.replay import conclude

    errors = conclude(run)
    if not errors:
        return events.RunFinished(status="done", exit_code=0)
    return events.RunFinished(status="failed", exit_code=errors[0].exit_code, error=errors[0].as_record())


def _told(error: Exception, folder: Path) -> WorkbenchError:
    """An exception that nobody expected, as an error for the user."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
        return unwritable(Path(str(error.filename or folder)), error)
    return WorkbenchError(
        f"Unexpected: {type(error).__name__}: {error}.", f"Please report it with {folder / 'logs' / 'run.txt'}."
    )


def main(folder: Path) -> int:
    """Carries out the run of the run folder; its exit code, which the last event also holds."""
    stop = Stop()
    stop.listen()
    adopt_orphans()
    request = load_request(folder)
    run: Run | None = None
    log = None
    try:
        run = Run(folder, request, stop)
        log = run.log
        run.carry_out()
        finished = _conclude(run)
    except WorkbenchError as error:
        finished = events.RunFinished(
            status="cancelled" if isinstance(error, Cancelled) else "failed",
            exit_code=error.exit_code,
            error=error.as_record(),
        )
    except Exception as error:
        traceback.print_exc()
        told = _told(error, folder)
        finished = events.RunFinished(status="failed", exit_code=told.exit_code, error=told.as_record())
    kill_descendants()
    if run is not None:
        run.close(finished.status)
    (log or events.EventLog(folder / "events.jsonl")).write(finished)
    return finished.exit_code


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
