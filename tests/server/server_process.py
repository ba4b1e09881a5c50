"""A real server process for tests."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path


class Process:
    """A server on a free port, once it is ready. What it says goes to a file: a pipe that nobody reads would fill."""

    def __init__(
        self, models: Path, *arguments: str, command: Sequence[str] = ("-m", "workbench.server"), **settings: str
    ) -> None:
        reader, writer = os.pipe()
        environment = os.environ | {
            "WORKBENCH_MODELS": str(models),
            "WORKBENCH_PORT": "0",
            "WORKBENCH_READY_FD": str(writer),
            **settings,
        }
        self._said = tempfile.TemporaryFile("w+")  # noqa: SIM115 - open as long as the process writes to it
        self.process = subprocess.Popen(
            [sys.executable, *command, *arguments],
            env=environment,
            pass_fds=(writer,),
            stdout=subprocess.PIPE,
            stderr=self._said,
            text=True,
        )
        os.close(writer)
        with os.fdopen(reader) as lines:
            self.ready = json.loads(lines.readline() or "{}")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.ready['port']}"

    def connect(self) -> socket.socket:
        return socket.create_connection((self.ready["host"], self.ready["port"]), 30)

    def get(self, path: str) -> int:
        with urllib.request.urlopen(self.url + path, timeout=30) as answer:
            return int(answer.status)

    def end(self) -> tuple[int, str, str]:
        out, _ = self.process.communicate(timeout=30)
        with self._said:
            self._said.seek(0)
            return self.process.returncode, out, self._said.read()

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()
        self._said.close()

    def memory(self, field: str) -> int:
        """Bytes that it holds: ``VmRSS`` now, ``VmHWM`` at most since :meth:`forget_peak`."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith(field))

    def forget_peak(self) -> None:
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")


@contextlib.contextmanager
def running(models: Path, *arguments: str, **settings: str) -> Iterator[Process]:
    """A server that has to live until the end of the block, and to end by SIGTERM in order."""
    server = Process(models, *arguments, **settings)
    try:
        yield server
        server.process.terminate()
        code, _, err = server.end()
        assert (code, "Traceback" in err) == (0, False), err
    finally:
        server.kill()
