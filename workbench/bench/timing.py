"""One fresh process of the latency comparison: opens the session, warms up, and times a block of queries when asked."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from workbench.bench import child
from workbench.bench.recorder import Recorder
from workbench.bench.samples import Feed, feeds, inputs_of_session
from workbench.errors import StepFailed

Run = Callable[[Feed], object]

WARM_UP_NS = 50_000_000
"""Time for the first queries, none of which is timed."""

WARM_UP_LEAST = 3

SETTLE_SHARE = 0.2
"""Of a block, before its first timed query: another process had the caches meanwhile."""


def blocks(
    run: Run, queries: Sequence[Feed], budget_ns: int, record: Callable[[int], None]
) -> Iterator[Mapping[str, Any]]:
    """Warm up, then with each step time queries for ``budget_ns``, at least one, and ``record`` each latency in ns.

    Yields ``latency_ns`` of the last query first, then ``queries`` that were timed.
    """
    _loop(run, queries, WARM_UP_NS, WARM_UP_LEAST, lambda _: None)
    start = time.perf_counter_ns()
    run(queries[0])
    yield {"latency_ns": time.perf_counter_ns() - start}
    # The collector would put its own pauses into the model's tail.
    gc.collect()
    gc.disable()
    while True:
        _loop(run, queries, int(budget_ns * SETTLE_SHARE), 1, lambda _: None)
        yield {"queries": _loop(run, queries, budget_ns, 1, record)}


def _loop(run: Run, queries: Sequence[Feed], budget_ns: int, least: int, record: Callable[[int], None]) -> int:
    clock = time.perf_counter_ns
    end = clock() + budget_ns
    done, stop = 0, 0
    while stop < end or done < least:
        query = queries[done % len(queries)]
        start = clock()
        run(query)
        stop = clock()
        record(stop - start)
        done += 1
    return done


def _converse(request: Mapping[str, Any], recorder: Recorder) -> Iterator[Mapping[str, Any]]:
    from workbench.server.session import open_session

    try:
        session = open_session(request["model"], request["threads"])
        queries = feeds(child.samples_of(request), inputs_of_session(session))
        yield from blocks(lambda feed: session.run(None, feed), queries, request["block_ns"], recorder.record)
    except Exception as error:  # onnxruntime's errors have no common base below Exception
        raise StepFailed(
            f"{request['name']} cannot be run on the evaluation samples: {error}",
            "Look at the model with `workbench inspect`.",
        ) from error


if __name__ == "__main__":
    child.converse(_converse)
