"""Fresh processes that measure: started with a request on stdin, answering once on a pipe, watched by their parent."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from workbench.bench.recorder import Recorder
from workbench.errors import StepFailed, WorkbenchError, from_record
from workbench.process import die_with_parent

TICK_S = 0.25
_END_S = 10.0


def run(
    module: str,
    request: Mapping[str, Any],
    recorder: Recorder,
    patience_s: float,
    tick: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Run ``python -m module`` on ``request`` and return its answer.

    The child writes latencies to ``recorder``; ``tick`` is called 4 times a second meanwhile. What the child prints
    goes to this process's stderr. Raises the child's own error, or StepFailed where it dies or takes longer than
    ``patience_s``: it is killed then.
    """
    reader, writer = os.pipe()
    fields = {"answer": writer, "parent": os.getpid(), "memory": recorder.descriptor, "capacity": recorder.capacity}
    try:
        child = subprocess.Popen(
            # -P: a file of the user's project must not stand in for a module of ours.
            [sys.executable, "-P", "-m", module],
            stdin=subprocess.PIPE,
            stdout=sys.__stderr__,
            pass_fds=(writer, recorder.descriptor),
        )
    except BaseException:
        os.close(reader)
        raise
    finally:
        os.close(writer)
    with child, os.fdopen(reader, "rb", buffering=0) as answers:
        try:
            assert child.stdin is not None
            child.stdin.write(json.dumps({**request, **fields}).encode())
            child.stdin.close()
            answer = _read(answers.fileno(), time.monotonic() + patience_s, tick)
            if answer is not None:
                # Its end of the pipe is closed, so it ends by itself: how, its status says.
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.wait(_END_S)
        finally:
            child.kill()
    if answer is None:
        raise StepFailed(
            f"A measurement ({module}) did not end within {patience_s:.0f} s and was stopped: an answer was lost, "
            "or the model is far slower than its warm-up said.",
            "See the step's log; a longer duration gives a slow model more time.",
        )
    return _result(module, answer, child.returncode)


def answer(function: Callable[[Mapping[str, Any], Recorder], Mapping[str, Any]]) -> None:
    """The child's side: read the request, call ``function``, answer with what it returns or raises."""
    die_with_parent()
    request = json.load(sys.stdin)
    if os.getppid() != request["parent"]:
        return  # the parent was gone before the tie was made
    try:
        reply = dict(function(request, Recorder(request["memory"], request["capacity"])))
    except Exception as error:
        if not isinstance(error, WorkbenchError):
            traceback.print_exc()
            error = StepFailed(f"A measurement failed: {type(error).__name__}: {error}", "See the step's log.")
        reply = {"error": error.as_record()}
    with os.fdopen(request["answer"], "w", encoding="utf-8") as pipe:
        json.dump(reply, pipe)
    sys.stderr.flush()
    # Threads of load generators and clients may still wait for something; nothing they could do matters any more.
    os._exit(0)


def samples_of(request: Mapping[str, Any]) -> Path:
    """The evaluation file that a request names."""
    return Path(request["samples"])


def _read(descriptor: int, deadline: float, tick: Callable[[], None]) -> bytes | None:
    """All that comes until the pipe is closed, or None where the deadline comes first."""
    poll = select.poll()
    poll.register(descriptor)
    parts: list[bytes] = []
    due = time.monotonic() + TICK_S
    while (now := time.monotonic()) < deadline:
        if poll.poll(max(0.0, min(due, deadline) - now) * 1000):
            part = os.read(descriptor, 65536)
            if not part:
                return b"".join(parts)
            parts.append(part)
        elif time.monotonic() >= due:
            tick()
            due = time.monotonic() + TICK_S
    return None


def _result(module: str, answer: bytes, code: int) -> dict[str, Any]:
    if not answer:
        cause = "killed, as the kernel does where memory runs out" if code == -9 else f"exit status {code}"
        raise StepFailed(f"A measurement ({module}) ended without an answer: {cause}.", "See the step's log.")
    result: dict[str, Any] = json.loads(answer)
    if "error" in result:
        raise from_record(result["error"])
    return result
