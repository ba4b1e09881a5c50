"""An unpacked image at work without a container engine.

Under bubblewrap: the image's own entrypoint, user, environment and working folder; a read-only root, an empty
``/tmp``, no capabilities, processes of its own, the machine's network (the server listens on loopback only). Where the
kernel closes user namespaces, the image's own loader starts the same interpreter on the same libraries as an ordinary
process: what the server computes is the same, what it can reach is not fenced.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Literal

from workbench.errors import MachineLacks, StepFailed
from workbench.image import limits, tools
from workbench.image.unpacked import unpacked_for_now
from workbench.process import die_with_parent

__all__ = ["Container", "method_here", "unpacked_for_now"]

Method = Literal["bubblewrap", "loader"]

_LOADERS = ("ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1")


@functools.cache
def method_here() -> Method:
    """How images run on this machine: ``bubblewrap`` where it works, else the image's own ``loader``."""
    program = shutil.which("bwrap")
    if program is None:
        return "loader"
    command = [program, *_FENCE, "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "true"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    return "bubblewrap" if done.returncode == 0 else "loader"


_FENCE = (
    *("--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"),
    *("--die-with-parent", "--new-session", "--cap-drop", "ALL"),
)


class Container:
    """A running image. Use it as a context manager: it is ready inside the block and gone after it.

    ``root`` is the unpacked image, ``config`` its config file; ``env`` overrides the image's environment, ``port`` 0
    takes a free one; ``cpus`` are the CPUs the processes may use, ``memory`` the bytes, where this machine can hold
    them to it. After the start: ``url``, ``port``, ``pid`` (of the server process, as this machine sees it),
    ``start_s`` (seconds from the start to readiness), ``method``, ``memory_held`` (whether ``memory`` is).

    The server's words go to stderr. The processes end with the *thread* that started them, so keep it.
    """

    def __init__(
        self,
        root: Path,
        config: Path,
        *,
        env: Mapping[str, str] | None = None,
        port: int = 0,
        cpus: Iterable[int] | None = None,
        memory: int | None = None,
        method: Method | None = None,
        ready_within_s: float = 120.0,
        stop_within_s: float = 30.0,
    ) -> None:
        self.root = root.resolve()
        self.image: dict[str, Any] = json.loads(config.read_bytes())["config"]
        self.method: Method = method or method_here()
        self.port = port
        self.pid = 0
        self.direct: tuple[str, int] | None = None  # as an engine's container has; here no proxy stands in between
        self.start_s = 0.0
        self.memory_held = False
        inside = _environment(self.image["Env"])
        # The network is this machine's, where the image's port may be taken; nobody asks here for another.
        grpc = {"WORKBENCH_GRPC_PORT": "0"} if "WORKBENCH_GRPC_PORT" in inside else {}
        self._env = {**inside, **grpc, "WORKBENCH_HOST": "127.0.0.1", **(env or {})}
        self._cpus = None if cpus is None else sorted(cpus)
        self._memory = memory
        self._cgroup: Path | None = None
        self._ready_within_s = ready_within_s
        self._stop_within_s = stop_within_s
        self._process: subprocess.Popen[bytes] | None = None
        self._pidfd = -1
        self._said: deque[str] = deque(maxlen=20)
        self._reader: threading.Thread | None = None

    @property
    def url(self) -> str:
        """Where the server answers."""
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Container:
        try:
            self.start()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.stop()
        else:
            self.kill()

    # --- start

    def start(self) -> None:
        """Starts the image and waits until it takes requests. Raises StepFailed with its last words where it ends
        first."""
        ready, told = os.pipe()
        info, info_told = os.pipe()
        started = time.monotonic()
        try:
            self._cgroup = limits.memory_cgroup(self._memory) if self._memory else None
            self._process = self._spawn(told, info_told)
        finally:
            os.close(told)
            os.close(info_told)
        assert self._process.stdout is not None
        self._reader = threading.Thread(target=self._listen, args=(self._process.stdout,), daemon=True)
        self._reader.start()
        with os.fdopen(ready, "rb") as ready_file, os.fdopen(info, "rb") as info_file:
            self.pid = self._server_pid(info_file)
            line = self._first_line(ready_file, started + self._ready_within_s)
        self.start_s = time.monotonic() - started
        self.memory_held = self._memory is not None and limits.is_held(self.pid, self._memory)
        self.port = int(json.loads(line)["port"])

    def _spawn(self, ready: int, info: int) -> subprocess.Popen[bytes]:
        descriptors: tuple[int, ...]
        env = {**self._env, "WORKBENCH_PORT": str(self.port), "WORKBENCH_READY_FD": str(ready)}
        if self.method == "bubblewrap":
            command, outer = self._under_bubblewrap(env, info), {"PATH": os.environ.get("PATH", os.defpath)}
            descriptors = (ready, info)
        else:
            command, outer = by_loader(self.root, self._entrypoint()), self._translated(env)
            descriptors = (ready,)
        if self._cpus is not None:
            taskset = tools.found("taskset", "Install the package util-linux.")
            command = [taskset, "--cpu-list", ",".join(map(str, self._cpus)), *command]
        if self._cgroup is not None:
            command = [*limits.joining(self._cgroup), *command]
        try:
            return subprocess.Popen(
                command,
                env=outer,
                cwd=self.root,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=descriptors,
                # Not with bubblewrap, which sees to it itself: code in a fork of a process with threads can hang.
                preexec_fn=None if self.method == "bubblewrap" else die_with_parent,
            )
        except OSError as error:
            raise MachineLacks(f"The image cannot be started: {error}.", "Install bubblewrap.") from error

    def _under_bubblewrap(self, env: Mapping[str, str], info: int) -> list[str]:
        user, _, group = str(self.image["User"]).partition(":")
        variables = [word for name, value in env.items() for word in ("--setenv", name, value)]
        return [
            *(tools.found("bwrap", "Install bubblewrap."), *_FENCE, "--uid", user, "--gid", group or user),
            *("--ro-bind", str(self.root), "/", "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"),  # noqa: S108
            *("--clearenv", *variables, "--chdir", self.image.get("WorkingDir") or "/"),
            # As under an engine the server is process 1 and gets its signals itself.
            *("--as-pid-1", "--info-fd", str(info), "--", *self._entrypoint()),
        ]

    def _entrypoint(self) -> list[str]:
        return [str(word) for word in (*self.image["Entrypoint"], *self.image.get("Cmd", ()))]

    def _translated(self, env: Mapping[str, str]) -> dict[str, str]:
        """The image's environment as seen from outside: paths that exist in the image get its root in front."""

        def outside(part: str) -> str:
            return f"{self.root}{part}" if part.startswith("/") and (self.root / part[1:]).exists() else part

        return {
            **{name: ":".join(map(outside, value.split(":"))) for name, value in env.items()},
            "PYTHONHOME": str(self.root / "usr"),
        }

    def _server_pid(self, info: IO[bytes]) -> int:
        assert self._process is not None
        pid = self._process.pid
        if self.method == "bubblewrap":
            # The end of the pipe comes when bubblewrap has said all, or is gone.
            said = info.read()
            pid = int(json.loads(said)["child-pid"]) if said else pid
        # A descriptor of the process: a number could be another process's by the time a signal is sent.
        with contextlib.suppress(ProcessLookupError):
            self._pidfd = os.pidfd_open(pid)
        return pid

    def _first_line(self, ready: IO[bytes], until: float) -> bytes:
        line = b""
        while not line.endswith(b"\n"):
            left = until - time.monotonic()
            if left <= 0 or not select.select([ready], [], [], left)[0]:
                raise StepFailed(f"The image did not get ready within {self._ready_within_s:.0f} s.{self.last_words()}")
            piece = os.read(ready.fileno(), 4096)
            if not piece:
                raise StepFailed(f"The image ended before it took requests ({self._ended()}).{self.last_words()}")
            line += piece
        return line

    def _ended(self) -> str:
        """How the process ended, waiting for it and for its last words: its end of the ready pipe is closed already."""
        assert self._process is not None
        try:
            status = self._process.wait(self._stop_within_s)
        except subprocess.TimeoutExpired:
            return "it closed its ready descriptor"
        if self._reader is not None:
            self._reader.join(self._stop_within_s)
        return f"exit status {status}" if status >= 0 else signal.Signals(-status).name

    # --- while it runs

    def _listen(self, stream: IO[bytes]) -> None:
        for line in stream:
            text = line.decode("utf-8", "replace").rstrip()
            self._said.append(text)
            with contextlib.suppress(ValueError):  # a log that is already closed
                sys.stderr.write(f"image: {text}\n")

    def last_words(self) -> str:
        """What the image said last, for a message; empty if nothing."""
        return "" if not self._said else " It said last: " + " | ".join(list(self._said)[-5:])

    @property
    def alive(self) -> bool:
        """Whether the image still runs."""
        return self._process is not None and self._process.poll() is None

    # --- end

    def stop(self) -> int:
        """SIGTERM, and what is in flight may finish; SIGKILL where it takes too long. Returns the exit status; 0 where
        it was stopped before. Raises StepFailed where the image has ended by itself."""
        process = self._process
        if process is None:
            return 0
        if process.poll() is not None:
            message = f"The image ended while it was in use ({self._ended()}).{self.last_words()}"
            self._clean_up()
            raise StepFailed(message)
        self._signal(signal.SIGTERM)
        try:
            process.wait(self._stop_within_s)
        except subprocess.TimeoutExpired:
            self.kill()
        self._clean_up()
        return int(process.returncode)

    def kill(self) -> None:
        """Ends the image at once."""
        if self._process is not None:
            self._signal(signal.SIGKILL)
            self._process.kill()
            self._process.wait()
        if self._pidfd >= 0:
            # Bubblewrap may be gone before the server is.
            select.select([self._pidfd], [], [])
        self._clean_up()

    def _signal(self, number: signal.Signals) -> None:
        if self._pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)

    def _clean_up(self) -> None:
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1
        if self._reader is not None:
            self._reader.join()
            self._reader = None
        if self._process is not None:
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process = None
        if self._cgroup is not None:
            limits.remove(self._cgroup)
            self._cgroup = None


