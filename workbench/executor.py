"""Carrying out one step in a worker process: the run process's side of it."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from workbench.errors import Cancelled, StepFailed, WorkbenchError, from_record
from workbench.plan import Step
from workbench.process import kill_descendants
from workbench.units import format_size

_ENVIRONMENT = {
    # Nothing about where or by whom a step is run may decide its bytes.
    "TZ": "UTC",
    "LC_ALL": "C.UTF-8",
    "LANG": "C.UTF-8",
    "PYTHONHASHSEED": "0",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "PYTHONUNBUFFERED": "1",
    # scikit-learn brings joblib, which makes semaphores below /dev/shm as it is imported; nothing here uses them.
    "JOBLIB_MULTIPROCESSING": "0",
    # onnxruntime >= 1.29 reports usage unless this is set before it is imported.
    "ORT_DISABLE_TELEMETRY": "1",
}


class Stop:
    """A request to stop, from a signal; can be waited for in a selector."""

    def __init__(self) -> None:
        self.event = threading.Event()
        self.readable, self._writable = os.pipe()

    def listen(self) -> None:
        """SIGTERM and SIGINT set the request from now on; SIGHUP does nothing, a run outlives its terminal."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._set)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def _set(self, *_: Any) -> None:
        if not self.event.is_set():
            self.event.set()
            os.write(self._writable, b"!")

    def check(self) -> None:
        """Raises Cancelled if it was asked for."""
        if self.event.is_set():
            raise Cancelled("The run was cancelled.")


Hear = Callable[[Mapping[str, Any]], None]


def execute(
    step: Step, inputs: Mapping[str, Path], scratch: Path, project: Path, log: Path, stop: Stop, hear: Hear
) -> tuple[dict[str, Path], dict[str, Any]]:
    """Runs ``step`` in a worker; the files (below ``scratch``) and values it made.

    ``hear`` gets what the step says on the way, as ``progress``, ``note`` and ``sample`` messages. Raises what the step
    raised, StepFailed where the worker died, Cancelled on ``stop``. No process that the step started is left, however
    it ended.
    """
    ours, theirs = os.pipe()
    try:
        with log.open("ab") as raw:
            worker = _start(step, inputs, scratch, project, raw.fileno(), theirs)
    finally:
        os.close(theirs)
    last: Mapping[str, Any] | None = None
    try:
        for message in _messages(ours, stop):
            if message["is"] in ("outputs", "error"):
                last = message
            else:
                hear(message)
        if last is None:
            raise _death(step, worker)
    finally:
        os.close(ours)
        if last is None and worker.poll() is None:
            worker.kill()
        worker.wait()
        kill_descendants()
    if last["is"] == "error":
        raise from_record(last["error"])
    return _files(step, last["files"], scratch), last["values"]


def _start(
    step: Step, inputs: Mapping[str, Path], scratch: Path, project: Path, log: int, events: int
) -> subprocess.Popen[bytes]:
    request = {
        "step": step.id,
        "kind": step.kind,
        "inputs": {name: str(path) for name, path in inputs.items()},
        "params": {**step.params, **step.aside},
        "scratch": str(scratch),
        "events": events,
    }
    environment = {**os.environ, **_ENVIRONMENT, "WORKBENCH_RUN_PID": str(os.getpid()), "TMPDIR": str(scratch)}
    worker = subprocess.Popen(
        # -P: a file of the project is never imported in place of a module.
        [sys.executable, "-P", "-m", "workbench.worker"],
        cwd=project,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=log,
        stderr=log,
        pass_fds=[events],
    )
    assert worker.stdin is not None
    with contextlib.suppress(BrokenPipeError), worker.stdin as pipe:
        pipe.write(json.dumps(request).encode())
    return worker


def _messages(descriptor: int, stop: Stop) -> Iterator[Mapping[str, Any]]:
    """What the worker says, until it closes its end. Raises Cancelled on ``stop``."""
    rest = b""
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        selector.register(stop.readable, selectors.EVENT_READ)
        while True:
            ready = [key.fd for key, _ in selector.select()]
            stop.check()
            if descriptor not in ready:
                continue
            data = os.read(descriptor, 1 << 16)
            if not data:
                return
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                yield json.loads(line)


def _death(step: Step, worker: subprocess.Popen[bytes]) -> WorkbenchError:
    """Why a worker ended without a word."""
    code = worker.wait()
    if code == -signal.SIGKILL:
        import psutil

        free = format_size(psutil.virtual_memory().available)
        return StepFailed(
            f"Step {step.id} was killed by the system, most likely because memory ran out ({free} are free now).",
            "Free memory or take a smaller model, then run the same command again: finished steps are kept.",
        )
    how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    return StepFailed(f"Step {step.id} ended without a result ({how}).", f"See: workbench logs RUN {step.id}")


def _files(step: Step, named: Mapping[str, str], scratch: Path) -> dict[str, Path]:
    files = {name: Path(path) for name, path in named.items()}
    for name, path in files.items():
        if not path.resolve().is_relative_to(scratch.resolve()):
            raise StepFailed(f"Step {step.id} put its output {name} outside its folder.")
    return files
