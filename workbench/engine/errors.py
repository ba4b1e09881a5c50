"""What container engines say when something goes wrong, as errors with a remedy. No other module matches their words.

The words are those of Docker's daemon, its command and BuildKit, and of Podman; they stand in the tables below, the
first that fits counts. They are no interface, so what fits none is passed on as it was said.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import docker
import urllib3

from workbench.errors import MachineLacks, StepFailed, UsageError, WorkbenchError

ENGINE_ERRORS = (docker.errors.DockerException, urllib3.exceptions.HTTPError, OSError)
"""What calls of the ``docker`` package raise (what ``requests`` raises is an OSError); for :func:`told`."""

_LONGEST = 400

_START = "Start it (systemctl start docker, or podman system service), then run the same command again"


@dataclass(frozen=True)
class _Case:
    """Words of an engine (a regular expression), and what is told: ``{doing}``, ``{said}`` and named groups."""

    words: str
    kind: type[WorkbenchError]
    message: str
    cure: str


_UNREACHABLE = _Case(
    r"cannot connect to the (docker daemon|podman)|is the docker daemon running|error during connect"
    r"|failed to connect to the docker api|no such file or directory.{0,80}docker\.sock",
    MachineLacks,
    "No container engine answers ({doing}): {said}",
    _START + ", or say where it listens in DOCKER_HOST. With builder: oci no engine is needed.",
)
_FORBIDDEN = _Case(
    r"permission denied while trying to connect|got permission denied|dial unix .{1,200}permission denied",
    MachineLacks,
    "This user may not use the container engine's socket ({doing}): {said}",
    "Add the user to the socket's group (sudo usermod -aG docker USER, then log in again), or use rootless Docker or "
    "Podman.",
)
_GONE = _Case(
    r"connection aborted|connection reset by peer|remote end closed connection|broken pipe|connection broken"
    r"|closing transport|error reading from server: EOF|code = unavailable|code = canceled|unexpected eof"
    r"|lost connection|server is shutting down"
    r"|server did not provide an image id",  # Docker 20.10 takes the broken stream of a build for its end
    StepFailed,
    "The container engine went away while {doing}: {said}",
    _START + ": finished steps are kept.",
)
_SILENT = _Case(
    r"read timed out|timed out\. \(read timeout",
    StepFailed,
    "The container engine does not answer while {doing}: {said}",
    "See what it is busy with (docker info), then run the same command again.",
)

_CASES = (
    _Case(
        r"no space left on device|disk quota exceeded",
        MachineLacks,
        "The container engine's disk is full ({doing}): {said}",
        "Free space (docker system df shows what takes it, docker system prune frees it), then run the same command "
        "again: finished steps are kept.",
    ),
    _FORBIDDEN,
    _UNREACHABLE,
    _Case(
        r"could not select device driver|nvidia-container-cli|failed to discover gpu vendor|unresolvable cdi device"
        r"|unknown or invalid runtime name: nvidia|libnvidia-ml|auto-detected mode as",
        MachineLacks,
        "The container engine cannot give the image a GPU: {said}",
        "Install the NVIDIA driver and the NVIDIA Container Toolkit, then: sudo nvidia-ctk runtime configure "
        "--runtime=docker && sudo systemctl restart docker. Or write device: cpu.",
    ),
    _Case(
        r"toomanyrequests|pull rate limit|429 too many requests",
        StepFailed,
        "The registry gives no more images for now ({doing}): {said}",
        "Wait, or log in for a higher limit (docker login), then run the same command again.",
    ),
    _Case(
        r"no matching manifest for|does not match the (specified|detected host) platform|exec format error"
        r"|no image found in (manifest list|image index) for architecture",
        MachineLacks,
        "The image is not for this machine's platform ({doing}): {said}",
        "Use an image for this platform, or run on a machine of the image's.",
    ),
    _Case(
        r"unauthorized|authentication required|no basic auth credentials|pull access denied"
        r"|denied: requested access|insufficient_scope|403 forbidden",
        MachineLacks,
        "The registry wants an account that may do this ({doing}): {said}",
        "Log in (docker login REGISTRY) with an account that may, and see that the name is right.",
    ),
    _Case(
        r"manifest unknown|manifest for .{1,300} not found|name unknown|repository name not known",
        MachineLacks,
        "The registry has no such image ({doing}): {said}",
        "Correct the reference, or push the image that it names.",
    ),
    _Case(
        r"x509:|certificate signed by unknown authority|server gave HTTP response to HTTPS client",
        MachineLacks,
        "The container engine does not trust the registry ({doing}): {said}",
        "Give the engine the registry's certificate (/etc/docker/certs.d/REGISTRY/ca.crt).",
    ),
    _Case(
        r"no such host|dial tcp .{1,200}(connection refused|i/o timeout|network is unreachable)"
        r"|TLS handshake timeout|request canceled while waiting for connection|temporary failure in name resolution",
        MachineLacks,
        "The container engine does not reach the registry ({doing}): {said}",
        "See that the name is right and that the engine's network and proxy settings reach it.",
    ),
    _Case(
        r"port is already allocated|address already in use",
        StepFailed,
        "The port is taken by another program or container ({doing}): {said}",
        "Free the port, or let the engine pick one (port 0).",
    ),
    _Case(
        r"the container name .{1,200} is already in use|name .{1,200} is in use|name is already in use",
        StepFailed,
        "A container of somebody else has that name ({doing}): {said}",
        "Use another name, or remove that container if it is yours. It was left alone.",
    ),
    _Case(
        r"buildx component is missing|requires buildkit|buildkit is (not )?(enabled|supported)|unknown flag: --mount"
        r"|'buildx' is not a docker command",
        MachineLacks,
        "The docker command cannot build with BuildKit here: {said}",
        "Install its plugin (package docker-buildx or docker-buildx-plugin), or write builder: oci.",
    ),
    _Case(
        r"no such image|unable to find image|image not known",
        StepFailed,
        "The container engine does not have the image any more ({doing}): {said}",
        "Run the same command again: it is loaded anew.",
    ),
    _Case(
        r"no such container|no container with (name or )?id|is not running|removal of container .{1,80} in progress",
        StepFailed,
        "The container was ended or removed by somebody else while {doing}: {said}",
        "Run the same command again.",
    ),
    _Case(
        r"minimum memory limit allowed",
        UsageError,
        "The image's memory limit is lower than the engine takes: {said}",
        "Raise image.limits.memory.",
    ),
    _Case(
        r"range of cpus is from|requested cpus are not available",
        MachineLacks,
        "The container engine has not as many CPUs: {said}",
        "Lower image.limits.cpus, or give the engine more.",
    ),
    _Case(
        r"client version .{1,40} is too (new|old)|no longer supported by this library|requires api version",
        MachineLacks,
        "The container engine's version does not fit ({doing}): {said}",
        "Update the container engine.",
    ),
    _Case(
        r"exit code: 137|non-zero code: 137|signal: killed|cannot allocate memory|out of memory",
        StepFailed,
        "A process was killed while {doing}, as the kernel does when memory runs out: {said}",
        "Give it more memory, or do it where more is free.",
    ),
    _Case(
        r"invalid (mount config|reference format)|install paramiko",
        UsageError,
        "The container engine cannot be used like that ({doing}): {said}",
        "Correct DOCKER_HOST or the reference.",
    ),
    _GONE,
    _SILENT,
)

_CREDENTIALS = re.compile(r"(?<=://)[^/\s@]+@")


def told(error: BaseException | str, doing: str) -> WorkbenchError:
    """What an engine said, as an error for the user. ``doing`` completes "while": ``loading the image``.

    ``error`` is an exception of the ``docker`` package or of a connection, or the text that a docker command printed.
    Errors that are typed already stay as they are.
    """
    if isinstance(error, WorkbenchError):
        return error
    if isinstance(error, str):
        return _of_text(error, doing)
    for each in _chain(error):
        if (case := _of_class(each)) is not None:
            return _filled(case, _text_of(error), doing)
    return _of_text(_text_of(error), doing)


def out_of_memory(limit: int | None, *, surely: bool = True) -> StepFailed:
    """The image was killed because its memory ran out; ``limit`` in bytes, where it has one. Not ``surely`` where the
    engine does not tell why it was killed."""
    from workbench.units import format_size

    if limit is None:
        return StepFailed(
            "The image was killed: this machine's memory ran out.", "Free memory, or set image.limits.memory."
        )
    why = "it needs" if surely else "most likely it needs"
    return StepFailed(
        f"The image was killed: {why} more than its limit of {format_size(limit)} of memory.",
        "Raise image.limits.memory in the recipe, or choose a smaller variant.",
    )


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and those it wraps: as cause, as context, and (requests, urllib3) as arguments."""
    waiting, seen = [error], set[int]()
    while waiting:
        one = waiting.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        inner = (one.__cause__, one.__context__, getattr(one, "reason", None), *one.args)
        waiting.extend(each for each in inner if isinstance(each, BaseException))


