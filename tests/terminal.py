"""A real terminal (tmux) with a command in it, driven by keys. Waits on what the terminal paints, never on time."""

from __future__ import annotations

import contextlib
import os
import select
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType

import psutil


class Terminal:
    """``words`` in a tmux of its own, ``size`` in columns and lines. Use as a context manager."""

    def __init__(
        self,
        words: Sequence[str],
        folder: Path,
        size: tuple[int, int] = (120, 40),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._words = list(words)
        self._folder = folder
        self._size = size
        self._environment = dict(environment or {})
        self._home = Path(tempfile.mkdtemp(prefix="workbench-terminal-"))
        self._fifo = -1

    def __enter__(self) -> Terminal:
        os.mkfifo(self._home / "painted")
        self._fifo = os.open(self._home / "painted", os.O_RDONLY | os.O_NONBLOCK)
        columns, lines = self._size
        given = [word for name, value in self._environment.items() for word in ("-e", f"{name}={value}")]
        shape = ["-x", str(columns), "-y", str(lines), "-c", str(self._folder)]
        # A server without a session ends at once, so the pane is made first and then the command is put into it.
        self._tmux("-f", "/dev/null", "new-session", "-d", *shape, *given, "cat")
        self._tmux("set-option", "-g", "remain-on-exit", "on")
        self._tmux("pipe-pane", f"cat > {shlex.quote(str(self._home / 'painted'))}")
        self.started = time.perf_counter()
        # The exit code comes by a file: tmux does not always see the end of what it runs.
        shell = ["sh", "-c", '"$@"; echo $? > "$0"', str(self._home / "status"), *self._words]
        self._tmux("respawn-pane", "-k", "-c", str(self._folder), *given, shlex.join(shell))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tmux("kill-server")
        os.close(self._fifo)
        shutil.rmtree(self._home, ignore_errors=True)

    def _tmux(self, *words: str) -> str:
        whole = ["tmux", "-S", str(self._home / "socket"), *words]
        # pytest names a size of its own there, and it would count for more than the terminal's.
        environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
        return subprocess.run(whole, check=True, capture_output=True, text=True, env=environment).stdout

    @property
    def _shell(self) -> int:
        return int(self._tmux("display-message", "-p", "#{pane_pid}"))

    @property
    def pid(self) -> int:
        """The process of the command, which has painted something by now."""
        [command] = psutil.Process(self._shell).children()
        return int(command.pid)

    def press(self, *keys: str) -> None:
        """Presses keys, by tmux's names for them."""
        self._tmux("send-keys", *keys)

    def type(self, text: str) -> None:
        """Types ``text`` as it stands."""
        self._tmux("send-keys", "-l", text)

    def text(self) -> str:
        """What is on the screen."""
        return self._tmux("capture-pane", "-p")

    def next_bytes(self, seconds: float = 60.0) -> bytes:
        """What the command writes next to the terminal; raises TimeoutError where it writes nothing."""
        if not select.select([self._fifo], [], [], seconds)[0]:
            raise TimeoutError(f"Nothing was painted in {seconds:g} s. The screen:\n{self.text()}")
        return os.read(self._fifo, 1 << 20)

    def readable(self, seconds: float = 0.02) -> bool:
        """Whether the command writes something to the terminal in that time."""
        return bool(select.select([self._fifo], [], [], seconds)[0])

    def wait_for(self, what: str | Callable[[str], bool], seconds: float = 60.0) -> str:
        """Waits until the screen has the text ``what``, or satisfies it; the screen then."""
        wanted = (lambda text: what in text) if isinstance(what, str) else what
        end = time.monotonic() + seconds
        while not wanted(text := self.text()):
            left = end - time.monotonic()
            if left <= 0 or not select.select([self._fifo], [], [], left)[0]:
                raise TimeoutError(f"{what!r} did not come in {seconds:g} s. The screen:\n{text}")
            os.read(self._fifo, 1 << 20)
        return text

    def wait_for_end(self, seconds: float = 60.0) -> int:
        """Waits until the command has ended; its exit code."""
        # Nobody reads what is painted any more: a full pipe would keep tmux from seeing the end.
        self._tmux("pipe-pane")
        with contextlib.suppress(ProcessLookupError):
            process = os.pidfd_open(self._shell)
            try:
                if not select.select([process], [], [], seconds)[0]:
                    raise TimeoutError(f"The command did not end in {seconds:g} s. The screen:\n{self.text()}")
            finally:
                os.close(process)
        return int((self._home / "status").read_text())

    def kill(self) -> None:
        """Kills the command as the system would: without a word."""
        os.kill(self.pid, 9)
