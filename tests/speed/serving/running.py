"""A side's server as a process: started, asked until it answers, its memory read, stopped with all that it started."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ground import ROOT
from serving import served_models
from serving.sides import OURS, PEERS, Side, free_port
from wrk import Request

from workbench.process import descendants

ANSWER_WITHIN_S = 90.0
STOP_WITHIN_S = 10.0
POLL_S = 0.005
QUIET = {"ORT_DISABLE_TELEMETRY": "1", "BENTOML_DO_NOT_TRACK": "True", "DO_NOT_TRACK": "true"}
"""Nobody here is counted: without it, BentoML's report of usage holds its start up."""
WARM_UP_S = 0.5


class NotStarted(Exception):
    """A server ended, or gave no answer in time; what it said last."""


@dataclass(frozen=True)
class Running:
    """A server that has answered."""

    side: Side
    port: int
    start: float
    """Seconds from the start of the process to the first answer."""
    pid: int

    def memory(self) -> int:
        """Bytes of resident memory of all its processes; pages that several share count once (PSS)."""
        return sum(_resident(pid) for pid in (self.pid, *descendants(self.pid)))

    def processor_time(self) -> float:
        """Seconds of processor that all its processes have taken so far."""
        return sum(_processor_time(pid) for pid in (self.pid, *descendants(self.pid)))


@contextlib.contextmanager
def running(side: Side, model: str, folder: Path, core: int | None) -> Iterator[Running]:
    """The server of ``side`` over a model of ``folder``, on the processor ``core``; NotStarted where it does not."""
    port = free_port()
    command, cwd = side.prepared(port)
    words = [*([] if core is None else ["taskset", "-c", str(core)]), *command]
    path = served_models.path_of(folder, model)
    environment = os.environ | {
        "PATH": f"{side.python.parent}:{os.environ['PATH']}",
        "PYTHONPATH": f"{ROOT}:{PEERS}",
        "PORT": str(port),
        "MODEL": str(path),
        "BENTOML_HOME": str(side.folder / "home"),
        **QUIET,
    }
    # What pip installs comes compiled. Ours runs from the checkout, and keeps its bytecode as it would be installed.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    if side.name == OURS:
        environment |= {"WORKBENCH_MODELS": str(path.parents[2]), "WORKBENCH_PORT": str(port), "WORKBENCH_THREADS": "1"}
    log = side.folder / "log.txt"
    with log.open("wb") as said:
        begun = time.perf_counter()
        process = subprocess.Popen(
            words,
            cwd=cwd,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            request = side.requests[model, "json"]
            _until_answered(process, port, request, begun, log)
            found = Running(side, port, time.perf_counter() - begun, process.pid)
            _warm_up(port, request)
            yield found
        finally:
            _stop(process)


def _until_answered(process: subprocess.Popen[bytes], port: int, request: Request, begun: float, log: Path) -> None:
    status = 0
    while time.perf_counter() - begun < ANSWER_WITHIN_S and process.poll() is None:
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_WITHIN_S)
            status = _ask(connection, request)
            connection.close()
            if status == 200:
                return
        time.sleep(POLL_S)
    lines = log.read_text(errors="replace").strip().splitlines() or ["it said nothing"]
    ended = "" if process.poll() is None else f"ended with {process.returncode}: "
    raise NotStarted(f"{ended}{f'status {status}, ' if status else ''}{lines[-1].strip()}")


def _warm_up(port: int, request: Request) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_WITHIN_S)
    end = time.perf_counter() + WARM_UP_S
    while time.perf_counter() < end:
        _ask(connection, request)
    connection.close()


def _ask(connection: http.client.HTTPConnection, request: Request) -> int:
    connection.request("POST", request.path, request.body, dict(request.headers))
    answer = connection.getresponse()
    answer.read()
    return answer.status


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Asks it to end; after a while, all that is left of it is killed."""
    others = descendants(process.pid)
    process.send_signal(signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(STOP_WITHIN_S)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    for pid in others:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()


def _resident(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    except OSError:  # it has just ended
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


def _processor_time(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
