"""``workbench --serve`` for tests: the command as a user starts it, in a project of its own."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil

SERVE = [sys.executable, "-P", "-m", "workbench", "--serve", "--port", "0"]


@contextlib.contextmanager
def served(folder: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The server and its address. It is killed at the end where it still lives, its apps with it."""
    server = subprocess.Popen(SERVE, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        address = server.stdout.readline().strip()
        yield server, address
    finally:
        apps = apps_of(server) if server.poll() is None else []
        server.kill()
        server.communicate()
        for app in apps:
            with contextlib.suppress(psutil.NoSuchProcess):
                app.kill()


def apps_of(server: subprocess.Popen[str]) -> list[psutil.Process]:
    """The processes that a server has started."""
    return psutil.Process(server.pid).children(recursive=True)
