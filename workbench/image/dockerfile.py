"""The Dockerfile of an image, as a pure function: the same that is built here and that ``workbench eject`` gives away.

It says what :mod:`workbench.image.oci` does, for whom BuildKit writes the layers: the file tree
(:mod:`workbench.image.tree`) is the same. It needs nothing newer than the BuildKit of Docker 20.10, and no frontend
that would have to be fetched; there the ``RUN`` instruction has no ``--network``, so the build as a whole is told to
have none, and the build stage sees to it that it was (:func:`workbench.image.unpack_wheels.refuse_network`).

Wheels and code come by bind mounts. There is no cache mount: one for the interpreter's bytecode saved nothing of
0.18 s, one for unpacked wheels would have to be hashed again to be believed, and what lies in it is no part of a step's
key.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from workbench.errors import UsageError
from workbench.image import compile_sources

_SECOND = 1_000_000_000


@dataclass(frozen=True)
class Parameters:
    """What a Dockerfile is made of: the base's reference, Python's path in it, the time of what is unpacked (seconds
    since 1970), and how a container runs (:func:`workbench.image.oci.runtime_config`)."""

    base: str
    interpreter: str
    created: int
    runtime: Mapping[str, Any]


def render(parameters: Parameters) -> str:
    """The text of the Dockerfile. Raises UsageError for a value that cannot stand in one."""
    runtime = parameters.runtime
    ports = " ".join(runtime["ExposedPorts"])
    return f"""\
# Written by workbench; its context lies beside it. Build it with BuildKit, without a network:
#   docker build --network=none --tag {_word(runtime["Labels"]["org.opencontainers.image.title"])} .

# --- The build stage: the locked wheels, each checked against its sha256. Only /out leaves this stage.
FROM {_word(parameters.base)} AS wheels
# A base may name another user, who could not write /out. No container ever runs as this stage's user.
# hadolint ignore=DL3002
USER 0:0
WORKDIR /build
# Wheels and unpacking code are mounted, so neither is ever part of a layer; the base has no shell, hence the exec form.
RUN --mount=type=bind,source=build,target=/build \\
    --mount=type=bind,source=wheels,target=/wheels \\
    {_words(_unpacking(parameters))}

# --- All sources. Nothing runs in this stage and in the last, so the image holds what they list and nothing else.
# Each line is one layer, in the order of how seldom it changes: all layers above a changed one are made again.
FROM {_word(parameters.base)} AS sources
# By far the largest, and another only when a locked version changes.
COPY --from=wheels /out/ /
# A few KiB of source, another with each version of workbench; above the wheels, which it thereby never touches.
ADD server.tar /

# --- Their bytecode, by the image's own Python. Only /out leaves this stage.
FROM sources AS bytecode
# As above.
# hadolint ignore=DL3002
USER 0:0
RUN --mount=type=bind,source=build,target=/build \\
    {_words(_compiling(parameters))}

# --- The image.
FROM sources AS runtime
# Without it each start would compile what it loads: the root is read-only.
COPY --from=bytecode /out/ /
# Last, for it changes most often: a new model is one new layer, and nothing else is built, sent or pulled again.
# Both are tars, for what is unpacked keeps its times, where a folder that is copied gets the time of its transfer.
ADD model.tar /

# Configuration makes no layers. What changes with every model, its label, stands last.
{_environment(runtime["Env"])}
WORKDIR {_word(runtime["WorkingDir"])}
USER {_word(runtime["User"])}
EXPOSE {ports}
STOPSIGNAL {runtime["StopSignal"]}
{_healthcheck(runtime["Healthcheck"])}
ENTRYPOINT {_words(runtime["Entrypoint"])}
{_labels(runtime["Labels"])}
"""


def _unpacking(parameters: Parameters) -> list[str]:
    """The command of the build stage."""
    module = ["-m", "workbench.image.unpack_wheels"]
    files = ["/build/wheels.json", "/wheels", "/build/omit.txt", "/out", str(parameters.created)]
    return [parameters.interpreter, "-B", *module, *files]


def _compiling(parameters: Parameters) -> list[str]:
    """The command of the stage that compiles."""
    script = "/build/workbench/image/compile_sources.py"
    return compile_sources.command(parameters.interpreter, script, "/", "/out", parameters.created)


def _environment(pairs: Sequence[str]) -> str:
    split = (pair.split("=", 1) for pair in pairs)
    return "ENV " + " \\\n    ".join(f"{_word(name)}={_quoted(value)}" for name, value in split)


def _labels(labels: Mapping[str, str]) -> str:
    return "LABEL " + " \\\n      ".join(f"{_word(name)}={_quoted(value)}" for name, value in labels.items())


def _healthcheck(check: Mapping[str, Any]) -> str:
    times = {"interval": "Interval", "timeout": "Timeout", "start-period": "StartPeriod"}
    options = [f"--{option}={check[key] // _SECOND}s" for option, key in times.items()]
    kind, *words = check["Test"]
    return " ".join(("HEALTHCHECK", *options, f"--retries={check['Retries']}", kind, _words(words)))


def _words(words: Sequence[str]) -> str:
    """The exec form: JSON, in which Docker replaces no variables."""
    return json.dumps(list(words), ensure_ascii=True)


def _word(text: str) -> str:
    """A word that stands without quotes."""
    if not text or not text.isascii() or not text.isprintable() or any(char in " \\$\"'#" for char in text):
        raise UsageError(f"{text!r} cannot stand in a Dockerfile.", "Use letters, digits and '.', '_', '-', '/', ':'.")
    return text


def _quoted(text: str) -> str:
    """A value in quotes that Docker reads back as ``text``."""
    if not text.isprintable():
        raise UsageError(f"{text!r} cannot stand in a Dockerfile.", "Use printable characters.")
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$")
    return f'"{escaped}"'
