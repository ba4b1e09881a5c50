"""How long a command takes that has nothing to do: the help, and a run with nothing changed."""

from __future__ import annotations

import sys

from ground import WORKBENCH, Ground
from measure import Command, Section, in_turns, ratio, times

HELP_ROUNDS = 40
RUN_ROUNDS = 16


def help_text(ground: Ground) -> Section:
    """``workbench --help`` against ``dvc --help`` and an interpreter that does nothing."""
    folder = ground.folder
    commands = [
        Command("workbench --help", (str(WORKBENCH), "--help"), folder),
        Command("python -c pass", (sys.executable, "-c", "pass"), folder),
        Command("dvc --help", (str(ground.dvc), "--help"), folder, ground.dvc_environment),
    ]
    taken = in_turns(commands, HELP_ROUNDS)
    rows = [
        *times(taken),
        ratio(taken, "workbench --help", "python -c pass"),
        ratio(taken, "workbench --help", "dvc --help", aim=0.5),
    ]
    return Section("Help", rows, [f"dvc {ground.dvc_version}."])


def nothing_changed(ground: Ground) -> Section:
    """``workbench run`` against ``dvc repro``, both with nothing changed."""
    commands = [
        Command("workbench run", (str(WORKBENCH), "run", "recipes/digits.yaml"), ground.project),
        Command("dvc repro", (str(ground.dvc), "repro"), ground.dvc_project, ground.dvc_environment),
    ]
    taken = in_turns(commands, RUN_ROUNDS)
    ground.check_nothing_changed()
    steps = len(ground.state.steps)
    said = (
        f"{steps} steps, {ground.dvc_stages} dvc stages, with the same inputs and outputs; dvc {ground.dvc_version}, "
    )
    return Section(
        "A run with nothing changed",
        [*times(taken), ratio(taken, "workbench run", "dvc repro", aim=0.5)],
        [said + "without its reports of usage and its check for updates."],
    )
