"""The ``evaluate`` step: a model's answers on the evaluation set, its metric, and the comparison with the original."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workbench.errors import StepFailed, UsageError
from workbench.evaluate import compare as paired
from workbench.evaluate import metrics
from workbench.model.batches import batches
from workbench.model.check import first_line
from workbench.model.npz import read_npz, write_npz
from workbench.steps import Emit, Outputs

Array = NDArray[Any]

BATCH = 32
LABELS = "y"


def score(inputs: Mapping[str, Path], params: Mapping[str, Any], emit: Emit) -> Outputs:
    """Step ``evaluate``: ``model``, ``evaluate`` (npz), ``reference``? (the original's predictions) -> ``predictions``.

    ``params``: ``metric`` ({name, output?}), ``seed``, ``threads``, ``name``. Values: ``samples``, ``metric`` (name,
    value, higher_is_better, 95% interval), ``size`` of the model in bytes and, with a reference, ``compare``.
    Raises :class:`StepFailed` where the model does not run on the samples, :class:`UsageError` for labels that do not
    fit its output.
    """
    wanted, seed = params["metric"], int(params.get("seed") or 0)
    name = str(wanted["name"])
    arrays = read_npz(inputs["evaluate"], "the evaluation data")
    session = _open(inputs["model"], int(params.get("threads") or 1), params)
    names = [entry.name for entry in session.get_inputs()]
    labels = arrays[LABELS] if LABELS in arrays and LABELS not in names else None
    predictions = predict(session, {key: arrays[key] for key in names}, emit)
    path = emit.scratch / "predictions.npz"
    write_npz(path, predictions)
    output = judged_output(predictions, wanted.get("output"))
    reference = read_npz(inputs["reference"], "the original's predictions") if "reference" in inputs else None
    theirs = None if reference is None else _same(reference, output, predictions)
    mine = metrics.evaluate(name, predictions[output], labels, theirs)
    samples = len(predictions[output])
    values: dict[str, Any] = {
        "samples": samples,
        "size": inputs["model"].stat().st_size,
        "metric": {
            "name": name,
            "value": mine.value,
            "higher_is_better": metrics.higher_is_better(name),
            "interval": paired.interval(name, mine, samples, seed),
        },
    }
    if reference is not None and theirs is not None:
        original = metrics.evaluate(name, theirs, labels, theirs)
        values["compare"] = {
            **paired.compare(name, mine, original, samples, seed),
            "fidelity": fidelity(predictions, reference),
        }
    return Outputs({"predictions": path}, values)


def predict(session: Any, arrays: Mapping[str, Array], emit: Emit) -> dict[str, Array]:
    """Every output of the model for all samples, first axis samples.

    Samples go in batches where every input's first axis is dynamic. A model whose batch axis is dynamic in name only
    (a shape fixed inside the graph) is run sample by sample, with a note.
    """
    fixed = [entry.shape[0] for entry in session.get_inputs() if isinstance(entry.shape[0], int)]
    rows = int(fixed[0]) if fixed else BATCH
    try:
        return _all(session, arrays, rows, emit)
    except StepFailed as error:
        if fixed or len(next(iter(arrays.values()))) == 1:
            raise
        try:
            found = _all(session, arrays, 1, emit)
        except StepFailed:
            raise error from None
        emit.note(f"The model takes one sample at a time, though its first axis is dynamic: {error.message}")
        return found


def judged_output(predictions: Mapping[str, Array], wanted: str | None) -> str:
    """The output that the metric is taken of: the named one, else the first of scores, else the first."""
    if wanted is not None:
        if wanted not in predictions:
            raise UsageError(f"The model has no output {wanted!r}.", f"It has {', '.join(predictions)}.")
        return wanted
    scores = [name for name, array in predictions.items() if array.dtype.kind == "f" and array.ndim >= 2]
    return (scores or list(predictions))[0]


def fidelity(predictions: Mapping[str, Array], reference: Mapping[str, Array]) -> float:
    """The mean cosine to the original's outputs over samples and floating-point outputs.

    A model that gives no floats: the share of equal outputs.
    """
    floats = [name for name, array in predictions.items() if array.dtype.kind == "f"]
    if floats:
        return float(np.mean([metrics.cosines(predictions[name], reference[name]).mean() for name in floats]))
    return float(np.mean([np.mean(predictions[name] == reference[name]) for name in predictions]))


def _open(model: Path, threads: int, params: Mapping[str, Any]) -> Any:
    from workbench.server.session import open_session

    try:
        return open_session(model, threads)
    except Exception as error:  # onnxruntime raises a class for each status, with no common base below Exception
        raise StepFailed(
            f"{params.get('name') or 'The model'} does not load in onnxruntime: {first_line(error)}",
            "Bring it in again, or leave the variant out.",
        ) from error


def _all(session: Any, arrays: Mapping[str, Array], rows: int, emit: Emit) -> dict[str, Array]:
    names = [entry.name for entry in session.get_outputs()]
    parts: dict[str, list[Array]] = {name: [] for name in names}
    samples, done = len(next(iter(arrays.values()))), 0
    for feed in batches(arrays, rows):
        count = len(next(iter(feed.values())))
        for name, array in zip(names, _run(session, feed), strict=True):
            parts[name].append(_rows(name, np.asarray(array), count))
        done += count
        emit.progress(done, samples, "scoring")
    try:
        return {name: np.concatenate(pieces) for name, pieces in parts.items()}
    except ValueError as error:
        raise StepFailed(
            f"The model's outputs differ in shape from sample to sample: {first_line(error)}",
            "Pad the evaluation data to one length.",
        ) from error


def _run(session: Any, feed: Mapping[str, Array]) -> list[Array]:
    try:
        outputs: list[Array] = session.run(None, dict(feed))
    except Exception as error:  # as above
        raise StepFailed(
            f"The model does not run on the evaluation data: {first_line(error)}",
            "Check data.evaluate against the model's inputs (`workbench inspect`).",
        ) from error
    return outputs


def _rows(name: str, array: Array, count: int) -> Array:
    """The output with samples first; strings as fixed-width ones, which npz can hold."""
    if array.ndim == 0 or len(array) != count:
        raise StepFailed(
            f"The output {name!r} has the shape {list(array.shape)} for {count} samples.",
            "Export the model with the samples along the first axis of every output.",
        )
    return array.astype(np.str_) if array.dtype.kind == "O" else array


def _same(reference: Mapping[str, Array], output: str, predictions: Mapping[str, Array]) -> Array:
    for name, array in predictions.items():
        if name not in reference or reference[name].shape != array.shape:
            raise StepFailed(
                f"The output {name!r} has not the shape it has in the original.", "Make the variant again from it."
            )
    return reference[output]
