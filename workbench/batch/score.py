"""A model over a file of rows, chunk by chunk, each written before the next is read.

The rows of a chunk and of a run depend on nothing but the model's signature and the options, so a scoring that was
interrupted anywhere and went on runs the same batches as one that was not, and writes the same bytes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import version
from math import prod
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from workbench.batch.arrays import NpzSource, NpzTarget
from workbench.batch.columns import wanted
from workbench.batch.journal import Journal, check_same, stamp
from workbench.batch.parquet import ParquetSource, ParquetTarget
from workbench.batch.text import CsvSource, CsvTarget, JsonLinesSource, JsonLinesTarget
from workbench.batch.values import Bad, Chunk, Source
from workbench.errors import Cancelled, UsageError
from workbench.server.cpus import default_threads
from workbench.server.errors import RequestError, ServerError
from workbench.server.model import Model
from workbench.server.tensors import Array, TensorSpec
from workbench.store import digest_of, unwritable

FORMATS = {".npz": "npz", ".csv": "CSV", ".jsonl": "JSON lines", ".ndjson": "JSON lines", ".parquet": "Parquet"}

_CHUNK_BYTES = 1 << 20
"""Of a chunk's inputs, about: as objects of Python, which text is read to, they take 25 times as much."""
_CHUNK_ROWS = 4096
_GUESS = 64
"""For the extent of a dynamic axis."""
_RUN_ROWS = 8
"""Fewest rows of a run where the model leaves it open: with fewer, weights are read more often than need be."""

CHECKPOINT_SECONDS = 1.0
"""How much work a kill can cost. Each checkpoint waits for the disk, some 5 ms."""


@dataclass(frozen=True)
class Job:
    """What to score. ``outputs``: those to write, all where empty; ``rows`` of a run and ``threads`` of the session are
    chosen where None; ``skip``: bad rows are left out and written down instead of ending the scoring; ``fresh``: what
    was done before is done again."""

    model: Path
    input: Path
    output: Path
    outputs: Sequence[str] = ()
    rows: int | None = None
    threads: int | None = None
    skip: bool = False
    fresh: bool = False


@dataclass(frozen=True)
class Progress:
    """How far a scoring is: ``fraction`` of the input, and ``rows`` of it."""

    fraction: float
    rows: int


@dataclass(frozen=True)
class Summary:
    """What came of a scoring. ``rows`` that were read, ``rejected`` of them; ``alone``: each was run by itself, for
    rows of this model touch each other or cannot be told apart; ``resumed`` is how many rows commands before had read;
    ``seconds`` that this one took; ``finished_before``: there was nothing left to do."""

    output: Path
    rows: int
    rejected: int
    rejected_file: Path | None
    alone: bool
    resumed: int
    seconds: float
    finished_before: bool = False


class Target(Protocol):
    """A file that rows are appended to."""

    def open(self, mark: Mapping[str, Any], opened: ExitStack) -> None:
        """Goes on where ``mark`` was taken, at the beginning where it is empty, until ``opened`` is closed."""

    def add(self, arrays: Mapping[str, Array]) -> None:
        """Appends rows."""

    def mark(self) -> dict[str, Any]:
        """What has been written, once it is on the disk."""

    def finish(self) -> Path:
        """The finished file."""


def score(job: Job, progress: Callable[[Progress], None] = lambda _: None) -> Summary:
    """Scores ``job.input`` to ``job.output``; goes on where an earlier call was interrupted.

    ``progress`` is told after each chunk; it may raise Cancelled, and all that is done is kept. Raises UsageError where
    model, input and options do not go together, a row is bad, or something is another than when it was begun;
    MachineLacks where the output cannot be written or a format needs a library that is not there.
    """
    for path, role in ((job.model, "model"), (job.input, "input")):
        if not path.is_file():
            raise UsageError(f"There is no file {path}.", f"Name the {role} to use.")
    for path in (job.input, job.output):
        if path.suffix not in FORMATS:
            raise UsageError(f"{path} has a name that tells no format.", f"It may end in {', '.join(FORMATS)}.")
    begun = time.perf_counter()
    journal = Journal(job.output, fresh=job.fresh)
    with journal.held(), ExitStack() as opened:
        identity = _identity(job)
        state = journal.state()
        if state is None and (record := journal.finished(identity)) is not None:
            return _summary(journal, record, record["rows"], begun, finished_before=True)
        if state is not None and state["rows"]:
            check_same(state["job"], identity, f"{job.output} was begun, but")
        else:
            state = None
        before = state["rows"] if state is not None else 0
        try:
            if state is not None and "whole" in state:
                record = journal.go_on_publishing(state)
            else:
                record = _Scoring(job, identity, journal, opened).carry_out(state, progress)
        except OSError as error:
            raise unwritable(job.output, error) from error
    return _summary(journal, record, before, begun)


def _summary(
    journal: Journal, record: Mapping[str, Any], before: int, begun: float, *, finished_before: bool = False
) -> Summary:
    return Summary(
        output=journal.output,
        rows=record["rows"],
        rejected=record["rejected"],
        rejected_file=journal.rejected if record["rejected"] else None,
        alone=record["alone"],
        resumed=before,
        seconds=time.perf_counter() - begun,
        finished_before=finished_before,
    )


