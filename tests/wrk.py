"""Load from wrk, a client of the field (``apt-get install wrk``): what was answered, and how fast."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

SCRIPT = Path(__file__).with_suffix(".lua")


def is_there() -> bool:
    """Whether this machine has it."""
    return shutil.which("wrk") is not None


@dataclass(frozen=True)
class Request:
    """What is asked, over and over."""

    path: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=lambda: {"Content-Type": "application/json"})


@dataclass(frozen=True)
class Taken:
    """What came of a load. Without ``count`` all that was not answered is among ``other``."""

    seconds: float
    ok: int
    refused: int
    """Answers with status 429."""
    failed: int
    """Answers with status 5xx."""
    other: int
    broken: int
    """Connections that could not be made, broke, or gave no answer in time."""
    latencies: Mapping[int, int]
    """Answers of any status by microseconds from the request to the answer."""

    @property
    def rate(self) -> float:
        """Answered requests per second."""
        return self.ok / self.seconds

    @property
    def errors(self) -> int:
        """What was neither answered nor refused."""
        return self.failed + self.other + self.broken


@dataclass(frozen=True)
class Pace:
    """``connections`` that each send their next request as soon as the last was answered, or ``pause`` seconds later
    on average (exponentially distributed, so that arrivals are as of many independent clients)."""

    connections: int
    pause: float = 0.0


class Client:
    """wrk at work."""

    def __init__(self, process: subprocess.Popen[bytes], said: Path) -> None:
        self._process = process
        self._said = said

    def ends(self, seconds: float) -> bool:
        """Whether it has ended, which is waited for no longer than ``seconds``."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        return self._process.poll() is not None

    def taken(self) -> Taken:
        """Waits until it has ended; what it tells."""
        code = self._process.wait()
        said = self._said.read_text()
        last = said.rstrip().rpartition("\n")[2]
        if code or not last.startswith("{"):
            raise RuntimeError(f"wrk ended with {code}: {said}")
        told = json.loads(last)
        return Taken(told.pop("microseconds") / 1e6, **{**told, "latencies": dict(told["latencies"])})


@contextlib.contextmanager
def loading(
    port: int, request: Request, pace: Pace, seconds: int, *, count: bool = False, core: int | None = None
) -> Iterator[Client]:
    """wrk at work for ``seconds`` on one thread, which runs on ``core``; ``count``: statuses one by one."""
    with tempfile.TemporaryDirectory() as folder:
        body, said = Path(folder, "body"), Path(folder, "said")
        body.write_bytes(request.body)
        words = [
            *([] if core is None else ["taskset", "-c", str(core)]),
            *("wrk", "--threads", "1", "--connections", str(pace.connections), "--duration", f"{seconds}s"),
            *("--timeout", "60s", "--script", str(SCRIPT), f"http://127.0.0.1:{port}{request.path}", "--"),
            *(str(body), "count" if count else "-", f"{pace.pause * 1e3:g}"),
            *[word for pair in request.headers.items() for word in pair],
        ]
        with said.open("wb") as told, subprocess.Popen(words, stdout=told, stderr=told) as process:
            try:
                yield Client(process, said)
            finally:
                process.kill()


def percentile(latencies: Mapping[int, int], fraction: float, *, above: int = 0, below: int = 0) -> float:
    """Microseconds that ``fraction`` of the latencies are within, the ``above`` quickest and ``below`` slowest left
    out."""
    values = np.array(sorted(latencies))
    upto = np.cumsum([latencies[value] for value in values.tolist()])
    counted = int(upto[-1]) - above - below
    return float(values[np.searchsorted(upto, above + fraction * counted)])
