"""A scoring of rows: how far it is, at a terminal, and what came of it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from json import dumps
from typing import TYPE_CHECKING, TextIO

from screens import words
from screens.output import console, may_move, say

if TYPE_CHECKING:
    from workbench.batch.score import Progress, Summary


@contextmanager
def following(file: TextIO) -> Iterator[Callable[[Progress], None]]:
    """What is to be told each :class:`Progress`. A terminal shows a moving bar until the end; others show nothing."""
    if not may_move(file):
        yield lambda _: None
        return
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (BarColumn(), TaskProgressColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
    with Bars(*columns, console=console(file), transient=True) as bars:
        task = bars.add_task("", total=1.0)
        yield lambda now: bars.update(task, completed=now.fraction, description=words.quantity(now.rows, "row"))


def print_summary(summary: Summary, *, json: bool) -> None:
    """What came of it: a line (or JSON) to stdout, what is to be known besides to stderr."""
    if json:
        record = asdict(summary) | {
            "output": str(summary.output),
            "rejected_file": str(summary.rejected_file) if summary.rejected_file else None,
        }
        say(dumps(record, ensure_ascii=False), sys.stdout)
    else:
        say(_line(summary), sys.stdout)
    if summary.alone and not summary.finished_before:
        say(
            "Each row was run by itself: rows of this model change each other's results, or it does not say that they "
            "are rows. --rows N runs N at once.",
            sys.stderr,
        )
    if summary.rejected_file is not None:
        say(f"{words.quantity(summary.rejected, 'row')} left out: {words.safe(summary.rejected_file)}", sys.stderr)


def _line(summary: Summary) -> str:
    name = words.safe(summary.output)
    if summary.finished_before:
        return f"{name} is finished already: {_rows(summary)}"
    done = summary.rows - summary.resumed
    rate = f"{done / summary.seconds:,.0f} rows/s" if summary.seconds > 0 else ""
    before = f", {summary.resumed:,} of them before" if summary.resumed else ""
    return f"{name}: {_rows(summary)}{before}, in {words.clock(summary.seconds)} ({rate})"


def _rows(summary: Summary) -> str:
    """Those in the output, and where it is not all of them how many there were."""
    scored = f"{summary.rows - summary.rejected:,} of " if summary.rejected else ""
    return f"{scored}{words.quantity(summary.rows, 'row')}"
