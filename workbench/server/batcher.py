"""Dynamic batching: concurrent requests to a model join into one run.

Nobody waits while the model is idle. A quick model runs on the event loop: what arrives in one turn of the loop joins,
and the run begins with the last of it. Where more waits than one run takes, a few runs follow on each other.
A slow one runs in a thread: what arrives while it runs joins the next run, so the wait grows with the load by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from workbench.server.errors import RequestError
from workbench.server.exchange import current
from workbench.server.meter import Meter
from workbench.server.model import SLOW_NS, Model
from workbench.server.tensors import Array

if TYPE_CHECKING:
    from workbench.server.input_stats import InputStatistics

Key = tuple[object, ...]
Outcome = list[Array] | RequestError
Done = Callable[[Outcome], None]

_serials = itertools.count()
_log = logging.getLogger(__name__)

_WEIGHT = 0.1
"""Of the newest run in the running mean of what a row costs."""


TURN = 2 * SLOW_NS / 1e9
"""Seconds within which runs of a quick model follow on each other, before any of them is answered. After a request has
been answered and another one read, less of the model and of the server is left in the processor's caches: with
runs of 0.4 ms and images of 110 KB it is an eighth more a second than where each is answered by itself. The event loop
is held no longer than for this and one run that is just quick enough."""

STUCK = 10 * SLOW_NS / 1e9
"""Seconds: nobody else is to wait for a run of so long on the event loop, probes of health among them."""

APART = 250
"""Runs that leave the event loop after one that took so long: a model that is quick for some values may be slow for
others, and nothing tells them apart before. Where the machine was busy instead, the hops of so many to a thread and
back take less than that run did."""

_MOMENT = 0.05
"""Seconds: the way of a message may differ by as much."""


@dataclass(frozen=True)
class Limits:
    """What a model takes at most. ``rows`` of a joined run, ``queue``: requests that wait, ``wait``: seconds that a
    request may have to wait before it is refused, ``gather``: seconds that a run of a slow model waits for others."""

    rows: int = 64
    queue: int = 1024
    wait: float = 2.0
    gather: float = 0.0


class Request:
    """A request that waits. ``done`` gets what becomes of it, once."""

    __slots__ = (
        *("arrived", "deadline", "done", "exchange", "feed", "key", "late", "meter", "outputs", "over", "rows"),
        "taken",
    )

    def __init__(
        self, feed: dict[str, Array], outputs: list[str], rows: int, key: Key, done: Done, meter: Meter
    ) -> None:
        self.feed = feed
        self.outputs = outputs
        self.rows = rows
        self.key = key
        self.done = done
        self.meter = meter
        self.arrived = time.perf_counter()
        self.deadline = math.inf
        self.late: asyncio.TimerHandle | None = None
        self.exchange = current.get()
        self.over = False
        """Whether nobody waits any more."""
        self.taken = False
        """Whether it is part of a run."""

    def end(self, outcome: Outcome) -> None:
        """Hands over what became of it."""
        done = self._close()
        try:
            done(outcome)
        except Exception:  # those who were computed with it are to have theirs
            _log.exception("what became of a request could not be handed over")

    def expire(self) -> None:
        """Says that the deadline has passed, where somebody still waits."""
        if not self.over:
            self.meter.fail("deadline")
            self.end(RequestError(504, f"the answer was not there after {self.deadline - self.arrived:g} s"))

    def give_up(self) -> None:
        """Nobody waits for it any more. A transport that knows the deadline too may find out a moment before."""
        if not self.over:
            if time.perf_counter() > self.deadline - _MOMENT:
                self.meter.fail("deadline")
            self._close()

    def _close(self) -> Done:
        """Nothing is held for it any more, and nothing is to happen later."""
        done, self.done = self.done, _nothing
        self.over = True
        if not self.taken:  # it keeps its place in the queue, and what nobody counts any more is not to be there
            self.feed = {}
        if self.late is not None:
            self.late.cancel()
            self.late = None
        return done


def _nothing(_outcome: Outcome) -> None:
    pass


class Batcher:
    """The queue in front of ``model``. Slow runs go to ``pool``; what happens is counted by ``meter``."""

    def __init__(
        self, model: Model, limits: Limits, pool: Executor, meter: Meter, statistics: InputStatistics | None = None
    ) -> None:
        self.model = model
        self.meter = meter
        self.statistics = statistics
        """Of what it is asked and answers, where they are wanted."""
        self.serial = next(_serials)
        """Which loading of a model this is: another one for each in this process."""
        self._limits = limits
        self._pool = pool
        self._waiting: dict[Key, deque[Request]] = {}
        self._waiting_rows = 0
        self._planned: asyncio.Handle | None = None
        self._gathers = False
        """Whether the planned run waits for others."""
        self._running = False
        self._last = 1
        self._row_seconds = model.row_seconds
        self._apart = 0
        """Runs that are still to leave the event loop, however quick the last one was."""
        self._idle = asyncio.Event()
        self._idle.set()

    def submit(
        self, feed: dict[str, Array], outputs: list[str], done: Done, timeout: float | None = None, in_flight: int = 0
    ) -> Request:
        """Has the arrays of ``outputs`` computed for ``feed``, which has been checked against the model's inputs.

        ``done`` gets them on the event loop, or a RequestError: 504 where ``timeout`` (seconds) passed, 400 where the
        model does not take the values, 503 where the server ends before. ``in_flight``: how many requests the server
        has taken and not answered yet, where that is known. Once all of them wait here, nobody can join any more
        before the next turn of the loop.

        Raises RequestError 429 where the queue is full.
        """
        self.check_room()
        request = Request(feed, outputs, *self.model.rows_and_key(feed, outputs), done, self.meter)
        if timeout is not None:
            request.deadline = request.arrived + timeout
            request.late = asyncio.get_running_loop().call_later(timeout, request.expire)
        self._add(request, in_flight)
        return request

    async def infer(
        self, feed: dict[str, Array], outputs: list[str], timeout: float | None = None, in_flight: int = 0
    ) -> list[Array]:
        """As :meth:`submit`, for who waits: raises a RequestError that is handed over there."""
        return await awaited(lambda done: self.submit(feed, outputs, done, timeout, in_flight))

    def check_room(self) -> None:
        """RequestError 429 where the queue is full, or a request that came now would wait too long."""
        ahead = self._waiting_rows * self._row_seconds  # a guess from what rows cost lately
        if self.meter.waiting < self._limits.queue and ahead <= self._limits.wait:
            return
        self.meter.fail("full")
        raise RequestError(
            429,
            f"model {self.model.name!r} has {self.meter.waiting} requests ahead of this one; try again later",
            retry_after=max(1, math.ceil(ahead)),
        )

    async def drained(self) -> None:
        """Returns when nothing waits and nothing runs."""
        await self._idle.wait()

    def _add(self, request: Request, in_flight: int) -> None:
        self.meter.waiting += 1
        self._idle.clear()
        self._waiting_rows += request.rows
        group = self._waiting.get(request.key)
        if group is None:
            group = self._waiting[request.key] = deque()
        group.append(request)
        if self._running:
            return
        if self.meter.waiting == in_flight and not self.model.slow:
            if self._planned is not None:
                self._planned.cancel()
            self._begin()
        elif self._planned is None:
            self._plan()
        elif self._gathers and self._waiting_rows >= self._last:
            self._planned.cancel()
            self._plan()

    def _plan(self) -> None:
        """Has the next run begin in the next turn of the loop; of a slow model that was joined lately, a little later
        where fewer wait than the last run had."""
        loop = asyncio.get_running_loop()
        joins = self.model.slow and self._rows_limit > 1
        self._gathers = joins and self._limits.gather > 0 and self._waiting_rows < self._last
        if self._gathers:
            self._planned = loop.call_later(self._limits.gather, self._begin)
        else:
            self._planned = loop.call_soon(self._begin)

    def _take(self) -> list[Request]:
        """Those that join into the next run: of the oldest's kind, as many rows as fit; those given up are dropped."""
        most = self._rows_limit
        while self._waiting:
            key = self._oldest()
            group, rows = self._waiting[key], 0
            taken: list[Request] = []
            while group and (not taken or rows + group[0].rows <= most):
                request = group.popleft()
                self._waiting_rows -= request.rows
                if request.over:
                    self._left(1)
                    continue
                request.taken = True
                taken.append(request)
                rows += request.rows
            if not group:
                del self._waiting[key]
            if taken:
                self._last = rows
                return taken
        return []

    def _oldest(self) -> Key:
        """The kind of the request that has waited longest."""
        if len(self._waiting) == 1:
            return next(iter(self._waiting))
        return min(self._waiting, key=lambda key: self._waiting[key][0].arrived)

    @property
    def _rows_limit(self) -> int:
        return min(self._limits.rows, self.model.joins)

    def _begin(self) -> None:
        self._planned = None
        batch = self._take()
        if not batch:
            return
        if self.model.slow or self._apart or self._is_long(batch):
            self._run_apart(batch)
        else:
            self._run_here(batch)

    def _is_long(self, batch: list[Request]) -> bool:
        """Whether a run of a quick model is none that is quick, for one request has more rows than others join to."""
        rows = batch[0].rows
        return rows > self._rows_limit and rows * self._row_seconds > SLOW_NS / 1e9

    def _run_here(self, batch: list[Request]) -> None:
        """A run of a quick model, on the event loop, and those after it that begin within a moment."""
        end = time.perf_counter() + TURN
        ran = []
        while batch and not self._is_long(batch):
            ran.append((batch, *_carry_out(self.model, batch)))
            over = self.model.slow or self.model.undecided or time.perf_counter() > end
            batch = [] if over else self._take()
        if batch:
            self._run_apart(batch)
        for each in ran:
            self._end(*each)
        if not batch:
            self._go_on()

    def _run_apart(self, batch: list[Request]) -> None:
        """A run of a slow model, in a thread."""
        self._running = True
        try:
            run = asyncio.get_running_loop().run_in_executor(self._pool, _carry_out, self.model, batch)
        except RuntimeError:  # the pool is shut down
            self._lost(batch)
        else:
            run.add_done_callback(lambda done: self._returned(batch, done))

    def _returned(self, batch: list[Request], done: asyncio.Future[tuple[list[Outcome], float, float]]) -> None:
        if done.cancelled() or done.exception() is not None:
            self._lost(batch)
            return
        self._running = False
        self._end(batch, *done.result())
        self._go_on()

    def _lost(self, batch: list[Request]) -> None:
        """Of a batch that nobody computes: the pool is shut down, for the server ends."""
        self._running = False
        for request in batch:
            if not request.over:
                self.meter.fail("model")
                request.end(RequestError(503, "the server ends before this request was computed"))
        self._left(len(batch))
        self._go_on()

    def _end(self, batch: list[Request], outcomes: Sequence[Outcome], begun: float, seconds: float) -> None:
        """Hands the outcomes to those who wait."""
        meter = self.meter
        rows = sum([request.rows for request in batch])
        if seconds > STUCK and not self._is_long(batch):
            self._apart = APART
        elif self._apart:
            self._apart -= 1
        self._row_seconds += _WEIGHT * (seconds / max(rows, 1) - self._row_seconds)
        meter.ran(rows, seconds)
        if self.model.joins < self.model.most_joins and not any(isinstance(each, RequestError) for each in outcomes):
            self.model.ran(rows, seconds)
        for request, outcome in zip(batch, outcomes, strict=True):
            queued = begun - request.arrived
            meter.queue.add(queued)
            if request.exchange is not None:
                request.exchange.computed(queued, seconds, rows)
            if request.over:
                continue  # given up meanwhile
            if isinstance(outcome, RequestError):
                meter.fail("model")
            else:
                meter.answered += 1
                meter.answered_seconds += queued + seconds
                meter.rows += request.rows
            request.end(outcome)
            if self.statistics is not None and not isinstance(outcome, RequestError):
                self._follow(request, outcome)
        meter.last_ns = time.time_ns()
        self._left(len(batch))

    def _go_on(self) -> None:
        """After runs: what is next."""
        if self.model.undecided:
            self._decide()
        elif self._waiting:
            self._plan()

    def _decide(self) -> None:
        """Has the model find out how many rows to join, now that somebody has an answer; others wait for that once."""
        self._running = True
        try:
            run = asyncio.get_running_loop().run_in_executor(self._pool, self.model.decide)
        except RuntimeError:  # the pool is shut down
            self._running = False
            if self._waiting:
                self._plan()
        else:
            run.add_done_callback(self._decided)

    def _decided(self, done: asyncio.Future[None]) -> None:
        self._running = False
        if not done.cancelled() and (error := done.exception()) is not None:
            self.model.undecided = False
            _log.error("model %r joins no requests, for to try it failed", self.model.name, exc_info=error)
        if self._waiting:
            self._plan()

    def _follow(self, request: Request, results: list[Array]) -> None:
        assert self.statistics is not None
        try:
            self.statistics.add(request.feed, request.outputs, results)
        except Exception:  # it is not the clients' affair
            _log.exception("a request could not be taken into the statistics")

    def _left(self, count: int) -> None:
        self.meter.waiting -= count
        if not self.meter.waiting:
            self._idle.set()