def _of_class(error: BaseException) -> _Case | None:
    """What the class of an error tells; of an answer of the engine only its words do."""
    if isinstance(error, OSError) and error.filename is not None:
        return None  # about a file, such as a layer that is to be sent, and no connection
    if isinstance(error, PermissionError):
        return _FORBIDDEN
    if isinstance(error, FileNotFoundError | ConnectionRefusedError):
        return _UNREACHABLE
    if isinstance(error, ConnectionResetError | BrokenPipeError | ConnectionAbortedError):
        return _GONE
    return None


def _text_of(error: BaseException) -> str:
    explanation = getattr(error, "explanation", None)
    return str(explanation) if explanation else str(error) or type(error).__name__


def _of_text(text: str, doing: str) -> WorkbenchError:
    for case in _CASES:
        found = re.search(case.words, text, re.IGNORECASE)
        if found:
            return _filled(case, _line_around(text, found.start()), doing)
    lines = [line for line in text.splitlines() if line.strip()] or ["nothing"]
    # The last line of a command's output is where it says why it ended.
    return StepFailed(f"The container engine failed while {doing}: {_said(lines[-1])}", "See the step's log.")


def _filled(case: _Case, text: str, doing: str) -> WorkbenchError:
    return case.kind(case.message.format(doing=doing, said=_said(text)), case.cure)


def _line_around(text: str, place: int) -> str:
    start = text.rfind("\n", 0, place) + 1
    end = text.find("\n", place)
    return text[start : end if end >= 0 else len(text)]


def _said(text: str) -> str:
    clean = _CREDENTIALS.sub("…@", " ".join(text.split()))
    clean = clean if len(clean) <= _LONGEST else f"{clean[:_LONGEST]}…"
    return clean if clean.endswith((".", "…")) else f"{clean}."
