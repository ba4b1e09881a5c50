"""Several worker processes behind one listening socket, and the parent that keeps them.

The workers are forked once everything is imported and before any model is loaded: a session of onnxruntime has threads,
which a fork would lose, while what is imported is shared memory, and costs a worker no time. They accept from the same
socket, so a connection that waits when a worker dies is taken by another.
"""

from __future__ import annotations

import contextlib
import math
import os
import selectors
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass

from workbench.server.life import CUT_OFF
from workbench.server.shared import Board
from workbench.server.shared_stats import StatisticsBoard

STEADY_S = 10.0
"""A worker that was ready for so long has shown that it can work: the next one that dies is replaced at once."""
MOST_WAIT_S = 30.0
TRIES = 5
"""Starts in a row that may fail, while no worker is ready, before the parent gives up."""
KILLED_AFTER_S = 5
"""Beyond the grace that a worker has to end."""

FAILED = 1
UNUSABLE = 2
"""Exit status of a worker, and of the parent then, where a setting or a model is not usable: another try is no use."""

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)


@dataclass
class Place:
    """What one worker has, and the one that takes its place: its number, the numbers and the statistics that all
    workers share, the end of a pipe where it says that it is ready, and one that closes when the parent is gone."""

    number: int
    board: Board
    statistics: StatisticsBoard
    ready: int
    parent: int


@dataclass
class _Worker:
    place: int
    pid: int
    pipe: int
    started: float
    ready: bool = False


Work = Callable[[Place], int]
"""What a worker does: serves until it is told to stop, and returns its exit status."""