def by_loader(root: Path, words: Sequence[str]) -> list[str]:
    """The command that starts the program ``words[0]`` of the image unpacked in ``root``, by its own loader.

    Raises MachineLacks where it has none for this machine.
    """
    libraries = sorted(path for path in (root / "usr/lib").glob("*-linux-gnu") if path.is_dir())
    loader = next((path / name for path in libraries for name in _LOADERS if (path / name).is_file()), None)
    if loader is None:
        raise MachineLacks("The image has no loader that this machine knows.", "Install bubblewrap.")
    path = ":".join(map(str, [*libraries, root / "usr/lib"]))
    return [str(loader), "--inhibit-cache", "--library-path", path, str(root / words[0].lstrip("/")), *words[1:]]


def fenced(root: Path, words: Sequence[str], shown: Mapping[str, Path], written: Mapping[str, Path]) -> list[str]:
    """The command that runs a program of the image unpacked in ``root`` under bubblewrap, without a network.

    It sees the image, the paths ``shown`` and those it may write in, by their names below ``/tmp``.
    """
    places = (("--ro-bind", shown), ("--bind", written))
    binds = [word for kind, paths in places for name, path in paths.items() for word in (kind, str(path), name)]
    return [
        *(tools.found("bwrap", "Install bubblewrap."), *_FENCE, "--unshare-net", "--ro-bind", str(root), "/"),
        *("--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", *binds, "--clearenv", "--chdir", "/"),  # noqa: S108
        *("--", *words),
    ]


def _environment(pairs: Iterable[str]) -> dict[str, str]:
    return dict(pair.split("=", 1) for pair in pairs)
