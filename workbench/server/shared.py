"""Numbers that workers share, so that each can tell those of all.

Every worker has a slot in memory that all of them see, and writes its own numbers there when another asks. A worker
that is replaced finds its predecessor's numbers in its slot and counts on from them: counters never go back. What a
worker that was killed had counted since it was last asked is lost.

A count in shared memory itself would cost every request what only a scrape needs.
"""

from __future__ import annotations

import asyncio
import mmap
import os
import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from workbench.server.batcher import Batcher
from workbench.server.meter import Histogram, Meter

if TYPE_CHECKING:
    from workbench.server.cache import ResponseCache
    from workbench.server.observe import Observer
    from workbench.server.shared_stats import SharedStatistics

SLOT = 64 << 20
"""Bytes of a worker's slot at most: in numbers of requests a version of a model takes some 700, in statistics of inputs
some 250 for each feature, in labels what they are long. Pages that are not written take no memory."""

PATIENCE_S = 0.25
"""How long a scrape waits for the others. One that computes for longer is told of by what it said last."""

_POLL_S = 0.001
_HEAD = struct.Struct("=QqI")
"""Writings begun and ended, together; the process; the length of what follows."""

_LATEST = ("last_ns", "load_seconds")
"""Numbers of which the largest is told, not the sum."""
_OF_NOW = ("waiting", "load_seconds", "cache_entries", "cache_bytes")
"""Numbers that end with their process."""

Key = tuple[str, str]
Extras = dict[str, int]


