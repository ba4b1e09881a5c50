"""What is counted of a model while it answers: plain numbers, added to on the event loop, read when somebody asks.

A Prometheus client's own counters cost about a microsecond and a lock each; a small model answers in thirty. So the
numbers are kept here and handed over when they are scraped (workbench.server.metrics).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

SECONDS = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_EXACT = 256
"""Up to here runs are told apart by each number of rows, beyond by the next power of two."""


class Histogram:
    """How many values lay up to each bound, and their sum."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        """Values by the least bound that holds them; the last are beyond all."""
        self.total = 0.0

    def add(self, value: float, times: int = 1) -> None:
        """Counts a value."""
        self.counts[bisect_left(self.bounds, value)] += times
        self.total += value * times

    @property
    def count(self) -> int:
        """How many values there were."""
        return sum(self.counts)


class Meter:
    """The numbers of one version of a model."""

    def __init__(self) -> None:
        self.answered = 0
        """Requests that were answered."""
        self.answered_seconds = 0.0
        """What they took from their arrival to the end of the run that computed them."""
        self.failed: dict[str, int] = {}
        """Requests that were not, by reason: invalid, full, deadline, model."""
        self.rows = 0
        """Rows (elements along the first axis) that were computed."""
        self.queue = Histogram(SECONDS)
        """Seconds from a request's arrival to the run that computed it."""
        self.compute = Histogram(SECONDS)
        """Seconds of each run."""
        self.runs: dict[int, list[float]] = {}
        """How many runs there were, and their seconds, by rows."""
        self._run_rows = 0
        self.cache_hits = 0
        """Requests that the response cache answered."""
        self.cache_misses = 0
        """Requests that it did not know."""
        self.waiting = 0
        """Requests that wait or are computed now."""
        self.last_ns = 0
        """When the last request was answered: nanoseconds since 1970, 0 for never."""
        self.load_seconds = 0.0
        """How long loading and warming up took."""

    def ran(self, rows: int, seconds: float) -> None:
        """Counts a run."""
        self.compute.add(seconds)
        self._run_rows += rows
        size = rows if rows <= _EXACT else 1 << (rows - 1).bit_length()
        runs = self.runs.get(size)
        if runs is None:
            runs = self.runs[size] = [0, 0.0]
        runs[0] += 1
        runs[1] += seconds

    @property
    def joined(self) -> Histogram:
        """Rows of each run."""
        found = Histogram(ROWS)
        for rows, (count, _) in self.runs.copy().items():
            found.add(rows, int(count))
        found.total = self._run_rows
        return found

    def fail(self, reason: str) -> None:
        """Counts a request that was not answered."""
        self.failed[reason] = self.failed.get(reason, 0) + 1
