"""Statistics of inputs and outputs that workers share, so that each can tell those of all (see input_stats).

They are told as numbers of requests are (see shared), over a board of their own: they are larger, and what it takes to
sum them up is nothing for the event loop. Numbers of histograms can be added where the bounds are the same, so workers
agree on bounds: those of the first that knows some.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import struct
import threading
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from workbench.server.batcher import Batcher
from workbench.server.shared import Board, Key

if TYPE_CHECKING:
    from workbench.server.feature_stats import Bounds
    from workbench.server.input_stats import Numbers

PATIENCE_S = 2.0
"""How long an answer waits for the other workers. It is longer than for numbers of requests: there is more to do, and
nobody asks for these every few seconds."""

_END = struct.Struct("=Q")

_Tensor = tuple[str, str, str, int]
"""Model, version, tensor, columns."""


class Agreement:
    """The bounds that workers have agreed on: a file in memory, made before they are forked, that only grows."""

    def __init__(self) -> None:
        self._file = os.memfd_create("bounds")
        # Locks of files keep processes apart and not threads.
        self._lock = threading.Lock()
        self._known: dict[_Tensor, Bounds] = {}
        self._read = _END.size

    def settle(self, model: str, version: str, tensor: str, columns: int, bounds: Bounds | None) -> Bounds | None:
        """The bounds of a tensor: those that the first gave who had some; None where nobody had."""
        of = (model, version, tensor, columns)
        with self._lock:
            fcntl.lockf(self._file, fcntl.LOCK_EX)
            try:
                self._catch_up()
                if of not in self._known and bounds is not None:
                    self._append(of, bounds)
            finally:
                fcntl.lockf(self._file, fcntl.LOCK_UN)
            return self._known.get(of)

    def end(self) -> int:
        """How much has been agreed on: it grows with each tensor."""
        head = os.pread(self._file, _END.size, 0)
        return int(_END.unpack(head)[0]) if head else _END.size

    def _catch_up(self) -> None:
        end = self.end()
        while self._read < end:
            (size,) = _END.unpack(os.pread(self._file, _END.size, self._read))
            record = os.pread(self._file, size, self._read + _END.size)
            of, bounds = msgspec.msgpack.decode(record, type=tuple[_Tensor, list[list[float]]])
            self._known[of] = bounds
            self._read += _END.size + size

    def _append(self, of: _Tensor, bounds: Bounds) -> None:
        record = msgspec.msgpack.encode((of, bounds))
        os.pwrite(self._file, _END.pack(len(record)) + record, self._read)
        # The end last: of one that is killed before, nothing is there.
        self._read += _END.size + len(record)
        os.pwrite(self._file, _END.pack(self._read), 0)
        self._known[of] = bounds


class StatisticsBoard(Board):
    """The slots of ``count`` workers for their statistics, and what they agree on; made before they are forked."""

    def __init__(self, count: int) -> None:
        super().__init__(count)
        self.agreement = Agreement()


class SharedStatistics:
    """What worker ``number`` has of the board. Its own statistics are those of ``batchers``, which go on from what its
    predecessor told last."""

    def __init__(self, board: StatisticsBoard, number: int, batchers: Iterable[Batcher]) -> None:
        """To be made before requests are answered."""
        self._board = board
        self._number = number
        self._followed = {
            (each.model.name, each.model.version): each.statistics for each in batchers if each.statistics is not None
        }
        self._writing = threading.Lock()
        before = _decoded(board.read(number)[1])
        for key, statistics in self._followed.items():
            statistics.agree_by(partial(board.agreement.settle, *key))
            if (numbers := before.get(key)) is not None:
                statistics.join(numbers)

    def listen(self, loop: asyncio.AbstractEventLoop) -> None:
        """From now on writes when another asks."""
        bell = self._board.bells[self._number]

        def rung() -> None:
            os.eventfd_read(bell)
            loop.run_in_executor(None, self._write)

        loop.add_reader(bell, rung)

    async def others(self) -> dict[Key, list[Numbers]]:
        """What the other workers know, by model and version."""
        loop = asyncio.get_running_loop()
        agreed = -1
        # One that told before another set bounds has left rows out of its histogram that it can put there now.
        while agreed != (agreed := self._board.agreement.end()):
            # Its own too: what it has told does not end with it.
            written = loop.run_in_executor(None, self._write)
            told = await self._board.ask(self._number, PATIENCE_S)
            await written
        return await loop.run_in_executor(None, _by_model, [data for _, data in told])

    def _write(self) -> None:
        with self._writing:
            told = [(*key, statistics.told()) for key, statistics in self._followed.items()]
            self._board.write(self._number, msgspec.msgpack.encode(told))


def _by_model(told: Iterable[bytes]) -> dict[Key, list[Numbers]]:
    found: dict[Key, list[Numbers]] = {}
    for data in told:
        for key, numbers in _decoded(data).items():
            found.setdefault(key, []).append(numbers)
    return found


def _decoded(data: bytes) -> dict[Key, Numbers]:
    # The board is made whether inputs are followed or not.
    from workbench.server.input_stats import Numbers

    told = msgspec.msgpack.decode(data, type=list[tuple[str, str, Numbers]]) if data else []
    return {(name, version): numbers for name, version, numbers in told}
