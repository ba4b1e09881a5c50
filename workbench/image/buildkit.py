"""BuildKit, driven by the Docker command line: which one can, its run, and what its plain progress says.

Plain progress is a line a message, each with the number of the vertex it is about::

    #7 [wheels 3/3] RUN …          what vertex 7 does: stage, step of steps, instruction
    #7 2.423 334 files unpacked    what it writes, after so many seconds
    #7 DONE 2.5s                   or CACHED, CANCELED, ERROR: …
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from workbench.errors import MachineLacks
from workbench.process import die_with_parent

_CURE = "Install Docker's buildx plugin (apt-get install docker-buildx-plugin, or docker-buildx on Debian)."
_EMBEDDED_FROM, _EMBEDDED_BEFORE = 19, 23
"""The command line drove BuildKit itself in these releases; later ones leave that to the buildx plugin."""

PROXIES = tuple(
    name
    for upper in ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")
    for name in (upper, upper.lower())
)
"""Build arguments that BuildKit knows: they reach ``RUN`` and are kept in neither image nor cache."""

_LINE = re.compile(r"#(?P<vertex>\d+) (?P<said>.*)")
_NAME = re.compile(r"\[(?P<stage>[^\]]+)\] (?P<what>.*)|(?P<export>exporting to \S+.*)")
_ENDED = re.compile(r"(?P<how>DONE|CACHED|CANCELED|ERROR)\b(?P<more>.*)")
_OUTPUT = re.compile(r"\d+\.\d+ (?P<text>.*)")
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_LONGEST = 120


@dataclass(frozen=True)
class Cli:
    """A Docker command line that can build with BuildKit: the words of its build command, and its version."""

    words: tuple[str, ...]
    version: str


def find_cli(path: str | None = None) -> Cli:
    """The first Docker command line on ``path`` (``PATH``) that can. Raises MachineLacks where none can."""
    folders = (path if path is not None else os.environ.get("PATH", os.defpath)).split(os.pathsep)
    programs = dict.fromkeys(str(Path(folder) / "docker") for folder in folders if folder)
    there = [program for program in programs if os.access(program, os.X_OK)]
    for program in there:
        if (version := _said(program, "buildx", "version")) is not None:
            return Cli((program, "buildx", "build"), f"buildx {_version_in(version)}")
        version = _version_in(_said(program, "--version") or "")
        if _EMBEDDED_FROM <= int(version.partition(".")[0] or 0) < _EMBEDDED_BEFORE:
            return Cli((program, "build"), f"docker {version}")
    if there:
        raise MachineLacks(f"{there[0]} cannot build with BuildKit: it has no buildx.", _CURE)
    raise MachineLacks("This machine has no docker command.", "Install Docker's command line and its buildx plugin.")


def _said(*command: str) -> str | None:
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20, check=False, errors="replace"
        )
        return done.stdout if done.returncode == 0 else None
    return None


def _version_in(text: str) -> str:
    found = re.search(r"\d+(?:\.\d+)+", text)
    return found[0] if found else ""


@dataclass
class Progress:
    """What the lines so far come to: vertices by number, those that ended, and the last words of each."""

    names: dict[str, str] = field(default_factory=dict)
    ended: set[str] = field(default_factory=set)
    failed: str = ""
    error: str = ""
    words: dict[str, deque[str]] = field(default_factory=dict)

    def feed(self, line: str) -> str:
        """Takes a line; the sentence that is new to whoever watches, or nothing."""
        found = _LINE.fullmatch(_CONTROL.sub("", line.rstrip()))
        if found is None:
            return ""
        vertex, said = found["vertex"], found["said"]
        if ended := _ENDED.fullmatch(said):
            return self._end(vertex, ended)
        if output := _OUTPUT.fullmatch(said):
            self.words.setdefault(vertex, deque(maxlen=20)).append(output["text"])
            return ""
        if vertex in self.names or not (name := _NAME.fullmatch(said)):
            return ""
        self.names[vertex] = name["export"] or f"{name['stage']}: {name['what']}"
        return self._shown(vertex)

    def _end(self, vertex: str, ended: re.Match[str]) -> str:
        self.ended.add(vertex)
        if ended["how"] == "ERROR":
            self.failed, self.error = vertex, ended["more"].removeprefix(": ")
        return f"{self._shown(vertex)} ({ended['how'].lower()})" if ended["how"] != "DONE" else ""

    def _shown(self, vertex: str) -> str:
        return " ".join(self.names.get(vertex, f"step {vertex}").split())[:_LONGEST]

    @property
    def done(self) -> int:
        """How many vertices have ended, of :attr:`total` that are known."""
        return len(self.ended & self.names.keys())

    @property
    def total(self) -> int:
        """How many vertices are known so far; more come as BuildKit gets to them."""
        return max(len(self.names), 1)

    def failure(self) -> tuple[str, list[str]]:
        """The step that failed, and what was said of it: BuildKit's sentence, then the step's own last words."""
        return (self._shown(self.failed), [self.error, *self.words.get(self.failed, ())]) if self.failed else ("", [])


@dataclass(frozen=True)
class Ended:
    """How a build ended: its exit code, what the progress came to, the last lines of all."""

    code: int
    progress: Progress
    last: Sequence[str]


def proxy_arguments(environment: Mapping[str, str]) -> list[str]:
    """Names without values: the command line takes those from its environment, so none stands in a process list."""
    return [word for name in PROXIES if environment.get(name) for word in ("--build-arg", name)]


def environment_for(address: str, environment: Mapping[str, str]) -> dict[str, str]:
    """The environment in which the command line builds on the engine at ``address``, whatever its own context says."""
    kept = {name: value for name, value in environment.items() if name not in ("DOCKER_CONTEXT", "BUILDX_BUILDER")}
    return {
        **kept,
        "DOCKER_HOST": address,
        "DOCKER_BUILDKIT": "1",
        "BUILDX_BUILDER": "default",  # the engine's own: only that one sees the bases that were loaded into it
        "BUILDX_NO_DEFAULT_ATTESTATIONS": "1",  # provenance is ours, and stands beside the image
    }


def run_build(
    cli: Cli, words: Sequence[str], environment: Mapping[str, str], tell: Callable[[Progress, str], None]
) -> Ended:
    """Runs ``docker build`` with ``words`` to its end, its lines shown in the step's log as they come.

    ``tell`` hears of each new step. The build ends with this process, and when ``tell`` raises.
    """
    progress, last = Progress(), deque[str](maxlen=20)
    with subprocess.Popen(
        [*cli.words, "--progress=plain", *words],
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        preexec_fn=die_with_parent,
        start_new_session=True,
    ) as child:
        assert child.stdout is not None
        try:
            for line in child.stdout:
                sys.stderr.write(line)
                last.append(line.rstrip())
                if text := progress.feed(line):
                    tell(progress, text)
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)  # buildx is a process of its own below docker
            raise
    return Ended(child.returncode, progress, list(last))
