"""Fresh processes that measure: told what to do on stdin, answering on a pipe, watched by their parent.

Lines of JSON go both ways. The first says what to measure; each further one asks the process to go on.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from workbench.bench.recorder import Recorder
from workbench.errors import StepFailed, WorkbenchError, from_record
from workbench.process import die_with_parent

TICK_S = 0.25
_END_S = 10.0


class Child:
    """``python -m module``, to be asked. A context manager: the process is gone after the block.

    It writes latencies to ``recorder``; what it prints goes to this process's stderr.
    """

    def __init__(self, module: str, recorder: Recorder) -> None:
        self._module = module
        self._fields = {"parent": os.getpid(), "memory": recorder.descriptor, "capacity": recorder.capacity}
        self._heard = b""
        self._reader, writer = os.pipe()
        try:
            self._process = subprocess.Popen(
                # -P: a file of the user's project must not stand in for a module of ours.
                [sys.executable, "-P", "-m", module, str(writer)],
                stdin=subprocess.PIPE,
                stdout=sys.__stderr__,
                pass_fds=(writer, recorder.descriptor),
            )
        except BaseException:
            os.close(self._reader)
            raise
        finally:
            os.close(writer)

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        os.close(self._reader)
        with contextlib.suppress(BrokenPipeError):
            self._process.__exit__(kind, error, trace)

    def tell(self, message: Mapping[str, Any]) -> None:
        """Send ``message`` and do not wait for the answer."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended: hearing its answer will say how
            self._process.stdin.write(json.dumps({**message, **self._fields}).encode() + b"\n")
            self._process.stdin.flush()

    def hear(self, patience_s: float, tick: Callable[[], None] = lambda: None) -> dict[str, Any]:
        """The next answer; ``tick`` is called 4 times a second meanwhile.

        Raises the child's own error, or StepFailed where it dies or takes longer than ``patience_s``.
        """
        line = self._line(time.monotonic() + patience_s, tick)
        if line is None:
            raise StepFailed(
                f"A measurement ({self._module}) did not end within {patience_s:.0f} s and was stopped: an answer was "
                "lost, or the model is far slower than its warm-up said.",
                "See the step's log; a longer duration gives a slow model more time.",
            )
        if not line:
            raise StepFailed(f"A measurement ({self._module}) ended without an answer: {self._end()}.", "See its log.")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise from_record(answer["error"])
        return answer

    def _line(self, deadline: float, tick: Callable[[], None]) -> bytes | None:
        """The next line; empty where the child has ended, None where the deadline comes first."""
        poll = select.poll()
        poll.register(self._reader)
        due = time.monotonic() + TICK_S
        while b"\n" not in self._heard:
            now = time.monotonic()
            if now >= deadline:
                return None
            if poll.poll(max(0.0, min(due, deadline) - now) * 1000):
                part = os.read(self._reader, 65536)
                if not part:
                    return b""
                self._heard += part
            elif time.monotonic() >= due:
                tick()
                due = time.monotonic() + TICK_S
        line, _, self._heard = self._heard.partition(b"\n")
        return line

    def _end(self) -> str:
        """How it ended. Its end of the pipe is closed, so it is about to, if it has not."""
        try:
            code = self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            return "it closed its pipe"
        return "killed, as the kernel does where memory runs out" if code == -9 else f"exit status {code}"


def run(
    module: str,
    request: Mapping[str, Any],
    recorder: Recorder,
    patience_s: float,
    tick: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Run ``python -m module`` on ``request`` and return its one answer. See :meth:`Child.hear`."""
    with Child(module, recorder) as child:
        child.tell(request)
        return child.hear(patience_s, tick)


def answer(function: Callable[[Mapping[str, Any], Recorder], Mapping[str, Any]]) -> None:
    """The side of a child that answers once: with what ``function`` returns or raises."""

    def once(request: Mapping[str, Any], recorder: Recorder) -> Iterator[Mapping[str, Any]]:
        yield function(request, recorder)

    converse(once)


def converse(function: Callable[[Mapping[str, Any], Recorder], Iterator[Mapping[str, Any]]]) -> None:
    """The child's side: ``function``, called with the first line, yields an answer to each line."""
    die_with_parent()
    pipe = os.fdopen(int(sys.argv[1]), "w", encoding="utf-8")
    request = json.loads(sys.stdin.readline())
    if os.getppid() != request["parent"]:
        return  # the parent was gone before the tie was made
    try:
        answers = function(request, Recorder(request["memory"], request["capacity"]))
        pipe.write(json.dumps(next(answers)) + "\n")
        pipe.flush()
        for _ in sys.stdin:
            pipe.write(json.dumps(next(answers)) + "\n")
            pipe.flush()
    except Exception as error:
        if not isinstance(error, WorkbenchError):
            traceback.print_exc()
            error = StepFailed(f"A measurement failed: {type(error).__name__}: {error}", "See the step's log.")
        pipe.write(json.dumps({"error": error.as_record()}) + "\n")
        pipe.flush()
    sys.stderr.flush()
    # Threads of load generators and clients may still wait for something; nothing they could do matters any more.
    os._exit(0)


def samples_of(request: Mapping[str, Any]) -> Path:
    """The evaluation file that a request names."""
    return Path(request["samples"])
