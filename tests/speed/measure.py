"""What the reports are made of: commands timed in turns, spread over repetitions, rows with an aim beside them."""

from __future__ import annotations

import math
import os
import resource
import statistics
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Row:
    """One measured thing: its repetitions, in ``unit``, and the aim as the most that its median may be (with
    ``at_least``: the least)."""

    what: str
    values: tuple[float, ...]
    unit: str
    aim: float | None = None
    note: str = ""
    at_least: bool = False

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def interval(self) -> tuple[float, float] | None:
        return median_interval(self.values)

    def verdict(self) -> str:
        """``met`` or ``not met`` where the whole interval says so, ``undecided`` where it spans the aim."""
        if self.aim is None:
            return ""
        low, high = self.interval or (self.median, self.median)
        if self.at_least:
            low, high, aim = -high, -low, -self.aim
        else:
            aim = self.aim
        if high <= aim:
            return "met"
        return "not met" if low > aim else "undecided"

    def as_json(self) -> dict[str, Any]:
        return {
            **asdict(self),
            "median": self.median,
            "interval": self.interval,
            "confidence": CONFIDENCE,
            "range": [min(self.values), max(self.values)],
            "repetitions": len(self.values),
            "verdict": self.verdict() or None,
        }


@dataclass
class Section:
    """One question of the report: its rows, what they mean, and under what conditions they were taken."""

    title: str
    rows: list[Row]
    remarks: list[str] = field(default_factory=list)
    conditions: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        return {
            "title": self.title,
            "rows": [row.as_json() for row in self.rows],
            "remarks": self.remarks,
            "conditions": dict(self.conditions),
        }


def median_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """The interval of the median that holds for any distribution: from order statistics, as in the sign test.

    With fewer than six values the widest there is, from the least to the greatest, falls short of 95%; it is given all
    the same (five: 94%, three: 75%). None for a single value.
    """
    n = len(values)
    if n < 2:
        return None
    below, rank = 0.0, 0
    while 2 * (below := below + math.comb(n, rank) / 2**n) <= 1 - CONFIDENCE:
        rank += 1
    ordered = sorted(values)
    inside = max(rank, 1)
    return ordered[inside - 1], ordered[n - inside]


@dataclass(frozen=True)
class Command:
    """A command to time, and where."""

    name: str
    words: tuple[str, ...]
    folder: Path
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Taken:
    """Seconds that one run of a command took, on the wall and on the processors with all that it started."""

    wall: float
    cpu: float


def in_turns(commands: Sequence[Command], rounds: int) -> dict[str, list[Taken]]:
    """Runs each command once a round, forth and back (A B C, C B A, ...), so that drift of the machine meets all alike.

    One round more comes first and does not count: it fills the caches of files.
    """
    taken: dict[str, list[Taken]] = {command.name: [] for command in commands}
    for number in range(rounds + 1):
        for command in commands if number % 2 else reversed(commands):
            result = once(command)
            if number:
                taken[command.name].append(result)
    return taken


def once(command: Command) -> Taken:
    """Runs a command, then waits until everything it left behind has ended too: that would slow the next one.

    This process must adopt orphans (:func:`workbench.process.adopt_orphans`). The wall time ends with the command.
    """
    environment = {**os.environ, **command.environment}
    before = _children_cpu()
    start = time.perf_counter()
    subprocess.run(
        command.words,
        cwd=command.folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=True,
    )
    wall = time.perf_counter() - start
    reap()
    return Taken(wall, _children_cpu() - before)


def reap() -> None:
    """Waits for every process that was left to this one."""
    try:
        while True:
            os.waitpid(-1, 0)
    except ChildProcessError:
        return


def _children_cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def times(taken: Mapping[str, Sequence[Taken]], unit: str = "ms") -> Iterator[Row]:
    """A row of wall times for each command."""
    scale = {"ms": 1e3, "s": 1.0}[unit]
    for name, each in taken.items():
        cpu = statistics.median(one.cpu for one in each) * scale
        yield Row(
            name,
            tuple(one.wall * scale for one in each),
            unit,
            note=f"{cpu:.{1 if cpu < 100 else 0}f} {unit} of processor time",
        )


def ratio(taken: Mapping[str, Sequence[Taken]], ours: str, theirs: str, aim: float | None = None) -> Row:
    """The ratio of wall times, round by round: what was measured next to each other is compared."""
    pairs = list(zip(taken[ours], taken[theirs], strict=True))
    cpu = statistics.median(mine.cpu / other.cpu for mine, other in pairs)
    walls = tuple(mine.wall / other.wall for mine, other in pairs)
    return Row(f"{ours} : {theirs}", walls, "x", aim, note=f"{cpu:.2f} of processor time")
