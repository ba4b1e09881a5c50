"""A recording: one file that has what a face shows of a run, for anywhere else.

A zip file, called ``NAME.workbench-run``::

    recording.json     what it is of, and what commands answered when it was made (Manifest)
    events.jsonl       what happened (workbench.events)
    samples.jsonl      what was measured on the way
    logs/<step>.txt    raw output of the steps, of a long one its end
    recipe.yaml        the recipe, and its lock where there is one
    recipe.lock.yaml

workbench.recorder writes it, without what is private (workbench.scrub). Whoever opens one trusts nothing in it.
"""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import msgspec

from workbench.assets import asset
from workbench.errors import UsageError

SUFFIX = ".workbench-run"
FORMAT = 1

END = "*"
"""In the place of a step: the run must have ended."""

MIB = 1 << 20
LIMITS = {
    "recording.json": 16 * MIB,
    "events.jsonl": 64 * MIB,
    "samples.jsonl": 384 * MIB,
    "recipe.yaml": MIB,
    "recipe.lock.yaml": 4 * MIB,
}
"""The largest each part may be, unpacked: a day of samples, a hundred thousand events."""

LOG_BYTES = 4 * MIB
LOGS_BYTES = 64 * MIB
"""The largest one log may be, and all of them."""

_LOG = re.compile(r"logs/[\w+@=-][\w.+@=-]{0,120}\.txt", re.ASCII)
_RUN = re.compile(r"[\w+@=-][\w.+@=-]{0,120}", re.ASCII)
_PIECE = 1 << 20
_CURE = "Make it again on the machine that it is from: workbench record RUN -o FILE"


class Answered(msgspec.Struct, frozen=True, kw_only=True):
    """What ``workbench`` with ``words`` answered when the recording was made: something of the time after ``after``.

    ``after`` is the step that must have ended for it to be so, or :data:`END`; "" where it was so from the beginning.
    """

    words: tuple[str, ...]
    exit_code: int
    stdout: str
    stderr: str
    after: str = ""


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a recording is of. ``notes`` are sentences that whoever looks at it has to know."""

    recording: int
    workbench: str
    run: str
    recipe: str
    notes: tuple[str, ...] = ()
    answers: tuple[Answered, ...] = ()


@dataclass(frozen=True)
class Recording:
    """A recording that was unpacked to ``folder``, which looks like a project with that one run."""

    folder: Path
    manifest: Manifest

    @property
    def recipe(self) -> Path:
        """The recipe's file."""
        return self.folder / self.manifest.recipe

    @property
    def run(self) -> Path:
        """The run's folder."""
        return self.folder / "runs" / self.manifest.run


def shipped() -> Path:
    """The recording that comes with workbench."""
    return asset("recordings") / f"digits{SUFFIX}"


def is_named(text: str) -> bool:
    """Whether ``text`` names a file rather than a run."""
    return text.endswith(SUFFIX) or "/" in text or Path(text).is_file()


def unpack(file: Path, folder: Path) -> Recording:
    """The recording in ``file``, unpacked to ``folder``. Raises UsageError where it is none, torn, or too large."""
    try:
        with zipfile.ZipFile(file) as archive:
            return _unpacked(file, archive, folder)
    except FileNotFoundError:
        raise UsageError(f"There is no file {file}.", f"Name a recording (NAME{SUFFIX}) or a run.") from None
    except (OSError, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError, ValueError) as error:
        # zipfile says the last three for what is encrypted, packed in some other way, or named oddly.
        raise UsageError(f"{file} is no recording, or is torn: {_told(error)}", _CURE) from None


def _told(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error).rstrip(".") + "."


def _unpacked(file: Path, archive: zipfile.ZipFile, folder: Path) -> Recording:
    parts = _checked(file, archive)
    manifest = _manifest(file, _read(file, archive, parts["recording.json"]))
    found = Recording(folder, manifest)
    recipe = found.recipe
    places = {"recipe.yaml": recipe, "recipe.lock.yaml": recipe.with_name(f"{recipe.stem}.lock.yaml")}
    (found.run / "logs").mkdir(parents=True)
    recipe.parent.mkdir(parents=True, exist_ok=True)
    for name, part in parts.items():
        if name != "recording.json":
            with places.get(name, found.run / name).open("xb") as to:
                to.writelines(_pieces(file, archive, part))
    return found


def _checked(file: Path, archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The parts of a recording by name: none that is not one, none twice, none too large, no needed one missing."""
    parts: dict[str, zipfile.ZipInfo] = {}
    for part in archive.infolist():
        name = part.filename
        if name in parts or not (name in LIMITS or _LOG.fullmatch(name)):
            raise UsageError(f"{file} is no recording: it holds {name!r}.", _CURE)
        _check_size(file, name, part.file_size)
        parts[name] = part
    logs = sum(part.file_size for name, part in parts.items() if name not in LIMITS)
    if logs > LOGS_BYTES:
        raise UsageError(f"The logs in {file} have {logs} bytes; a recording's have at most {LOGS_BYTES}.", _CURE)
    if missing := [name for name in ("recording.json", "events.jsonl") if name not in parts]:
        raise UsageError(f"{file} is no recording: it has no {missing[0]}.", _CURE)
    return parts


def _check_size(file: Path, name: str, size: int) -> None:
    limit = LIMITS.get(name, LOG_BYTES)
    if size > limit:
        raise UsageError(f"{name} in {file} has {size} bytes; in a recording it has at most {limit}.", _CURE)


def _pieces(file: Path, archive: zipfile.ZipFile, part: zipfile.ZipInfo) -> Iterator[bytes]:
    """The content of a part; it is not trusted to be as long as it says."""
    size = 0
    with archive.open(part) as content:
        while piece := content.read(_PIECE):
            size += len(piece)
            _check_size(file, part.filename, size)
            yield piece


def _read(file: Path, archive: zipfile.ZipFile, part: zipfile.ZipInfo) -> bytes:
    return b"".join(_pieces(file, archive, part))


def _manifest(file: Path, data: bytes) -> Manifest:
    try:
        version = msgspec.json.decode(data, type=dict[str, msgspec.Raw]).get("recording")
        if version is not None and msgspec.json.decode(version, type=int) > FORMAT:
            raise UsageError(f"{file} was made by a newer workbench.", "Play it with that one.")
        found = msgspec.json.decode(data, type=Manifest)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"{file} is no recording: its recording.json says: {error}", _CURE) from None
    recipe = PurePosixPath(found.recipe)
    inside = not recipe.is_absolute() and ".." not in recipe.parts and "\0" not in found.recipe
    if not (_RUN.fullmatch(found.run) and inside and recipe.suffix == ".yaml" and len(found.recipe) < 200):
        raise UsageError(f"{file} is no recording: it is of {found.recipe!r}, run {found.run!r}.", _CURE)
    return found
