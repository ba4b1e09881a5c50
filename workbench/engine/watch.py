"""What becomes of a container, told by the engine's own streams: its log, and the events that concern it."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import docker

_LONGEST_LINE = 1 << 16

# What Docker and Podman call one thing.
_DIED = ("die", "died")
_REMOVED = ("destroy", "remove")
_HEALTHY = "health_status: healthy"


class Watch:
    """A container under watch, from before its start: nothing it says or does is missed. Close it at the end.

    ``is_ready_line`` tells the line of the log that says requests are taken. Read ``ready`` (by that line, or by the
    image's health check), ``signalled`` (somebody had the engine send it a signal), ``exit_code`` (None while it runs),
    ``out_of_memory``, ``removed`` and ``lost`` (the engine has ended the events: it is gone), or wait until one of them
    changes. The lines of the log go to stderr.
    """

    def __init__(self, client: docker.DockerClient, container: str, is_ready_line: Callable[[str], bool]) -> None:
        self.ready = False
        self.signalled = False
        self.exit_code: int | None = None
        self.out_of_memory = False
        self.removed = False
        self.lost = False
        self.said: deque[str] = deque(maxlen=20)
        self._is_ready_line = is_ready_line
        self._changed = threading.Condition()
        self._closing = False
        self._events = client.api.events(filters={"container": container}, decode=True)
        try:
            self._log = client.api.attach(container, stream=True)
        except BaseException:
            _close(self._events)
            raise
        self._readers = [
            threading.Thread(target=self._read_events, daemon=True),
            threading.Thread(target=self._read_log, daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    def wait(self, until: Callable[[Watch], bool], seconds: float) -> bool:
        """Returns as soon as ``until`` holds, or after ``seconds``; whether it holds."""
        with self._changed:
            return self._changed.wait_for(lambda: until(self), seconds)

    def drain(self, seconds: float) -> None:
        """Waits until the log of a container that has ended is read to its end."""
        self._readers[1].join(seconds)

    def close(self) -> None:
        """Closes the streams and waits for their readers."""
        self._closing = True
        for stream in (self._events, self._log):
            _close(stream)
        for reader in self._readers:
            reader.join()

    # --- in threads of their own

    def _read_events(self) -> None:
        # A stream that breaks off has ended all the same.
        with contextlib.suppress(Exception):
            for event in self._events:
                self._take(event)
        with self._changed:
            self.lost = not self._closing
            self._changed.notify_all()

    def _take(self, event: dict[str, Any]) -> None:
        action = str(event.get("Action") or event.get("status") or "")
        with self._changed:
            if action == "oom":
                self.out_of_memory = True
            elif action == _HEALTHY:
                self.ready = True
            elif action == "kill":
                self.signalled = True
            elif action in _DIED:
                code = str((event.get("Actor") or {}).get("Attributes", {}).get("exitCode", ""))
                self.exit_code = int(code) if code.isdecimal() else -1
            elif action in _REMOVED:
                self.removed = True
            self._changed.notify_all()

    def _read_log(self) -> None:
        with contextlib.suppress(Exception):
            for line in lines_of(self._log):
                self.said.append(line)
                with contextlib.suppress(ValueError):  # a log that is already closed
                    sys.stderr.write(f"image: {line}\n")
                if self._is_ready_line(line):
                    with self._changed:
                        self.ready = True
                        self._changed.notify_all()


def lines_of(pieces: Iterator[bytes]) -> Iterator[str]:
    """The lines in a stream that comes in pieces of any size; one that has no end is cut."""
    rest = b""
    for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        if len(rest) > _LONGEST_LINE:
            lines, rest = [*lines, rest], b""
        yield from (line.decode("utf-8", "replace").rstrip() for line in lines)
    if rest:
        yield rest.decode("utf-8", "replace").rstrip()


def _close(stream: Any) -> None:
    # The package's own close wakes the reader, but leaves the answer to the garbage collector.
    with contextlib.suppress(OSError, AttributeError, ValueError):
        stream.close()
    with contextlib.suppress(OSError):
        stream._response.close()
