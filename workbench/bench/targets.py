"""What load is put on, started fresh for each repetition: an image, or the same server as a plain process."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from workbench.bench.http import Connection, Endpoint, HttpFailure
from workbench.bench.samples import feeds, inputs_of_metadata, request_bodies
from workbench.errors import MachineLacks, StepFailed
from workbench.process import descendants, die_with_parent

if TYPE_CHECKING:
    from workbench.image.runtime import Start

STOP_S = 30.0


@dataclass(frozen=True)
class Running:
    """A server that takes requests: where, the process its figures belong to, when its start began (monotonic, s).

    ``held`` says which limits it is held to, where it has any.
    """

    host: str
    port: int
    pid: int
    since: float
    held: Mapping[str, Any] | None = None


@contextlib.contextmanager
def image(start: Start) -> Iterator[Running]:
    """An image that :func:`workbench.image.runtime.prepared` made ready, running within its limits."""
    since = time.monotonic()
    with start() as container:
        if not container.pid:
            raise MachineLacks(
                "The engine runs containers elsewhere: their processor time and memory cannot be seen from here.",
                "Benchmark on the engine's own machine.",
            )
        held = {"cpus": sorted(os.sched_getaffinity(container.pid)), "memory_held": container.memory_held}
        # Past the engine's proxy, whose time is not the image's.
        host, port = container.direct or ("127.0.0.1", container.port)
        yield Running(host, port, container.pid, since, held)


@contextlib.contextmanager
def local_server(models: Path, threads: int) -> Iterator[Running]:
    """``python -m workbench.server`` over the folder ``models``, on a free port of loopback."""
    settings = {"WORKBENCH_MODELS": str(models.resolve()), "WORKBENCH_THREADS": str(threads), "WORKBENCH_PORT": "0"}
    since = time.monotonic()
    with _started(["workbench.server"], "WORKBENCH_READY_FD", settings) as (process, line):
        yield Running("127.0.0.1", int(json.loads(line)["port"]), process.pid, since)


@contextlib.contextmanager
def null_server() -> Iterator[Running]:
    """The null responder."""
    since = time.monotonic()
    with _started(["workbench.bench.null_server"], None, {}) as (process, line):
        yield Running("127.0.0.1", int(line), process.pid, since)


def http_target(running: Running, name: str, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The driver's target for model ``name`` of a running server; ``metadata`` is the protocol's, for the requests."""
    path = f"/v2/models/{quote(name, safe='')}/infer"
    return {"kind": "http", "host": running.host, "port": running.port, "path": path, "inputs": metadata["inputs"]}


def metadata_of(running: Running, name: str) -> dict[str, Any]:
    """The protocol's metadata of model ``name``; StepFailed where the server does not give it."""
    connection = http.client.HTTPConnection(running.host, running.port, timeout=STOP_S)
    try:
        connection.request("GET", f"/v2/models/{quote(name, safe='')}")
        response = connection.getresponse()
        body = response.read()
        if response.status != 200:
            raise StepFailed(f"The server does not serve {name!r}: HTTP {response.status} {body[:200]!r}.")
        metadata: dict[str, Any] = json.loads(body)
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise StepFailed(f"The server at {running.host}:{running.port} says nothing of {name!r}: {error}") from error
    finally:
        connection.close()
    return metadata


def first_answer(running: Running, target: Mapping[str, Any], samples: Path) -> float:
    """Seconds from the start of the server to its first answer to a query of ``samples``, which is asked now."""
    inputs = inputs_of_metadata(target)
    endpoint = Endpoint(target["host"], target["port"], target["path"])
    body = request_bodies(feeds(samples, inputs, limit=1), inputs)[0]
    connection = Connection(endpoint)
    try:
        connection.exchange(endpoint.request(body))
    except HttpFailure as error:
        raise StepFailed(f"The server does not answer its first query: {error}", "See the step's log.") from error
    finally:
        connection.close()
    return time.monotonic() - running.since


def peak_memory(pid: int) -> int:
    """The sum of the peaks of resident memory of process ``pid`` and its descendants, in bytes."""
    return sum(_peak(each) for each in (pid, *descendants(pid)))


def _peak(pid: int) -> int:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0


@contextlib.contextmanager
def _started(
    module: list[str], ready: str | None, settings: Mapping[str, str]
) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """``python -m module``, once it has written its ready line; SIGTERM at the end.

    The descriptor for the line is told in the variable ``ready``, or as the last argument.
    """
    reader, writer = os.pipe()
    environment = {**os.environ, **settings, **({ready: str(writer)} if ready else {})}
    command = [sys.executable, "-P", "-m", *module, *([] if ready else [str(writer)])]
    with os.fdopen(reader, encoding="utf-8") as lines:
        try:
            process = subprocess.Popen(
                command,
                env=environment,
                pass_fds=(writer,),
                stdin=subprocess.DEVNULL,
                stdout=sys.__stderr__,
                preexec_fn=die_with_parent,
            )
        finally:
            os.close(writer)
        with process:
            try:
                line = lines.readline()
                if not line:
                    raise StepFailed(f"{module[0]} ended with status {process.wait()} before it was ready.")
                yield process, line
            finally:
                _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
