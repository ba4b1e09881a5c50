"""The process that carries out one step: ``python -m workbench.worker``, started by the run process.

The request comes as JSON on stdin; what the step says goes as JSON lines to the inherited descriptor that the request
names; stdout and stderr are the step's raw log.
"""

from __future__ import annotations

import errno
import importlib
import json
import os
import shutil
import sys
import threading
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from workbench.errors import MachineLacks, StepFailed, UsageError, WorkbenchError
from workbench.process import die_with_parent
from workbench.steps import KINDS, Outputs

_NO_SPACE = 512 << 10


class PipeEmit:
    """What a step says, as JSON lines on a pipe to the run process."""

    def __init__(self, descriptor: int, scratch: Path) -> None:
        self._descriptor = descriptor
        self._lock = threading.Lock()
        self.scratch = scratch

    def send(self, message: Mapping[str, Any]) -> None:
        """Sends one message whole, whatever thread it comes from."""
        line = json.dumps(message, allow_nan=False).encode() + b"\n"
        with self._lock:
            while line:
                line = line[os.write(self._descriptor, line) :]

    def progress(self, done: float, total: float, text: str = "") -> None:
        self.send({"is": "progress", "done": done, "total": total, "text": text})

    def note(self, text: str) -> None:
        self.send({"is": "note", "text": text})

    def sample(self, kind: str, values: Mapping[str, Any]) -> None:
        self.send({"is": "sample", "kind": kind, "values": dict(values)})


def main() -> None:
    """Carries out the step that stdin asks for. Exit code 0 when it was told how the step ended, well or not."""
    die_with_parent()
    if os.getppid() != int(os.environ["WORKBENCH_RUN_PID"]):
        return  # the run process was gone before the tie was made
    request = json.load(sys.stdin)
    emit = PipeEmit(request["events"], Path(request["scratch"]))
    try:
        module, _, function = KINDS[request["kind"]].function.partition(":")
        step = getattr(importlib.import_module(module), function)
        inputs = {name: Path(path) for name, path in request["inputs"].items()}
        outputs: Outputs = step(inputs, request["params"], emit)
        files = {name: str(path) for name, path in outputs.files.items()}
        emit.send({"is": "outputs", "files": files, "values": dict(outputs.values)})
    except Exception as error:
        if not isinstance(error, WorkbenchError):
            traceback.print_exc()
        emit.send({"is": "error", "error": as_typed(error, request["step"], emit.scratch).as_record()})


def as_typed(error: Exception, step: str, scratch: Path) -> WorkbenchError:
    """Any exception of a step as an error for the user.

    Libraries tell a full disk in words of their own ("Protobuf serialization failed"), so a step that failed for
    whatever reason where no space is left has failed for that.
    """
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    if full or (not isinstance(error, UsageError) and shutil.disk_usage(scratch).free < _NO_SPACE):
        return MachineLacks(
            f"The disk is full: no space left on device below {scratch.parent} (step {step}).",
            "Free space, for example with workbench gc, then run the same command again: finished steps are kept.",
        )
    if isinstance(error, WorkbenchError):
        return error
    if isinstance(error, MemoryError):
        return StepFailed(
            f"Step {step} ran out of memory.", "Run it where more memory is free, or with a smaller model."
        )
    text = (str(error).strip() or "no message").splitlines()[0]
    return StepFailed(
        f"Step {step} ended unexpectedly: {type(error).__name__}: {text}", f"See: workbench logs RUN {step}"
    )


if __name__ == "__main__":
    main()