class Parent:
    """Keeps ``count`` workers, each doing ``work``.

    ``log`` is told what happens to them, ``ready`` is called once all are ready, ``stop`` when they are to end.
    ``grace``: seconds that they have to end after SIGTERM.
    """

    def __init__(
        self,
        count: int,
        work: Work,
        *,
        grace: float,
        ready: Callable[[], None],
        stop: Callable[[], None],
        log: Callable[[str], None],
    ) -> None:
        self._count = count
        self._work = work
        self._grace = grace
        self._told_ready = ready
        self._told_stop = stop
        self._log = log
        self._board = Board(count)
        self._statistics = StatisticsBoard(count)
        self._workers: dict[int, _Worker] = {}
        self._due: dict[int, float] = {}
        """When the worker of a place is started."""
        self._wait = [0.0] * count
        self._failures = 0
        self._announced = False
        self._stopping = False
        self._life: tuple[int, int] = (-1, -1)

    def run(self) -> int:
        """Returns after SIGTERM or SIGINT, when all have ended, with 0; with another status where it gave up. A second
        one ends what is in flight."""
        wakeup, told = socket.socketpair()
        with wakeup, told, selectors.DefaultSelector() as selector:
            for end in (wakeup, told):
                end.setblocking(False)
            before = {number: signal.signal(number, lambda *_: None) for number in _SIGNALS}
            # The numbers of the signals arrive as bytes, so one that comes between two looks is not lost.
            signal.set_wakeup_fd(told.fileno(), warn_on_full_buffer=False)
            self._life = os.pipe()
            self._due = dict.fromkeys(range(self._count), 0.0)
            selector.register(wakeup, selectors.EVENT_READ)
            try:
                return self._keep(selector, wakeup)
            finally:
                signal.set_wakeup_fd(-1)
                for number, handler in before.items():
                    signal.signal(number, handler)
                for end_of_pipe in self._life:
                    os.close(end_of_pipe)

    def _keep(self, selector: selectors.BaseSelector, wakeup: socket.socket) -> int:
        status = 0
        killed_at = math.inf
        while True:
            now = time.monotonic()
            if not self._stopping:
                for place in [place for place, due in self._due.items() if due <= now]:
                    del self._due[place]
                    self._start(place, selector)
            elif now >= killed_at:
                self._signal(signal.SIGKILL)
                killed_at = math.inf
            until = min([killed_at, *([] if self._stopping else self._due.values())])
            for key, _ in selector.select(None if until == math.inf else max(0.0, until - now)):
                if isinstance(key.data, _Worker):
                    self._heard(key.data, selector)
            got = _signals(wakeup)
            ended = self._reap(selector)
            if ended is not None:
                status = ended
            told = bool({signal.SIGTERM, signal.SIGINT} & got)
            if told and self._stopping:
                self._signal(CUT_OFF)
            if (ended is not None or told) and not self._stopping:
                self._stopping = True
                self._told_stop()
                self._signal(signal.SIGTERM)
                killed_at = time.monotonic() + self._grace + KILLED_AFTER_S
            if self._stopping and not self._workers:
                return status

    def _start(self, place: int, selector: selectors.BaseSelector) -> None:
        reader, writer = os.pipe()
        pid = os.fork()
        if not pid:
            self._be_worker(Place(place, self._board, self._statistics, writer, self._life[0]), reader, selector)
        os.close(writer)
        worker = self._workers[pid] = _Worker(place, pid, reader, time.monotonic())
        selector.register(reader, selectors.EVENT_READ, worker)

    def _be_worker(self, place: Place, reader: int, selector: selectors.BaseSelector) -> None:
        """In the worker: never returns."""
        status = FAILED
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            # Until requests are taken there is nothing to finish.
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, lambda *_: os._exit(0))
            signal.signal(CUT_OFF, signal.SIG_IGN)
            selector.close()
            os.close(self._life[1])
            for descriptor in (reader, *(other.pipe for other in self._workers.values() if other.pipe >= 0)):
                os.close(descriptor)
            status = self._work(place)
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            os._exit(status)

    def _heard(self, worker: _Worker, selector: selectors.BaseSelector) -> None:
        """The pipe of a worker says that it is ready, or that it is gone."""
        if os.read(worker.pipe, 4096):
            worker.ready = True
            self._failures = 0
            if not self._announced and sum(each.ready for each in self._workers.values()) == self._count:
                self._announced = True
                self._told_ready()
        else:
            selector.unregister(worker.pipe)
            os.close(worker.pipe)
            worker.pipe = -1

    def _reap(self, selector: selectors.BaseSelector) -> int | None:
        """Takes note of the workers that have ended; the status to give up with, where that is to be."""
        giving_up = None
        for pid in list(self._workers):
            found, raw = os.waitpid(pid, os.WNOHANG)
            if not found:
                continue
            worker = self._workers.pop(pid)
            if worker.pipe >= 0:
                selector.unregister(worker.pipe)
                os.close(worker.pipe)
            if self._stopping or giving_up is not None:
                continue
            code = os.waitstatus_to_exitcode(raw)
            giving_up = self._ended(worker, code)
        return giving_up

    def _ended(self, worker: _Worker, code: int) -> int | None:
        """Plans the start of another; the status to give up with, where that is to be."""
        told = f"ended with status {code}" if code >= 0 else f"was killed by signal {-code}"
        if not worker.ready:
            self._failures += 1
            if code == UNUSABLE and not self._announced:
                return UNUSABLE  # it has said why
            if self._failures >= TRIES and not any(each.ready for each in self._workers.values()):
                self._log(f"worker {worker.pid} {told}; {self._failures} in a row could not start: giving up")
                return FAILED
        steady = worker.ready and time.monotonic() - worker.started >= STEADY_S
        wait = 0.0 if steady else self._wait[worker.place]
        self._wait[worker.place] = 0.0 if steady else min(MOST_WAIT_S, wait * 2 or 0.5)
        self._due[worker.place] = time.monotonic() + wait
        self._log(f"worker {worker.pid} {told}; another starts" + (f" in {wait:g} s" if wait else ""))
        return None

    def _signal(self, number: int) -> None:
        for pid in self._workers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)


def _signals(wakeup: socket.socket) -> set[int]:
    """The signals that arrived."""
    got: set[int] = set()
    with contextlib.suppress(BlockingIOError):
        while data := wakeup.recv(4096):
            got |= set(data)
    return got
