"""Programs that a step calls: run without a shell, ended with the step, their words freed of hosts before anyone keeps
them."""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from workbench.errors import MachineLacks
from workbench.process import die_with_parent

_URL = re.compile(r"\b[a-z][a-z0-9+.-]*://[^\s'\"<>`]+", re.IGNORECASE)
_ADDRESS = re.compile(r"\[IP: [^\]]*\]|\b\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?\b")
_HOST = re.compile(r"(?<![\w./@-])(?:[a-z0-9-]+\.)+(?:[a-z]{2,24})(?::\d+)?(?![\w/.-])", re.IGNORECASE)
_HOST_CONTEXT = re.compile(r"(resolv|connect|host|proxy|certificate|tls|dns)", re.IGNORECASE)


def redacted(text: str) -> str:
    """``text`` without addresses: which host a package came from is the business of the machine, not of a log."""
    lines = []
    for line in text.splitlines():
        line = _ADDRESS.sub("<address>", _URL.sub("<address>", line))
        lines.append(_HOST.sub("<host>", line) if _HOST_CONTEXT.search(line) else line)
    return "\n".join(lines)


def found(program: str, cure: str) -> str:
    """Where ``program`` is. Raises MachineLacks with ``cure``."""
    path = shutil.which(program)
    if path is None:
        # The folders of administrators' programs are not on every user's PATH.
        path = shutil.which(program, path="/usr/sbin:/sbin:/usr/lib/apt")
    if path is None:
        raise MachineLacks(f"This machine has no {program}.", cure)
    return path


def run(command: Sequence[str], env: Mapping[str, str], cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Runs the program to its end; ``stdout`` as it is, ``stderr`` redacted and shown in the step's log."""
    done = subprocess.run(
        list(command),
        env=dict(env),
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        preexec_fn=die_with_parent,
        text=True,
        errors="replace",
        check=False,
    )
    done.stderr = redacted(done.stderr)
    if done.stderr.strip():
        with contextlib.suppress(ValueError):  # a log that is already closed
            sys.stderr.write(done.stderr.rstrip() + "\n")
    return done


def last_words(text: str, lines: int = 6) -> str:
    """The end of what a program said, for a message."""
    said = [line for line in text.splitlines() if line.strip()]
    return "\n".join(said[-lines:])
