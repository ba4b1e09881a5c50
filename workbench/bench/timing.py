"""One fresh process of the latency comparison: open the session, warm up, time queries until the budget is spent."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from workbench.bench import child
from workbench.bench.recorder import Recorder
from workbench.bench.samples import Feed, feeds, inputs_of_session
from workbench.errors import StepFailed

Run = Callable[[Feed], object]

WARM_UP_SHARE = 0.25
"""Of the budget, before anything is timed."""

MINIMUM = 5
"""Queries that are timed, and run for warm-up, however slow the model."""


def measure(
    run: Callable[[Feed], object], queries: Sequence[Feed], budget_ns: int, record: Callable[[int], None]
) -> None:
    """Run ``queries`` in turn for ``budget_ns`` after a warm-up, and ``record`` the latency of each in ns."""
    _loop(run, queries, int(budget_ns * WARM_UP_SHARE), lambda _: None)
    # The collector would put its own pauses into the model's tail.
    gc.collect()
    gc.disable()
    _loop(run, queries, budget_ns, record)


def _loop(
    run: Callable[[Feed], object], queries: Sequence[Feed], budget_ns: int, record: Callable[[int], None]
) -> None:
    clock = time.perf_counter_ns
    end = clock() + budget_ns
    done, stop = 0, 0
    while stop < end or done < MINIMUM:
        query = queries[done % len(queries)]
        start = clock()
        run(query)
        stop = clock()
        record(stop - start)
        done += 1


def _answer(request: Mapping[str, Any], recorder: Recorder) -> dict[str, Any]:
    from workbench.server.session import open_session

    try:
        session = open_session(request["model"], request["threads"])
        queries = feeds(child.samples_of(request), inputs_of_session(session))
        measure(lambda feed: session.run(None, feed), queries, request["budget_ns"], recorder.record)
    except Exception as error:  # onnxruntime's errors have no common base below Exception
        raise StepFailed(
            f"{request['name']} cannot be run on the evaluation samples: {error}",
            "Look at the model with `workbench inspect`.",
        ) from error
    return {}


if __name__ == "__main__":
    child.answer(_answer)
