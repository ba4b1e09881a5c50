"""A run on its way, as lines: what the live display and the quiet log show."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from screens import words
from screens.blocks import Cell, Tone, cell
from workbench.events import AnyEvent, Note, RunState, StepFailed, StepFinished, StepNote, StepState

GLYPHS: Mapping[str, tuple[str, Tone]] = {
    "waiting": ("·", "dim"),
    "running": ("●", "strong"),
    "done": ("✓", "good"),
    "reused": ("↻", "good"),
    "failed": ("✗", "bad"),
    "cancelled": ("■", "warn"),
    "skipped": ("-", "dim"),
}
"""The glyph and tone of each state of a step; the state also stands there as a word."""


def title(state: RunState, now: float) -> Cell:
    """The run in a line: what, how far, how long."""
    ended = sum(step.status in ("done", "reused") for step in state.steps.values())
    name = state.name or state.run
    since = (state.ended or now) - state.started if state.started else 0.0
    return cell(
        f"{name}: {state.mode} {state.status}, {ended} of {len(state.steps)} steps, {words.clock(since)}", "strong"
    )


def step_row(step: StepState, now: float) -> tuple[Cell, Cell, Cell, Cell]:
    """State, name, time, and progress of a step."""
    glyph, tone = GLYPHS.get(step.status, ("?", ""))
    running = step.status == "running"
    taken = now - step.started if running else step.seconds
    time = words.clock(taken) if running or step.status in ("done", "failed") else ""
    return Cell(f"{glyph} {step.status}", tone), cell(step.id), Cell(time), cell(progress(step))


def progress(step: StepState) -> str:
    """How far a running step is, and what it is doing."""
    if step.status != "running":
        return ""
    done = f"{min(step.done / step.total, 1.0):4.0%}" if step.total > 0 else ""
    return f"{done} {step.text}".strip()


def window(state: RunState, height: int) -> tuple[list[StepState], int, int]:
    """The steps to show in ``height`` lines, around the one at work, and how many are left out before and after."""
    steps = list(state.steps.values())
    if len(steps) <= height:
        return steps, 0, 0
    at = next((i for i, step in enumerate(steps) if step.status in ("waiting", "running", "failed")), len(steps) - 1)
    room = max(height - 2, 1)  # a line each says what is left out
    first = min(max(at - room // 2, 0), len(steps) - room)
    return steps[first : first + room], first, len(steps) - first - room


def quiet(event: AnyEvent | None) -> Iterator[str]:
    """What is said of an event where nothing moves: a line a step that has its result or failed, and each note."""
    match event:
        case StepFinished(reused=True):
            yield f"reused  {words.safe(event.step)}"
        case StepFinished():
            yield f"done    {words.safe(event.step)}  {words.clock(event.seconds)}"
        case StepFailed():  # why is told at the end of the run, with the cure
            yield f"failed  {words.safe(event.step)}"
        case StepNote():
            yield f"note    {words.safe(event.step)}: {' '.join(words.safe(event.text).split())}"
        case Note():
            yield f"note    {' '.join(words.safe(event.text).split())}"
