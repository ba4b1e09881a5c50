"""The newest of a run's ``samples.jsonl``: what the machine and the container did, and how long queries took.

Only the end of the file is read, and only so much is kept as a panel shows: a run of hours opens as fast as one of a
minute, and hours of looking on take no more memory than minutes.
"""

from __future__ import annotations

import bisect
import itertools
import os
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from screens.words import items, mapping, number

READ_BYTES = 4 << 20
"""What of the end of a file is read at first, and at most at a time: 10,000 samples, 30 ms."""

KEPT = 240
"""Samples of a series that are kept: a minute at 4 Hz."""

ROLLED = 20
"""Latency windows that a percentile is taken over: five seconds at 4 Hz."""

LEAST = {"p50": 10, "p95": 130, "p99": 662}
"""Queries that a percentile needs, as in workbench.bench.statistics.least_queries (p50: enough to look at)."""


@dataclass(frozen=True)
class Sensor:
    """A reading of the machine: seconds since the epoch, CPU in percent (of all, of each core), bytes, GPUs."""

    time: float
    cpu: float
    cpu_each: tuple[float, ...]
    memory_used: float
    memory_total: float
    gpus: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True)
class Container:
    """A reading of the container: CPU in percent of one core, resident bytes."""

    time: float
    cpu: float
    memory: float


@dataclass(frozen=True)
class Window:
    """The queries that ended in about a quarter of a second: their latencies as ``(lower bound in ns, count)``, and how
    many waited for their answer at its end (None: the load sends one at a time)."""

    time: float
    histogram: tuple[tuple[int, int], ...]
    waiting: int | None = None

    @property
    def count(self) -> int:
        return sum(count for _, count in self.histogram)


@dataclass(frozen=True)
class Samples:
    """The newest samples: the machine's, each container's and each series of latencies by ``(step, series)``."""

    sensors: tuple[Sensor, ...] = ()
    containers: Mapping[str, tuple[Container, ...]] = field(default_factory=dict)
    latencies: Mapping[tuple[str, str], tuple[Window, ...]] = field(default_factory=dict)


def merged(windows: Iterable[Window]) -> list[tuple[int, int]]:
    """The histograms of ``windows`` as one, by bound."""
    found: dict[int, int] = {}
    for bound, count in itertools.chain.from_iterable(window.histogram for window in windows):
        found[bound] = found.get(bound, 0) + count
    return sorted(found.items())


def bucket_end(bound: int) -> int:
    """Where the bucket that begins at ``bound`` ends: 16 to an octave, as workbench.bench.statistics.histogram has."""
    return bound + max(1 << max(bound.bit_length() - 5, 0), 1)


def percentile(histogram: Sequence[tuple[int, int]], level: str) -> float | None:
    """A percentile in ns, to the 6% of a bucket; None where there are too few queries for it."""
    total = sum(count for _, count in histogram)
    if total < LEAST[level]:
        return None
    ends = list(itertools.accumulate(count for _, count in histogram))
    at = bisect.bisect_left(ends, float(level[1:]) / 100 * total)
    return float(histogram[min(at, len(histogram) - 1)][0])


def over_time(windows: Sequence[Window], level: str, rolled: int = ROLLED) -> list[float | None]:
    """A percentile over time: each over the ``rolled`` windows up to then."""
    return [percentile(merged(windows[max(0, end - rolled) : end]), level) for end in range(1, len(windows) + 1)]


def throughput(windows: Sequence[Window]) -> float | None:
    """Queries a second over the newest :data:`ROLLED` windows."""
    newest = windows[-ROLLED:]
    if len(newest) < 2 or newest[-1].time <= newest[0].time:
        return None
    return sum(window.count for window in newest[1:]) / (newest[-1].time - newest[0].time)


class Newest:
    """Takes lines of samples in and keeps the newest."""

    def __init__(self) -> None:
        self._sensors: deque[Sensor] = deque(maxlen=KEPT)
        self._containers: dict[str, deque[Container]] = {}
        self._latencies: dict[tuple[str, str], deque[Window]] = {}

    def samples(self) -> Samples:
        """What is kept now."""
        return Samples(
            tuple(self._sensors),
            {name: tuple(each) for name, each in self._containers.items()},
            {name: tuple(each) for name, each in self._latencies.items()},
        )

    def take(self, line: bytes) -> None:
        """Takes a line in; one that is no sample is left out."""
        match parsed(line):
            case (_, _, Sensor() as sensor):
                self._sensors.append(sensor)
            case (step, _, Container() as reading):
                self._containers.setdefault(step, deque(maxlen=KEPT)).append(reading)
            case (step, series, Window() as window):
                self._latencies.setdefault((step, series), deque(maxlen=KEPT)).append(window)


class SampleSource:
    """Reads the samples of a run as they come."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset: int | None = None
        self._newest = Newest()
        self._last = Samples()

    def advance(self) -> Samples:
        """What is there now; the same object where nothing came."""
        lines = self._lines()
        if not lines:
            return self._last
        for line in lines:
            self._newest.take(line)
        self._last = self._newest.samples()
        return self._last

    def _lines(self) -> list[bytes]:
        try:
            with self._path.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                first = self._offset is None
                start = max(size - READ_BYTES, 0 if self._offset is None else self._offset)
                skipped = start > (self._offset or 0)
                file.seek(start)
                data = file.read(READ_BYTES)
        except OSError:
            return []
        whole = data.rfind(b"\n") + 1
        self._offset = start + whole
        lines = data[:whole].splitlines()
        return lines[1:] if skipped and (first or start) else lines


def parsed(line: bytes) -> tuple[str, str, Sensor | Container | Window] | None:
    """The step, the series and the sample of a line; None for half a line, of a disk that was full, and other kinds."""
    try:
        found = mapping(msgspec.json.decode(line))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    step, values, time = str(found.get("step")), mapping(found, "values"), number(found.get("time")) or 0.0
    series = str(values.get("series", ""))
    match found.get("kind"):
        case "sensors":
            return step, series, _sensor(time, values)
        case "container":
            tree = mapping(values, "tree")
            return step, series, Container(time, number(tree.get("cpu")) or 0.0, number(tree.get("memory")) or 0.0)
        case "latency":
            waiting = number(values.get("waiting"))
            return step, series, Window(time, tuple(_buckets(values)), None if waiting is None else int(waiting))
    return None


def _sensor(time: float, values: Mapping[str, Any]) -> Sensor:
    return Sensor(
        time,
        number(values.get("cpu")) or 0.0,
        tuple(number(each) or 0.0 for each in items(values, "cpu_each")),
        number(values.get("memory_used")) or 0.0,
        number(values.get("memory_total")) or 0.0,
        tuple(mapping(gpu) for gpu in items(values, "gpus")),
    )


def _buckets(values: Mapping[str, Any]) -> Iterable[tuple[int, int]]:
    """The buckets of a histogram. A line may say anything: what no clock measures and nobody counts is left out."""
    for pair in items(values, "histogram"):
        if isinstance(pair, list) and len(pair) == 2:
            bound, count = pair
            if type(bound) is int and type(count) is int and 0 <= bound < 2**63 and 0 < count < 2**63:
                yield bound, count
