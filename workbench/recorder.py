"""Making a recording of a run that has ended: what it left, and what the app asks commands for; nothing private."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import msgspec

from workbench import __version__, document, recording, runs
from workbench.errors import UsageError, WorkbenchError
from workbench.events import RunState
from workbench.recording import Answered, Manifest
from workbench.scrub import Scrubber
from workbench.store import unwritable
from workbench.units import format_size

_DATE = (1980, 1, 1, 0, 0, 0)
_ANSWER_SECONDS = 120
_BUILDS = ("image", "docker-build")
_CHANGED = "The recipe was changed after this run: it is shown as it is now, without what commands say of it."
_FOLLOWED = "This is not the newest run of its recipe: what commands say of the recipe is not shown."


@dataclass(frozen=True)
class Written:
    """A recording that was written: its size in bytes, what was taken out by kind, and what its reader has to know."""

    size: int
    removed: dict[str, int]
    notes: tuple[str, ...]


def write(run: Path, file: Path) -> Written:
    """Writes a recording of the run in the run folder ``run`` to ``file``.

    Raises UsageError where the run is at work, its files cannot be read, or it is larger than recordings are.
    """
    state, project = _ended(run), runs.project_of_run(run)
    recipe = project / state.recipe
    try:
        texts = {"recipe.yaml": recipe.read_text(), **_lock(recipe)}
    except (OSError, ValueError) as error:
        raise UsageError(f"{recipe} cannot be read: {error}", "A recording holds the recipe of its run.") from None
    scrub = Scrubber(project, texts["recipe.yaml"])
    notes = tuple(_notes(run, recipe, state))
    manifest = Manifest(
        recording=recording.FORMAT,
        workbench=__version__,
        run=run.name,
        recipe=state.recipe,
        notes=notes,
        answers=() if notes else tuple(_answers(project, recipe, state, scrub)),
    )
    parts: dict[str, Iterable[bytes]] = {"recording.json": [msgspec.json.encode(manifest)]}
    parts |= {name: _lines(run / name, scrub) for name in ("events.jsonl", "samples.jsonl")}
    parts |= {f"logs/{log.name}": [_log(log, scrub)] for log in sorted((run / "logs").glob("*.txt"))}
    parts |= {name: [scrub.text(text).encode()] for name, text in texts.items()}
    _write(file, parts)
    return Written(file.stat().st_size, {kind: count for kind, count in scrub.removed.items() if count}, notes)


def _write(file: Path, parts: dict[str, Iterable[bytes]]) -> None:
    """Writes the parts, whole or not at all; none larger than :mod:`workbench.recording` takes."""
    half = file.parent / f".{file.name}.half"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            with zipfile.ZipFile(half, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
                for name, pieces in parts.items():
                    _put(archive, name, pieces)
            half.replace(file)
        finally:
            half.unlink(missing_ok=True)  # on a disk that is read-only this fails, too
    except OSError as error:
        raise unwritable(file, error) from error


def _put(archive: zipfile.ZipFile, name: str, pieces: Iterable[bytes]) -> None:
    part = zipfile.ZipInfo(name, _DATE)
    part.compress_type = zipfile.ZIP_DEFLATED
    part.external_attr = 0o644 << 16
    size, limit = 0, recording.LIMITS.get(name, recording.LOG_BYTES)
    with archive.open(part, "w", force_zip64=limit > 1 << 30) as to:
        for piece in pieces:
            size += len(piece)
            if size > limit:
                told = f"{name} of this run is larger than a recording holds ({format_size(limit)})."
                raise UsageError(told, "Record a shorter run.")
            to.write(piece)


def _ended(run: Path) -> RunState:
    """The state that the run ended in."""
    try:
        state = runs.state_of(run)
    except (OSError, msgspec.MsgspecError) as error:
        raise UsageError(f"{run} cannot be read: {error}", "See its events.jsonl.") from None
    if state.status == "running":
        raise UsageError(f"Run {run.name} is at work.", f"Wait for its end: workbench watch {run.name}")
    if not state.recipe:
        raise UsageError(f"Run {run.name} ended before it began.", f"See: workbench logs {run.name}")
    return state


def _lock(recipe: Path) -> dict[str, str]:
    path = recipe.with_name(f"{recipe.stem}.lock.yaml")
    return {"recipe.lock.yaml": path.read_text()} if path.is_file() else {}


def _notes(run: Path, recipe: Path, state: RunState) -> Iterator[str]:
    """What keeps what commands say today from being what they said then."""
    if recipe.stat().st_mtime > state.started:
        yield _CHANGED
    others = (each for each in runs.all_runs(runs.project_of_run(run)) if each.name > run.name)
    if any(runs.state_of(each).recipe == state.recipe for each in others):
        yield _FOLLOWED


def _answers(project: Path, recipe: Path, state: RunState, scrub: Scrubber) -> Iterator[Answered]:
    """What the commands say that the app's stages ask of a recipe."""
    asked = list(_asked(recipe, state))
    text = recipe.read_bytes()
    with ThreadPoolExecutor() as threads:
        said = threads.map(lambda each: _said(each[0], project, text), asked)
        for (words, after), found in zip(asked, said, strict=True):
            if found.returncode and not found.stdout:
                continue  # it could not tell today; what it might have told then is not known
            yield Answered(
                words=tuple(map(scrub.text, words)),
                exit_code=found.returncode,
                stdout=_scrubbed(found.stdout, scrub),
                stderr=scrub.text(found.stderr),
                after=after,
            )


