"""Systems under test: what LoadGen's queries are put to.

A *call* answers one query and returns when it is answered: a session in process, a server over HTTP, or nothing at all
(the null responder, which shows what the client itself costs). Single-stream makes calls in LoadGen's thread; the
server scenario must not block that thread and makes them on another, or sends without waiting.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import mlperf_loadgen as lg

from workbench.bench.http import Pool
from workbench.bench.recorder import Recorder

Query = TypeVar("Query")
Record = Callable[[int], None]

_clock = time.perf_counter_ns


class Failures:
    """How many requests failed, and how the first did."""

    def __init__(self) -> None:
        self.count = 0
        self.first = ""

    def add(self, what: str) -> None:
        """Count one."""
        self.count += 1
        self.first = self.first or what


class OneByOne(Generic[Query]):
    """Single-stream: each query is answered before :meth:`issue` returns.

    The path of a query holds nothing but the call, LoadGen's completion and two looks at the clock.
    """

    def __init__(
        self, call: Callable[[Query], object], queries: Sequence[Query], record: Record, failures: Failures
    ) -> None:
        response = lg.QuerySampleResponse(0, 0, 0)
        responses = [response]
        complete = lg.QuerySamplesComplete

        def issue(samples: Any) -> None:
            sample = samples[0]
            start = _clock()
            try:
                call(queries[sample.index])
            except Exception as error:  # whatever a system under test does wrong is a failed request
                failures.add(str(error) or type(error).__name__)
            response.id = sample.id
            complete(responses)
            record(_clock() - start)

        self.issue = issue


class InTurn(Generic[Query]):
    """Server scenario in process: queries wait in a queue for one thread that makes the calls."""

    def __init__(
        self,
        call: Callable[[Query], object],
        queries: Sequence[Query],
        recorder: Recorder,
        failures: Failures,
        longest: int,
    ) -> None:
        """More than ``longest`` waiting queries is overload: further ones fail at once."""
        self._call = call
        self._queries = queries
        self._recorder = recorder
        self._failures = failures
        self._longest = longest
        self._queue: queue.SimpleQueue[tuple[int, int, int] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="queries", daemon=True)
        self._thread.start()

    def issue(self, samples: Any) -> None:
        """Put the queries into the queue."""
        for sample in samples:
            if self._queue.qsize() < self._longest:
                self._recorder.begin()
                self._queue.put((sample.id, sample.index, _clock()))
            else:
                self._failures.add(f"overload: more than {self._longest} queries wait, too many for the bound")
                lg.QuerySamplesComplete([lg.QuerySampleResponse(sample.id, 0, 0)])

    def close(self) -> None:
        """End the thread."""
        self._queue.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (item := self._queue.get()) is not None:
            identity, index, start = item
            try:
                self._call(self._queries[index])
            except Exception as error:  # whatever a system under test does wrong is a failed request
                self._failures.add(str(error) or type(error).__name__)
            lg.QuerySamplesComplete([lg.QuerySampleResponse(identity, 0, 0)])
            self._recorder.record(_clock() - start)


class OverHttp:
    """Server scenario over HTTP: queries are sent as they come, on as many connections as it takes."""

    def __init__(
        self, pool: Pool, requests: Sequence[bytes], recorder: Recorder, failures: Failures, longest: int
    ) -> None:
        """More than ``longest`` requests without a connection is overload: further ones fail at once."""
        self._pool = pool
        self._requests = requests
        self._recorder = recorder
        self._failures = failures
        self._longest = longest
        self._lock = threading.Lock()

    def issue(self, samples: Any) -> None:
        """Send the queries."""
        for sample in samples:
            self._recorder.begin()
            done = self._completion(sample.id)
            if self._pool.backlog() < self._longest:
                self._pool.send(self._requests[sample.index], done)
            else:
                done(f"overload: more than {self._longest} requests wait, too many for the bound")

    def _completion(self, identity: int) -> Callable[[str], None]:
        start = _clock()

        def done(trouble: str) -> None:
            lg.QuerySamplesComplete([lg.QuerySampleResponse(identity, 0, 0)])
            with self._lock:  # a failure is reported from the sending thread, an answer from the receiving one
                if trouble:
                    self._failures.add(trouble)
                self._recorder.record(_clock() - start)

        return done
