"""The data of a recipe, fitted to the model's signature: one canonical npz for scoring, one for calibration."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workbench.errors import UsageError
from workbench.model.npz import read_npz, write_npz
from workbench.model.signature import in_words, read_signature
from workbench.steps import Emit, Outputs

LABELS = ("y", "label", "labels")
UNLABELLED_METRICS = frozenset({"fidelity", "mse"})
"""Metrics that can be taken against the original's outputs instead of labels."""

Array = NDArray[Any]


def prepare(inputs: Mapping[str, Path], params: Mapping[str, Any], emit: Emit) -> Outputs:
    """Step ``data``: ``signature``, ``evaluate``, ``calibrate``? -> ``evaluate``, ``calibrate``? (npz).

    ``params``: ``metric`` (its name decides whether labels are needed) and ``locations``: where the user has the files.
    Accepted are one array for each input by its name, or a single ``x`` for a model with one input; labels under ``y``,
    ``label`` or ``labels``. Written are the inputs by name in the model's dtypes, first axis samples, and ``y``.

    Raises :class:`UsageError` for data that does not fit the signature, has no samples, NaN, objects or no labels.
    """
    signature = read_signature(inputs["signature"])
    metric = str(params.get("metric") or "")
    files: dict[str, Path] = {}
    counts: dict[str, Any] = {"calibrate": None}
    for name in ("evaluate", "calibrate"):
        if name not in inputs:
            continue
        location = str(params.get("locations", {}).get(name) or name)
        found = read_npz(inputs[name], location)
        labels = take_labels(found)
        arrays = fit(found, signature, location, emit.note)
        samples = len(next(iter(arrays.values())))
        if name == "evaluate":
            arrays.update(check_labels(labels, samples, metric, location))
        files[name] = emit.scratch / f"{name}.npz"
        write_npz(files[name], arrays)
        counts[name] = {"samples": samples}
    return Outputs(files, counts)


def take_labels(found: dict[str, Array]) -> Array | None:
    """Takes the labels out of ``found``."""
    return next((found.pop(name) for name in LABELS if name in found), None)


def check_labels(labels: Array | None, samples: int, metric: str, location: str) -> dict[str, Array]:
    """``{"y": labels}`` as the metric takes them, or nothing where it works without.

    Raises :class:`UsageError` for labels that are not one number, or class index, for each sample.
    """
    if labels is None:
        if metric in UNLABELLED_METRICS:
            return {}
        raise UsageError(f"{location} has no labels, which {metric} needs.", "Add them as an array named y.")
    if labels.ndim == 0 or len(labels) != samples:
        count = len(labels) if labels.ndim else 1
        raise UsageError(f"{location} has {samples} samples and {count} labels.", "Give one label for each sample.")
    if labels.dtype.kind not in "biuf" or (labels.dtype.kind == "f" and not np.all(np.isfinite(labels))):
        raise UsageError(f"{location}: the labels y are not all numbers.", "Give class indices, or finite values.")
    if metric in UNLABELLED_METRICS:
        return {"y": labels}
    whole = labels.astype(np.int64)
    if np.any(whole != labels) or np.any(whole < 0):
        raise UsageError(
            f"{location}: the labels y are not class indices, which {metric} needs.", "Give integers from 0 on."
        )
    return {"y": whole}


def fit(
    found: dict[str, Array], signature: Mapping[str, Any], location: str, note: Callable[[str], None]
) -> dict[str, Array]:
    """The arrays by the model's input names and in its dtypes. ``note`` is told what had to be rounded.

    Raises :class:`UsageError` for arrays that are not the model's inputs, with what it takes.
    """
    entries = signature["inputs"]
    if len(entries) == 1 and set(found) == {"x"}:
        found = {entries[0]["name"]: found["x"]}
    wanted = {entry["name"] for entry in entries}
    if wanted != set(found):
        missing, extra = sorted(wanted - set(found)), sorted(set(found) - wanted)
        problem = f"lacks the input {missing[0]!r}" if missing else f"has the array {extra[0]!r}, which is no input"
        raise UsageError(
            f"{location} {problem} of the model.", f"The model takes {'; '.join(map(in_words, entries))}; labels are y."
        )
    fitted = {entry["name"]: _fit_one(found[entry["name"]], entry, location, note) for entry in entries}
    _check_axes(fitted, entries, location)
    return fitted