async def awaited(submit: Callable[[Done], Request | None]) -> list[Array]:
    """What ``submit`` hands over; raises it where it is a RequestError. Who is cancelled meanwhile has given up."""
    found: asyncio.Future[list[Array]] = asyncio.get_running_loop().create_future()

    def settle(outcome: Outcome) -> None:
        if found.done():
            return
        if isinstance(outcome, RequestError):
            found.set_exception(outcome)
        else:
            found.set_result(outcome)

    request = submit(settle)
    try:
        return await found
    except asyncio.CancelledError:
        if request is not None:
            request.give_up()
        raise


def _carry_out(model: Model, batch: Sequence[Request]) -> tuple[list[Outcome], float, float]:
    """The outcome of each request of a batch, when the run began (``time.perf_counter``) and how long it took."""
    begun = time.perf_counter()
    outcomes: list[Outcome] = []
    if len(batch) > 1:
        # Where that fails each by itself finds out whose fault it is.
        with contextlib.suppress(Exception):
            outcomes += _joined(model, batch)
    if not outcomes:
        for request in batch:
            try:
                outcomes.append(model.run(request.feed, request.outputs))
            except RequestError as error:
                outcomes.append(error)
            except Exception:  # memory may be short
                _log.exception("a run of model %r failed", model.name)
                outcomes.append(RequestError(500, f"model {model.name!r} failed at this; the server's log says why"))
    return outcomes, begun, time.perf_counter() - begun


def _joined(model: Model, batch: Sequence[Request]) -> list[list[Array]]:
    """The results of one run over the rows of all requests, for each its own."""
    feed = {name: np.concatenate([request.feed[name] for request in batch]) for name in batch[0].feed}
    results = model.run(feed, batch[0].outputs)
    found, at = [], 0
    for request in batch:
        end = at + request.rows
        found.append([result[at:end] for result in results])
        at = end
    return found
