"""Measuring processes that go wrong in each way there is; started as a module by the tests."""

from __future__ import annotations

import itertools
import os
import signal
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from workbench.bench import child
from workbench.bench.recorder import Recorder
from workbench.errors import UsageError


def behave(request: Mapping[str, Any], recorder: Recorder) -> dict[str, Any]:
    """Do what the request says."""
    match request["how"]:
        case "record":
            for latency in request["latencies"]:
                recorder.record(latency)
            return {"done": True}
        case "refuse":
            raise UsageError("the file is empty", "Fill it.")
        case "break":
            raise ZeroDivisionError("by nothing")
        case "die":
            os.kill(os.getpid(), signal.SIGKILL)
        case "lose":
            lose(Path(request["logs"]))
        case "hang":
            threading.Event().wait()
    raise AssertionError(request)


def lose(logs: Path) -> None:
    """A system under test that takes every query and completes none."""
    from workbench.bench.loadgen import Load, run

    class Loses:
        def issue(self, samples: Any) -> None:
            pass

    run(Loses(), Load("single-stream", 0.1, 0.2, 1e5, 4), logs)


def converse(request: Mapping[str, Any], recorder: Recorder) -> Iterator[Mapping[str, Any]]:
    """Count the requests, or do once what the first one says."""
    if request["how"] != "count":
        yield behave(request, recorder)
    for count in itertools.count():
        yield {"count": count}


if __name__ == "__main__":
    child.converse(converse)
