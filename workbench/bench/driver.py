"""One fresh process that puts load on a system under test: ``python -m workbench.bench.driver``.

The request (see :mod:`workbench.bench.child`) names the target (a session in process, a server over HTTP, or the null
responder), the load and the folder for LoadGen's logs; the answer is LoadGen's verdict with the failed requests.
"""

from __future__ import annotations

import functools
import gc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from workbench.bench import child, loadgen
from workbench.bench.http import Connection, Endpoint, Pool
from workbench.bench.recorder import Recorder
from workbench.bench.samples import feeds, inputs_of_metadata, inputs_of_session, request_bodies
from workbench.bench.sut import Failures, InTurn, OneByOne, OverHttp
from workbench.errors import StepFailed


def drive(request: Mapping[str, Any], recorder: Recorder) -> dict[str, Any]:
    """Warm up the target, put the load on it, and say what came of it: LoadGen's values, ``failed``,
    ``first_failure`` and ``warm_up_ns``."""
    failures = Failures()
    call, queries = _target(request)
    try:
        expected = loadgen.warm_up(lambda index: call(queries[index]), len(queries))
    except Exception as error:
        raise StepFailed(f"The system under test does not answer: {error}", "See the step's log.") from error
    load = replace(loadgen.Load(**request["load"]), expected_ns=expected, samples=len(queries))
    sut = _system(request, load, call, queries, recorder, failures)
    # The collector would put its own pauses into the tail of what is measured.
    gc.collect()
    gc.disable()
    result = loadgen.run(sut, load, Path(request["logs"]))
    if failures.count:
        result["valid"] = False
        result["reasons"] = [
            f"{failures.count} of {result['queries']} requests failed (the first: {failures.first}).",
            *result["reasons"],
        ]
    return {**result, "failed": failures.count, "first_failure": failures.first, "warm_up_ns": expected}


def _target(request: Mapping[str, Any]) -> tuple[Callable[[Any], object], Sequence[Any]]:
    """How one query is answered, and the queries."""
    target = request["target"]
    match target["kind"]:
        case "http":
            endpoint, inputs = _endpoint(target), inputs_of_metadata(target)
            bodies = request_bodies(feeds(child.samples_of(request), inputs), inputs)
            return Connection(endpoint).exchange, [endpoint.request(body) for body in bodies]
        case "session":
            from workbench.server.session import open_session

            session = open_session(target["model"], target["threads"])
            return functools.partial(session.run, None), feeds(child.samples_of(request), inputs_of_session(session))
        case "null":
            return _null, [None] * 64
    raise ValueError(f"no target is called {target['kind']!r}")


def _system(
    request: Mapping[str, Any],
    load: loadgen.Load,
    call: Callable[[Any], object],
    queries: Sequence[Any],
    recorder: Recorder,
    failures: Failures,
) -> loadgen.SystemUnderTest:
    if load.scenario == "single-stream":
        return OneByOne(call, queries, recorder.record, failures)
    longest = longest_queue(load)
    if request["target"]["kind"] == "http":
        return OverHttp(Pool(_endpoint(request["target"])), queries, recorder, failures, longest)
    return InTurn(call, queries, recorder, failures, longest)


def longest_queue(load: loadgen.Load) -> int:
    """How many waiting queries are overload.

    Answered at the rate or slower, all of them but rate * bound will come after the bound. Once that is 1% of the
    run's queries the 99th percentile is lost, and waiting for the rest would show nothing more.
    """
    bound_s = load.bound_ns / 1e9 if load.bound_ns else 1.0
    return max(64, round((load.rate or 1.0) * (bound_s + 0.01 * load.max_duration_s)))


def _endpoint(target: Mapping[str, Any]) -> Endpoint:
    return Endpoint(target["host"], target["port"], target["path"])


def _null(_: object) -> None:
    return None


if __name__ == "__main__":
    child.answer(drive)
