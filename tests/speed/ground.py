"""The ground the reports stand on, kept in ``.workbench/bench`` of the checkout and reused.

A project that was run to its end, dvc in an environment of its own, and a dvc project with the same stages and the same
bytes.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import venv
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench import recipe, runs
from workbench.demo import make_project
from workbench.events import RunState
from workbench.lock import load as load_lock
from workbench.plan import Ref, SourceFile, Step
from workbench.run import pins_for, planned
from workbench.steps import KINDS
from workbench.store import Store

if TYPE_CHECKING:
    from engine import Engine

ROOT = Path(__file__).resolve().parents[2]
WORKBENCH = Path(sys.executable).parent / "workbench"


def tell(text: str) -> None:
    """What is going on, to stderr."""
    print(text, file=sys.stderr, flush=True)


def call(*words: str | Path, folder: Path, environment: Mapping[str, str] | None = None) -> str:
    """Runs a command that must succeed; what it printed."""
    done = subprocess.run(
        [str(word) for word in words],
        cwd=folder,
        env={**os.environ, **(environment or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, words))} ended with {done.returncode} in {folder}:\n{done.stdout}")
    return done.stdout


@dataclass(frozen=True)
class Ground:
    """The folder with all of it; each part is made when it is first asked for."""

    folder: Path
    engine: Engine | None = None
    """A Docker engine of the report's own, where a part needs one and it can be had."""

    @cached_property
    def project(self) -> Path:
        """The demo's project, run to its end. Its benchmarks last a second: how long they last is not measured here."""
        folder = self.folder / "project"
        path = make_project(folder)
        path.write_text(re.sub(r"duration: \d+s", "duration: 1s", path.read_text()))
        tell("Carrying the shipped recipe out once (a few minutes the first time).")
        call(WORKBENCH, "run", "recipes/digits.yaml", folder=folder)
        return folder

    @property
    def state(self) -> RunState:
        """The last run of the shipped recipe."""
        mine = (run for run in runs.all_runs(self.project) if Path(runs.load_request(run).recipe).stem == "digits")
        return runs.state_of(next(mine))

    def artifact(self, step: str, output: str) -> Path:
        """A file that the last run of the shipped recipe made or reused."""
        return Store(self.project / ".workbench").path(str(self.state.steps[step].files[output]["digest"]))

    def check_nothing_changed(self) -> None:
        """Raises where the last run made anything: then it was no run with nothing changed."""
        state = self.state
        made = [step.id for step in state.steps.values() if step.status == "done" and not _always(step.kind)]
        if state.status != "done" or made or state.lock is not None:
            raise SystemExit(f"The run was not one with nothing changed: {state.status}, made {made}, {state.lock}.")

    # --- dvc

    @cached_property
    def dvc(self) -> Path:
        """The dvc command, in an environment of its own."""
        folder = self.folder / "dvc-env"
        program = folder / "bin" / "dvc"
        if not program.exists():
            tell(f"Installing dvc into {folder}.")
            shutil.rmtree(folder, ignore_errors=True)
            venv.create(folder, with_pip=True)
            call(folder / "bin" / "python", "-m", "pip", "install", "--quiet", "dvc", folder=self.folder)
        return program

    @property
    def dvc_environment(self) -> dict[str, str]:
        """Without its reports of usage, which start another process, and with its caches in our folder."""
        caches = {name: str(self.folder / "dvc-caches") for name in ("DVC_SITE_CACHE_DIR", "DVC_GLOBAL_CONFIG_DIR")}
        return {"DVC_NO_ANALYTICS": "1", **caches}

    @property
    def dvc_version(self) -> str:
        return call(self.dvc, "--version", folder=self.folder, environment=self.dvc_environment).strip()

    @cached_property
    def dvc_project(self) -> Path:
        """A git repository whose ``dvc.yaml`` has a stage for each step of the last run: same inputs, same outputs."""
        folder = self.folder / "dvc-project"
        if not (folder / ".dvc").exists():
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(self.project / "assets", folder / "assets")
            call("git", "init", "--quiet", folder=folder)
            self._dvc("init", "--quiet")
            self._dvc("config", "core.analytics", "false")
            self._dvc("config", "core.check_update", "false")
        tell("Carrying the same stages out once with dvc.")
        (folder / "dvc.yaml").write_text(json.dumps({"stages": self._stages()}, indent=1))
        self._dvc("repro", "--quiet")
        call("git", "add", "--all", folder=folder)
        author = ("-c", "user.name=bench", "-c", "user.email=bench@workbench.invalid")
        call("git", *author, "commit", "--quiet", "--allow-empty", "--message", "stages", folder=folder)
        said = self._dvc("repro")
        if "up to date" not in said:
            raise SystemExit(f"dvc repro was not one with nothing changed:\n{said}")
        return folder

    @property
    def dvc_stages(self) -> int:
        return len(json.loads((self.dvc_project / "dvc.yaml").read_text())["stages"])

    def _dvc(self, *words: str) -> str:
        return call(self.dvc, *words, folder=self.folder / "dvc-project", environment=self.dvc_environment)

    def _stages(self) -> dict[str, Any]:
        file = recipe.load(self.project / "recipes" / "digits.yaml")
        steps = planned(file, pins_for(file, load_lock(file.lock_path), []), "")
        return {step.id.replace("/", "-"): self._stage(step) for step in steps}

    def _stage(self, step: Step) -> dict[str, Any]:
        """A stage that copies what the step made out of the store: its cost when carried out is not measured."""
        commands, outs = [f"mkdir -p out/{step.id}"], self._outputs(step.id)
        for name, out in zip(self._files(step.id), outs, strict=True):
            source = "/dev/null" if name == "values" else str(self.artifact(step.id, name))
            commands.append(f"cp --no-preserve=mode {source} {out}")
        after = [self._outputs(before)[0] for before in step.after]
        refs = [self._out(ref) for ref in step.inputs.values() if isinstance(ref, Ref)]
        files = [file.path for file in step.inputs.values() if isinstance(file, SourceFile)]
        return {"cmd": " && ".join(commands), "deps": sorted({*after, *refs, *files}), "outs": outs}

    def _files(self, step: str) -> list[str]:
        """The outputs of a step. A decision made no file of its own, an effect or a check none at all."""
        found = self.state.steps[step]
        return ["values"] if _always(found.kind) or not found.files else list(found.files)

    def _outputs(self, step: str) -> list[str]:
        return [f"out/{step}/{name}" for name in self._files(step)]

    def _out(self, ref: Ref) -> str:
        return (
            self._outputs(ref.step)[0] if _always(self.state.steps[ref.step].kind) else f"out/{ref.step}/{ref.output}"
        )


def _always(kind: str) -> bool:
    """Whether a step of this kind has no result in the store."""
    return KINDS[kind].nature in ("decision", "effect")
