"""The plain console: follows a run and reports what came of it. Reads run folders only; never calls a step."""

from __future__ import annotations

import shlex
import sys
from json import dumps
from pathlib import Path
from typing import TextIO

from screens import progress, words
from screens.as_json import as_json
from screens.output import console, may_move, say, show
from screens.present import report_blocks
from workbench import runs
from workbench.events import RunState

__all__ = ["as_json", "report", "watch"]


def watch(run: Path, *, json: bool = False) -> RunState:
    """Follows the run in the folder ``run`` to its end on stderr, then reports on stdout; its last state.

    A terminal shows the steps as they move; elsewhere, and with NO_COLOR or CI set, each step is one line when it ends.
    """
    state = _watch_live(run, sys.stderr) if may_move(sys.stderr) else _watch_quietly(run, sys.stderr)
    report(state, json=json)
    return state


def _watch_live(run: Path, file: TextIO) -> RunState:
    from screens.live import Display

    with Display(console(file)) as display:
        for state, event in runs.follow(run, display.wait):
            display.see(state, event)
    return display.state


def _watch_quietly(run: Path, file: TextIO) -> RunState:
    last = RunState(run=run.name)
    for state, event in runs.follow(run):
        last = state
        for line in progress.quiet(event):
            say(line, file)
    return last


def report(state: RunState, *, json: bool = False) -> None:
    """What came of a run: tables (or one line of JSON) to stdout, the error and its cure to stderr."""
    if json:
        say(dumps(as_json(state), ensure_ascii=False), sys.stdout)
    else:
        show(report_blocks(state), sys.stdout)
    sys.stdout.flush()
    for line in failure(state):
        say(line, sys.stderr)


def failure(state: RunState) -> list[str]:
    """What went wrong and the cure, as lines; empty where nothing did."""
    if state.status == "died":
        again = shlex.join(state.command) or "the same command"
        lines = [f"Run {state.run} is gone without a last word: its process was killed, or the machine went down."]
        return [*map(words.safe, lines), words.safe(f"Finished steps are kept; go on with: {again}")]
    if state.error is None:
        return []
    told = (state.error.get("message"), state.error.get("cure"))
    return [words.safe(text) for text in told if text]