def _asked(recipe: Path, state: RunState) -> Iterator[tuple[tuple[str, ...], str]]:
    """The words of each command, and what must be over for its answer of today to have been the one then."""
    name = state.recipe
    yield ("validate", name, "--stdin", "--json"), ""
    for step in state.steps.values():
        if step.kind in _BUILDS:
            yield ("dockerfile", name), step.id
            yield ("image", name, "--json"), step.id
    yield ("diff", name, "--text"), recording.END
    yield ("diff", name, "--json"), recording.END
    yield ("history", name, "--limit", "25", "--json"), recording.END
    try:
        source = document.read(recipe).data["model"]["source"]
    except (WorkbenchError, LookupError, TypeError):
        return
    if isinstance(source, str):
        yield ("inspect", source, "--json"), ""


def _said(words: tuple[str, ...], project: Path, given: bytes) -> subprocess.CompletedProcess[str]:
    """What a command answers; one that reads what is given is given the recipe."""
    # -P: a file of the user's project must not stand in for a module of ours.
    command = [sys.executable, "-P", "-m", "workbench", *words]
    try:
        done = subprocess.run(
            command,
            cwd=project,
            input=given if "--stdin" in words else b"",
            capture_output=True,
            timeout=_ANSWER_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 1, "", f"It took more than {_ANSWER_SECONDS} s.")
    out, err = (each.decode(errors="replace") for each in (done.stdout, done.stderr))
    return subprocess.CompletedProcess(command, done.returncode, out, err)


def _scrubbed(text: str, scrub: Scrubber) -> str:
    """An answer scrubbed: value by value where it is JSON."""
    try:
        found = msgspec.json.decode(text)
    except msgspec.DecodeError:
        return scrub.text(text)
    return msgspec.json.encode(scrub.value(found)).decode()


def _lines(path: Path, scrub: Scrubber) -> Iterator[bytes]:
    """The whole lines of a file of JSON lines, scrubbed; none where there is no file."""
    if not path.exists():
        return
    with path.open("rb") as file:
        for line in file:
            try:
                found = msgspec.json.decode(line)
            except msgspec.DecodeError:
                continue  # half a line, of a run that was killed
            yield msgspec.json.encode(scrub.value(found)) + b"\n"


def _log(path: Path, scrub: Scrubber) -> bytes:
    """A log, scrubbed; of a long one its end."""
    size, kept = path.stat().st_size, recording.LOG_BYTES // 2  # what is scrubbed may grow
    with path.open("rb") as file:
        file.seek(max(0, size - kept))
        data = file.read(kept)
    text = scrub.text(data.decode(errors="replace"))
    if size > kept:
        text = f"[{format_size(size - kept)} before this are not in the recording]\n{text.partition(chr(10))[2]}"
    return text.encode()
