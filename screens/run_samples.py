"""All of a run's ``samples.jsonl``, thinned: as much as a page shows of it, however long the run was."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Generic, TypeVar

from screens.samples import Sensor, Window, merged, parsed

MOST = 480
"""Samples of a series that are kept. Where there are more, each two neighbours are made one, as often as need be."""

_Sample = TypeVar("_Sample", Sensor, Window)


@dataclass
class _Thinned(Generic[_Sample]):
    """A series of at most :data:`MOST` samples, each made of ``whole`` ones; ``part`` is the one under way."""

    join: Callable[[list[_Sample]], _Sample]
    found: list[_Sample] = field(default_factory=list)
    part: list[_Sample] = field(default_factory=list)
    whole: int = 1

    def add(self, sample: _Sample) -> None:
        self.part.append(sample)
        if len(self.part) < self.whole:
            return
        self.found.append(self.join(self.part))
        self.part = []
        if len(self.found) == MOST:
            pairs = zip(self.found[::2], self.found[1::2], strict=True)
            self.found = [self.join(list(pair)) for pair in pairs]
            self.whole *= 2

    def all(self) -> tuple[_Sample, ...]:
        return tuple(self.found + ([self.join(self.part)] if self.part else []))


@dataclass(frozen=True)
class RunSamples:
    """The machine over the run, and each series of latencies by ``(step, series)`` in the order they were taken."""

    sensors: tuple[Sensor, ...] = ()
    latencies: dict[tuple[str, str], tuple[Window, ...]] = field(default_factory=dict)


def read_samples(path: Path) -> RunSamples:
    """What the file at ``path`` holds; nothing where there is none."""
    sensors = _Thinned(_one_sensor)
    latencies: dict[tuple[str, str], _Thinned[Window]] = {}
    try:
        with path.open("rb") as file:
            for line in file:
                match parsed(line):
                    case (_, _, Sensor() as sensor):
                        sensors.add(sensor)
                    case (step, series, Window() as window):
                        latencies.setdefault((step, series), _Thinned(_one_window)).add(window)
    except OSError:
        return RunSamples()
    return RunSamples(sensors.all(), {key: each.all() for key, each in latencies.items()})


def _one_window(windows: list[Window]) -> Window:
    return Window(windows[-1].time, tuple(merged(windows)))


def _one_sensor(readings: list[Sensor]) -> Sensor:
    """The mean of the processor, the most of the memory."""
    last = readings[-1]
    cpu = sum(each.cpu for each in readings) / len(readings)
    return replace(last, cpu=cpu, memory_used=max(each.memory_used for each in readings))