class Board:
    """The slots of ``count`` workers; made before they are forked."""

    def __init__(self, count: int) -> None:
        self.count = count
        # Of a file in memory only what is written counts as taken; anonymous memory that is shared counts whole.
        file = os.memfd_create("workers")
        os.ftruncate(file, count * SLOT)
        self._memory = mmap.mmap(file, count * SLOT)
        os.close(file)
        self.bells = [os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC) for _ in range(count)]
        """By worker: what is rung to have it write its numbers."""

    def writings(self, worker: int) -> int:
        """How often a worker has begun and ended to write: odd while it does."""
        return int(_HEAD.unpack_from(self._memory, worker * SLOT)[0])

    def write(self, worker: int, data: bytes) -> None:
        """Writes a worker's numbers; what does not fit into its slot leaves it as it was."""
        at = worker * SLOT
        if len(data) > SLOT - _HEAD.size:
            return
        turn = self.writings(worker) | 1
        _HEAD.pack_into(self._memory, at, turn, os.getpid(), len(data))
        self._memory[at + _HEAD.size : at + _HEAD.size + len(data)] = data
        _HEAD.pack_into(self._memory, at, turn + 1, os.getpid(), len(data))

    def read(self, worker: int) -> tuple[int, bytes]:
        """The process of a worker and what it wrote last; none where it writes at this moment, or died at it."""
        at = worker * SLOT
        turn, pid, length = _HEAD.unpack_from(self._memory, at)
        data = self._memory[at + _HEAD.size : at + _HEAD.size + length]
        return (0, b"") if turn % 2 or self.writings(worker) != turn else (pid, data)

    async def ask(self, asking: int, patience: float) -> list[tuple[int, bytes]]:
        """What the workers other than ``asking`` write when they are asked now, each with its process.

        Of one that does not write within ``patience`` seconds what it wrote last; none where it died at that.
        """
        others = [worker for worker in range(self.count) if worker != asking]
        # One that writes at this moment has begun before it was asked: the next writing counts.
        due = {worker: (self.writings(worker) + 3) // 2 * 2 for worker in others}
        for worker in others:
            os.eventfd_write(self.bells[worker], 1)
        loop = asyncio.get_running_loop()
        end = loop.time() + patience
        found = []
        for worker in others:
            # It may be asked by another as well, and write again while it is read.
            read = self.read(worker)
            while (self.writings(worker) < due[worker] or not read[0]) and loop.time() < end:
                await asyncio.sleep(_POLL_S)
                read = self.read(worker)
            if read[0]:
                found.append(read)
        return found


@dataclass
class Named:
    """The model that numbers are of."""

    name: str
    version: str


@dataclass
class Counted:
    """The numbers of one version of a model, of all workers."""

    model: Named
    meter: Meter


class Told(msgspec.Struct):
    """What a worker tells: the numbers of its meters by model and version, and those that are of no model."""

    meters: list[tuple[str, str, dict[str, Any]]] = []
    extras: Extras = {}


class Shared:
    """What worker ``number`` has of the board: its own numbers are those of ``batchers`` and ``extras``."""

    def __init__(self, board: Board, number: int, batchers: Iterable[Batcher], extras: Callable[[], Extras]) -> None:
        self._board = board
        self._number = number
        self._batchers = batchers
        self._extras = extras
        self._sums: dict[Key, Meter] = {}
        self.extras: Extras = {}
        """Those of all workers, as :meth:`gather` found them."""
        self.processes: list[int] = []
        """The workers that told their numbers last."""
        self.statistics: SharedStatistics | None = None
        """Those of inputs and outputs, where they are followed."""
        before = _decoded(board.read(number)[1])
        meters = _meters(before)
        for batcher in batchers:
            if (meter := meters.get((batcher.model.name, batcher.model.version))) is not None:
                for name in _OF_NOW:
                    if hasattr(meter, name):
                        setattr(meter, name, 0)
                add(batcher.meter, meter)
        self._before = {name: count for name, count in before.extras.items() if name not in _OF_NOW}
        self.write()

    def listen(self, loop: asyncio.AbstractEventLoop) -> None:
        """From now on writes when another asks."""
        bell = self._board.bells[self._number]

        def rung() -> None:
            os.eventfd_read(bell)
            self.write()

        loop.add_reader(bell, rung)
        if self.statistics is not None:
            self.statistics.listen(loop)

    def write(self) -> None:
        """Writes this worker's numbers."""
        meters = [(each.model.name, each.model.version, _plain(each.meter)) for each in self._batchers]
        self._board.write(self._number, msgspec.msgpack.encode(Told(meters, _sum(self._extras(), self._before))))

    async def gather(self) -> None:
        """Asks all, waits for their numbers (at most :data:`PATIENCE_S`) and sums them up."""
        others = await self._board.ask(self._number, PATIENCE_S)
        self.write()
        sums: dict[Key, Meter] = {}
        extras: Extras = {}
        processes = []
        for pid, data in (*others, self._board.read(self._number)):
            processes.append(pid)
            told = _decoded(data)
            extras = _sum(extras, told.extras)
            for key, meter in _meters(told).items():
                add(sums.setdefault(key, Meter()), meter)
        # All at once: another scrape may have waited meanwhile.
        self._sums, self.extras, self.processes = sums, extras, processes

    def __iter__(self) -> Iterator[Counted]:
        """The sums."""
        for (name, version), meter in self._sums.items():
            yield Counted(Named(name, version), meter)


def extras_of(cache: ResponseCache | None, observer: Observer | None) -> Extras:
    """The numbers of this process that are of no model: those of ``cache`` and ``observer`` that are there."""
    found: Extras = {}
    if cache is not None:
        found |= {"cache_evictions": cache.evicted, "cache_entries": len(cache), "cache_bytes": cache.held}
    if observer is not None and observer.log is not None:
        found["access_log_lost"] = observer.log.lost
    if observer is not None and observer.tracer is not None:
        found["trace_spans_lost"] = observer.tracer.lost
    return found


def add(meter: Meter, other: Meter) -> None:
    """Adds the numbers of ``other`` to those of ``meter``."""
    for name, value in vars(other).items():
        mine = getattr(meter, name)
        if isinstance(value, Histogram):
            mine.counts = [one + more for one, more in zip(mine.counts, value.counts, strict=True)]
            mine.total += value.total
        elif isinstance(value, dict):
            for key, count in value.items():
                if isinstance(count, list):
                    mine[key] = [one + more for one, more in zip(mine.get(key, [0] * len(count)), count, strict=True)]
                else:
                    mine[key] = mine.get(key, 0) + count
        else:
            setattr(meter, name, max(mine, value) if name in _LATEST else mine + value)


def _sum(one: Extras, other: Extras) -> Extras:
    return {name: one.get(name, 0) + other.get(name, 0) for name in {**one, **other}}


def _plain(meter: Meter) -> dict[str, Any]:
    return {
        name: (value.counts, value.total) if isinstance(value, Histogram) else value
        for name, value in vars(meter).items()
    }


def _decoded(data: bytes) -> Told:
    return msgspec.msgpack.decode(data, type=Told) if data else Told()


def _meters(told: Told) -> dict[Key, Meter]:
    found: dict[Key, Meter] = {}
    for model, version, numbers in told.meters:
        meter = found[model, version] = Meter()
        for name, value in numbers.items():
            mine = getattr(meter, name)
            if isinstance(mine, Histogram):
                mine.counts, mine.total = value
            else:
                setattr(meter, name, value)
    return found
