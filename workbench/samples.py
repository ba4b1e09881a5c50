"""A run's ``samples.jsonl``: sensor readings at 4 Hz while a step runs, and what steps measure on the way."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any


class SampleLog:
    """The one writer of ``samples.jsonl``. A line: ``{time, step, kind, values}``; readings come from a thread."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab", buffering=0)
        self._lock = threading.Lock()

    def write(self, step: str, kind: str, values: Mapping[str, Any]) -> None:
        """Appends one sample of ``kind`` (``sensors``, ``latency``) from ``step``."""
        line = json.dumps({"time": round(time.time(), 3), "step": step, "kind": kind, "values": values}).encode()
        with self._lock, contextlib.suppress(OSError):
            # Samples are for looking at: a disk that fills up must not end the run here, but where a result is kept.
            self._file.write(line + b"\n")

    @contextlib.contextmanager
    def of(self, step: str) -> Iterator[None]:
        """Samples the machine, and this process with all below it, until the end of the block."""
        from workbench.host.sensors import Sampler

        with Sampler(lambda reading: self.write(step, "sensors", reading), root_pid=os.getpid()):
            yield

    def close(self) -> None:
        self._file.close()