def _identity(job: Job) -> dict[str, Any]:
    """What decides the bytes of the output, by the names that an error tells."""
    return {
        "the model": [digest_of(job.model), *(stamp(path) for path in _weights(job.model))],
        "the input": [str(job.input.resolve()), *stamp(job.input)],
        "--outputs": list(job.outputs),
        "--rows": job.rows,
        "--threads": job.threads or default_threads(),
        "onnxruntime": version("onnxruntime"),
    }


def _weights(model: Path) -> list[Path]:
    """The files beside the model that hold weights of it."""
    if b"location" not in model.read_bytes():
        return []  # so that onnx, which takes 0.2 s to load, is loaded for few
    from workbench.model.read import external_files

    return [path for path in external_files(model) if path.exists()]


class _Scoring:
    """A scoring on its way."""

    def __init__(self, job: Job, identity: Mapping[str, Any], journal: Journal, opened: ExitStack) -> None:
        self._job = job
        self._identity = identity
        self._journal = journal
        self._opened = opened
        try:
            self._model = Model(job.model.stem, "1", job.model, int(identity["--threads"]))
        except ServerError as error:
            raise UsageError(error.message, error.cure) from None
        self._outputs = _chosen(self._model, job.outputs)
        self._source = _source(job.input, self._model.inputs, opened)
        self._target = _target(job.output, journal.folder, self._outputs)
        self._fixed = _fixed_rows(self._model)
        self._alone = False
        self._run_rows = self._rows(job.rows)
        self._chunk_rows = max(1, _rows_of_chunk(self._model) // self._run_rows) * self._run_rows
        self._shapes: dict[str, tuple[int, ...]] = {}

    def _rows(self, asked: int | None) -> int:
        """The rows of a run."""
        if self._fixed is not None:
            if asked not in (None, self._fixed):
                raise UsageError(f"--rows {asked}: the model takes {self._fixed} at a time.", "Leave --rows out.")
            return self._fixed
        if asked is not None:
            return asked
        # Where rows touch each other (dynamic quantization takes its ranges over all of them) each is scored alone.
        self._alone = not self._model.has_rows()
        return 1 if self._alone else max(_RUN_ROWS, _rows_of_chunk(self._model))

    def carry_out(self, state: dict[str, Any] | None, progress: Callable[[Progress], None]) -> dict[str, Any]:
        """All that is left; the record of the finished output."""
        if state is None:
            state = {"job": dict(self._identity), "rows": 0, "rejected": 0, "rejected_size": 0, "target": {}}
            state |= {"shapes": {}, "alone": self._alone}
        else:
            self._source.seek(state["after"])
        self._shapes = {name: tuple(shape) for name, shape in state["shapes"].items()}
        self._target.open(state["target"], self._opened)
        self._journal.open(state["rejected_size"], self._opened)
        self._journal.save(state)
        kept = time.monotonic()
        while (chunk := self._source.chunk(self._chunk_rows)) is not None:
            state["rejected"] += self._add(chunk)
            state["rows"] += chunk.count
            state["after"] = dict(chunk.after)
            told = Progress(self._source.done(chunk.after) / max(1, self._source.size), state["rows"])
            try:
                progress(told)
            except Cancelled:
                self._keep(state)
                raise
            if time.monotonic() - kept >= CHECKPOINT_SECONDS:
                self._keep(state)
                kept = time.monotonic()
        if not state["rows"]:
            self._journal.forget()
            raise UsageError(f"{self._job.input} has no rows.", f"The model takes {wanted(self._model.inputs)}.")
        self._keep(state)
        if state["rejected"] == state["rows"]:
            raise UsageError(
                f"Not one of the {state['rows']} rows of {self._job.input} can be scored.",
                f"Why stands in {self._journal.folder / 'rejected'}.",
            )
        return self._journal.publish(state, self._target.finish())

    def _keep(self, state: dict[str, Any]) -> None:
        state |= {"target": self._target.mark(), "rejected_size": self._journal.mark(), "shapes": self._shapes}
        self._journal.save(state)

    def _add(self, chunk: Chunk) -> int:
        """Scores a chunk and appends what comes of it; how many of its rows were left out."""
        good = [number for number in range(chunk.count) if number not in chunk.bad]
        results = self._results(chunk, good)
        for number in sorted(chunk.bad):
            self._reject(chunk, number)
        if results is not None:
            self._target.add(results)
        return len(chunk.bad)

    def _results(self, chunk: Chunk, good: list[int]) -> dict[str, Array] | None:
        """What the model gives for the good rows; those that it refuses become bad ones. None where there is no row."""
        if not good:
            return None
        try:
            return self._run(chunk.arrays, len(good))
        except RequestError as error:
            refused = self._refused(chunk.arrays, len(good))
            if not refused:
                raise UsageError(f"{self._job.input}: {error.message}", "Look at the rows, or try --rows 1.") from None
        chunk.bad.update({good[number]: why for number, why in refused.items()})
        kept = [number for number in range(len(good)) if number not in refused]
        if not kept or not self._job.skip:
            return None
        return self._run({name: array[kept] for name, array in chunk.arrays.items()}, len(kept))

    def _refused(self, arrays: Mapping[str, Array], count: int) -> Bad:
        """The rows that the model does not take, each tried by itself."""
        found: Bad = {}
        for number in range(count):
            try:
                self._run({name: array[number : number + 1] for name, array in arrays.items()}, 1)
            except RequestError as error:
                found[number] = error.message
        return found

    def _run(self, arrays: Mapping[str, Array], count: int) -> dict[str, Array]:
        names = list(self._outputs)
        parts: list[list[Array]] = []
        for at in range(0, count, self._run_rows):
            feed = {name: array[at : at + self._run_rows] for name, array in arrays.items()}
            rows = min(self._run_rows, count - at)
            if self._fixed is not None and rows < self._fixed:
                # The last row again, in place of those that are missing.
                feed = {name: np.concatenate([part, np.repeat(part[-1:], self._fixed - rows, axis=0)])
                        for name, part in feed.items()}  # fmt: skip
            results = self._model.run(feed, names)
            self._check(results, rows if self._fixed is None else self._fixed)
            parts.append([result[:rows] for result in results])
        columns = zip(*parts, strict=True)
        return {name: self._same(name, column) for name, column in zip(names, columns, strict=True)}

    def _check(self, results: Sequence[Array], rows: int) -> None:
        for name, result in zip(self._outputs, results, strict=True):
            if not result.ndim or len(result) != rows:
                raise UsageError(
                    f"The output {name!r} has the shape {list(result.shape)} for {rows} rows: not one for each.",
                    "Name those that have with --outputs; where there is none the model cannot score rows.",
                )

    def _same(self, name: str, parts: Sequence[Array]) -> Array:
        """The parts of an output as one; UsageError where its rows have not one shape in all the file."""
        for part in parts:
            if part.shape[1:] != self._shapes.setdefault(name, part.shape[1:]):
                raise UsageError(
                    f"The output {name!r} has rows of the shapes {list(self._shapes[name])} and "
                    f"{list(part.shape[1:])}.",
                    "Score rows of one shape in one file.",
                )
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _reject(self, chunk: Chunk, number: int) -> None:
        """Writes a bad row down; UsageError where bad rows end the scoring."""
        place, why = chunk.places[number], chunk.bad[number]
        if not self._job.skip:
            raise UsageError(
                f"{self._job.input}, {self._source.place} {place}: {why}.",
                "Correct it and say --fresh, or go on without such rows: --bad-rows skip.",
            )
        row: dict[str, Any] = {self._source.place: place, "why": why}
        if chunk.texts:
            row["text"] = chunk.texts[number].decode(errors="replace")
        self._journal.reject(row)


def _chosen(model: Model, names: Sequence[str]) -> dict[str, TensorSpec]:
    for name in names:
        if name not in model.outputs:
            raise UsageError(f"The model has no output {name!r}.", f"It has {', '.join(model.outputs)}.")
    return {name: model.outputs[name] for name in dict.fromkeys(names or model.outputs)}


def _source(path: Path, specs: Mapping[str, TensorSpec], opened: ExitStack) -> Source:
    if not specs:
        raise UsageError("The model has no input.", "There is nothing to score.")
    if scalar := [name for name, spec in specs.items() if not spec.shape]:
        raise UsageError(
            f"The model's input {scalar[0]!r} is a scalar, and has no axis for rows.", "Export it with one."
        )
    match FORMATS[path.suffix]:
        case "npz":
            return NpzSource(path, specs, opened)
        case "CSV":
            return CsvSource(path, specs, opened)
        case "Parquet":
            return ParquetSource(path, specs, opened)
        case _:
            return JsonLinesSource(path, specs, opened)


def _target(path: Path, folder: Path, outputs: Mapping[str, TensorSpec]) -> Target:
    match FORMATS[path.suffix]:
        case "npz":
            return NpzTarget(folder, outputs)
        case "CSV":
            return CsvTarget(folder)
        case "Parquet":
            return ParquetTarget(folder)
        case _:
            return JsonLinesTarget(folder)


def _fixed_rows(model: Model) -> int | None:
    """How many rows the model takes at a time; None where that is open."""
    counts = {spec.shape[0] for spec in model.inputs.values()}
    if len(counts) > 1 or 0 in counts:
        raise UsageError(
            "The first axes of the model's inputs differ: they are not rows.", "Export it with one batch axis."
        )
    count = counts.pop()
    return None if count < 0 else count


def _rows_of_chunk(model: Model) -> int:
    """A power of two of rows that take about a megabyte."""
    weight = 0
    for spec in model.inputs.values():
        elements = prod(_GUESS if extent < 0 else extent for extent in spec.shape[1:])
        weight += elements * spec.datatype.dtype.itemsize
    rows = max(1, _CHUNK_BYTES // max(1, weight))
    return min(_CHUNK_ROWS, 1 << (rows.bit_length() - 1))
