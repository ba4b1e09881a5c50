"""A real server process for tests."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path


class Process:
    """A server on a free port, once it is ready."""

    def __init__(self, models: Path, *arguments: str, **settings: str) -> None:
        reader, writer = os.pipe()
        environment = os.environ | {
            "WORKBENCH_MODELS": str(models),
            "WORKBENCH_PORT": "0",
            "WORKBENCH_READY_FD": str(writer),
            **settings,
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", "workbench.server", *arguments],
            env=environment,
            pass_fds=(writer,),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        os.close(writer)
        with os.fdopen(reader) as lines:
            self.ready = json.loads(lines.readline() or "{}")

    def connect(self) -> socket.socket:
        return socket.create_connection((self.ready["host"], self.ready["port"]), 30)

    def get(self, path: str) -> int:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.ready['port']}{path}", timeout=30) as answer:
            return int(answer.status)

    def end(self) -> tuple[int, str, str]:
        out, err = self.process.communicate(timeout=30)
        return self.process.returncode, out, err
