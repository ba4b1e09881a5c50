"""Numbers that workers share, so that each can tell those of all.

Every worker has a slot in memory that all of them see, and writes its own numbers there when another asks. A worker
that is replaced finds its predecessor's numbers in its slot and counts on from them: counters never go back.

A count in shared memory itself would cost every request what only a scrape needs.
"""

from __future__ import annotations

import asyncio
import mmap
import os
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from workbench.server.batcher import Batcher
from workbench.server.meter import Histogram, Meter

SLOT = 1 << 20
"""Bytes of a worker's slot; a version of a model takes some 700. Pages that are not written take no memory."""

PATIENCE_S = 0.25
"""How long a scrape waits for the others. One that computes for longer is told of by what it said last."""

_POLL_S = 0.001
_HEAD = struct.Struct("=QqI")
"""Writings begun and ended, together; the process; the length of what follows."""

_LATEST = ("last_ns", "load_seconds")
"""Numbers of which the largest is told, not the sum."""
_OF_NOW = ("waiting", "load_seconds")
"""Numbers that end with their process."""

Key = tuple[str, str]


class Board:
    """The slots of ``count`` workers; made before they are forked."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._memory = mmap.mmap(-1, count * SLOT)
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


class Shared:
    """What worker ``number`` has of the board: its own numbers are those of ``batchers``."""

    def __init__(self, board: Board, number: int, batchers: Iterable[Batcher]) -> None:
        self._board = board
        self._number = number
        self._batchers = batchers
        self._sums: dict[Key, Meter] = {}
        self.processes: list[int] = []
        """The workers that told their numbers last."""
        before = _meters(board.read(number)[1])
        for batcher in batchers:
            if (meter := before.get((batcher.model.name, batcher.model.version))) is not None:
                for name in _OF_NOW:
                    setattr(meter, name, 0)
                add(batcher.meter, meter)
        self.write()

    def listen(self, loop: asyncio.AbstractEventLoop) -> None:
        """From now on writes when another asks."""
        bell = self._board.bells[self._number]

        def rung() -> None:
            os.eventfd_read(bell)
            self.write()

        loop.add_reader(bell, rung)

    def write(self) -> None:
        """Writes this worker's numbers."""
        numbers = [(each.model.name, each.model.version, _plain(each.meter)) for each in self._batchers]
        self._board.write(self._number, msgspec.msgpack.encode(numbers))

    async def gather(self) -> None:
        """Asks all, waits for their numbers (at most :data:`PATIENCE_S`) and sums them up."""
        board = self._board
        self.write()
        others = {worker: board.writings(worker) for worker in range(board.count) if worker != self._number}
        for worker in others:
            os.eventfd_write(board.bells[worker], 1)
        loop = asyncio.get_running_loop()
        end = loop.time() + PATIENCE_S
        while any(board.writings(worker) < turn + 2 for worker, turn in others.items()) and loop.time() < end:
            await asyncio.sleep(_POLL_S)
        self._sums, self.processes = {}, []
        for worker in range(board.count):
            pid, data = board.read(worker)
            if pid:
                self.processes.append(pid)
            for key, meter in _meters(data).items():
                add(self._sums.setdefault(key, Meter()), meter)

    def __iter__(self) -> Iterator[Counted]:
        """The sums."""
        for (name, version), meter in self._sums.items():
            yield Counted(Named(name, version), meter)


def add(meter: Meter, other: Meter) -> None:
    """Adds the numbers of ``other`` to those of ``meter``."""
    for name, value in vars(other).items():
        mine = getattr(meter, name)
        if isinstance(value, Histogram):
            mine.counts = [one + more for one, more in zip(mine.counts, value.counts, strict=True)]
            mine.total += value.total
        elif isinstance(value, dict):
            for key, more in value.items():
                known = mine.get(key)
                if isinstance(more, list):
                    mine[key] = more if known is None else [one + other for one, other in zip(known, more, strict=True)]
                else:
                    mine[key] = more if known is None else known + more
        else:
            setattr(meter, name, max(mine, value) if name in _LATEST else mine + value)


def _plain(meter: Meter) -> dict[str, Any]:
    return {
        name: (value.counts, value.total) if isinstance(value, Histogram) else value
        for name, value in vars(meter).items()
    }


def _meters(data: bytes) -> dict[Key, Meter]:
    found: dict[Key, Meter] = {}
    for model, version, numbers in msgspec.msgpack.decode(data) if data else ():
        meter = found[model, version] = Meter()
        for name, value in numbers.items():
            mine = getattr(meter, name)
            if isinstance(mine, Histogram):
                mine.counts, mine.total = value
            else:
                setattr(meter, name, value)
    return found
