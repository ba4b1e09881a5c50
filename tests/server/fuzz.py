"""``make fuzz``: requests that are nearly right, FUZZ_MINUTES (10) long, every time others.

Half of the time the readers get them, half of it a real server on connections. What goes wrong is told with the numbers
that make it again, and is the exit status.
"""

from __future__ import annotations

import os
import random
import socket
import sys
import tempfile
import time
import traceback
from pathlib import Path
from types import TracebackType

import httptools
from fuzzing import cases, http_request, mutated, put, seeds
from server_models import affine, identity, load_models
from server_process import Process, running

from workbench.server.app import App

GROWTH = 64 << 20
"""Most bytes that a server may hold more at the end of a run than after its first tenth."""


class Connections:
    """Asks a server, on one connection as long as it stays open. A context manager."""

    def __init__(self, server: Process) -> None:
        self._server = server
        self._connection: socket.socket | None = None

    def __enter__(self) -> Connections:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def ask(self, request: bytes) -> int | None:
        """The status that answers ``request``; None where it is no whole request, and the server just hangs up."""
        whole = _is_whole(request)
        connection = self._connection = self._connection or self._server.connect()
        answer = Answer()
        try:
            connection.sendall(request)
            if not whole:
                connection.shutdown(socket.SHUT_WR)
            while not answer.whole and (data := connection.recv(65536)):
                answer.feed(data)
        except (ConnectionResetError, BrokenPipeError):
            # It hangs up on what it does not read to the end.
            self._close()
            return answer.status
        if not whole or not answer.stays_open:
            self._close()
        if whole and answer.status is None:
            raise AssertionError(f"no answer to {request!r}")
        return answer.status

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class Answer:
    """One response as it arrives, read by the parser of another server."""

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self.status: int | None = None
        self.whole = False
        self.stays_open = False

    def feed(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()

    def on_message_complete(self) -> None:
        self.whole = self.status != 100
        self.stays_open = bool(self._parser.should_keep_alive())


class _Whole:
    """Whether the end of one request comes, and nothing after it."""

    def __init__(self) -> None:
        self.ends = 0

    def on_message_complete(self) -> None:
        self.ends += 1


def _is_whole(request: bytes) -> bool:
    found = _Whole()
    parser = httptools.HttpRequestParser(found)
    try:
        parser.feed_data(request)
    except (httptools.HttpParserError, httptools.HttpParserUpgrade):
        return False
    return found.ends == 1


def main() -> int:
    """Fuzz for the time that the environment gives."""
    seconds = float(os.environ.get("FUZZ_MINUTES") or 10) * 60
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = {
            "affine": affine(folder / "affine" / "1" / "model.onnx"),
            "identity": identity(folder / "identity" / "1" / "model.onnx"),
        }
        first = random.SystemRandom().randrange(2**60)
        print(f"fuzzing for {seconds:.0f} s from number {first}", flush=True)
        app = App(load_models({model: {"1": path} for model, path in files.items()}), max_body=100_000)
        settings = {"SAGEMAKER_BIND_TO_PORT": "0", "WORKBENCH_PLATFORM_MODEL": "affine", "WORKBENCH_MAX_BODY": "100000"}
        with running(folder, "serve", **settings) as server:
            return _readers(app, first, seconds / 2) or _server(server, first, seconds / 2)


def _readers(app: App, first: int, seconds: float) -> int:
    until, number, count, understood = time.monotonic() + seconds, first, 0, 0
    while time.monotonic() < until:
        for seed, chance, model in cases(app, number):
            for _ in range(100):
                try:
                    understood += put(seed, chance, model)
                except Exception:  # whatever it is, it is what was looked for
                    traceback.print_exc()
                    print(f"a reader failed at number {number}, seed {seed.path} {seed.body!r}", file=sys.stderr)
                    return 1
                count += 1
        number += 1
    print(
        f"readers: {count} requests, {understood} of them understood, the others refused as they should be", flush=True
    )
    return 0


def _server(server: Process, first: int, seconds: float) -> int:
    begin, number, settled, statuses = time.monotonic(), first, 0, dict[int | None, int]()
    with Connections(server) as connections:
        while time.monotonic() < begin + seconds:
            chance = random.Random(number)
            for seed in seeds():
                request = mutated(http_request(seed), chance)
                status = connections.ask(request)
                statuses[status] = statuses.get(status, 0) + 1
                if status is not None and status >= 500:
                    print(f"{status} at number {number}: {request!r}", file=sys.stderr)
                    return 1
            number += 1
            if not settled and time.monotonic() > begin + seconds / 10:
                settled = server.memory("VmRSS")
        if connections.ask(http_request(seeds()[0])) != 200:
            print("a right request is not answered any more", file=sys.stderr)
            return 1
    grown = server.memory("VmRSS") - settled
    told = ", ".join(
        f"{status or 'hung up'}: {count}" for status, count in sorted(statuses.items(), key=lambda it: -it[1])
    )
    print(f"server: {sum(statuses.values())} requests ({told}), {grown >> 10} KiB more memory than after a tenth")
    return int(grown > GROWTH)


if __name__ == "__main__":
    sys.exit(main())