def _fit_one(array: Array, entry: Mapping[str, Any], location: str, note: Callable[[str], None]) -> Array:
    shape, name = entry["shape"], entry["name"]
    takes = f"The model takes {in_words(entry)}, the first axis being samples."
    if not shape:
        raise UsageError(f"{location}: the model's input {name!r} is a scalar and has no axis for samples.", takes)
    fits = array.ndim == len(shape) and all(
        isinstance(want, str) or have == want for have, want in zip(array.shape[1:], shape[1:], strict=True)
    )
    if not fits:
        raise UsageError(f"{location}: the array for {name!r} has the shape {list(array.shape)}.", takes)
    if array.size == 0:
        raise UsageError(f"{location} has no samples.", "Give at least one sample.")
    if isinstance(shape[0], int) and len(array) % shape[0]:
        raise UsageError(f"{location}: {len(array)} samples do not divide into calls of {shape[0]}.", takes)
    if array.dtype.kind == "f" and not np.all(np.isfinite(array)):
        bad = int(np.count_nonzero(~np.isfinite(array)))
        raise UsageError(
            f"{location}: the array for {name!r} has {bad} values that are NaN or infinite.", "Clean the data first."
        )
    return _as_dtype(array, entry, location, note)


def _as_dtype(array: Array, entry: Mapping[str, Any], location: str, note: Callable[[str], None]) -> Array:
    """The array in the model's dtype where no value changes by it; float64 is rounded, and said."""
    name, wanted = entry["name"], entry["dtype"]
    takes = f"Save the array for {name!r} as {wanted}."
    if wanted == "object":
        if array.dtype.kind not in "US":
            raise UsageError(f"{location}: {name!r} takes strings, not {array.dtype}.", takes)
        return array.astype(np.str_)
    try:
        dtype = np.dtype(wanted)
    except TypeError:
        raise UsageError(f"{location}: the model takes {name!r} as {wanted}, which npz cannot hold.", takes) from None
    if array.dtype == dtype:
        return array
    if array.dtype.kind not in "biuf":
        raise UsageError(f"{location}: the array for {name!r} is {array.dtype}.", takes)
    with np.errstate(all="ignore"):
        cast = array.astype(dtype)
    rounding = array.dtype == np.float64 and dtype == np.float32 and bool(np.all(np.isfinite(cast)))
    if not np.array_equal(cast.astype(array.dtype), array) and not rounding:
        raise UsageError(f"{location}: the array for {name!r} is {array.dtype} and does not fit {wanted}.", takes)
    if rounding:
        note(f"{location}: {name} was rounded from float64 to float32, which the model takes.")
    return cast


def _check_axes(arrays: Mapping[str, Array], entries: list[dict[str, Any]], location: str) -> None:
    """The same number of samples everywhere, and dynamic axes of one name have one size."""
    sizes: dict[str, tuple[str, int]] = {}
    for entry in entries:
        array = arrays[entry["name"]]
        axes = [("samples", len(array)), *zip(entry["shape"][1:], array.shape[1:], strict=True)]
        for axis, size in axes:
            other, expected = sizes.setdefault(axis, (entry["name"], size)) if isinstance(axis, str) else ("", size)
            if size != expected:
                raise UsageError(
                    f"{location}: {other!r} has {expected} {axis}, {entry['name']!r} has {size}.",
                    "Give every input the same samples, with axes of one name equally long.",
                )
