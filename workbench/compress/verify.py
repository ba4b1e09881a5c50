"""Loading and running every candidate before it counts: a quantizer may write a broken graph without a word."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workbench.errors import StepFailed
from workbench.model.check import first_line

Array = NDArray[Any]

_MADE_UP_AXIS = 8


def made_up(signature: Mapping[str, Any]) -> dict[str, Array]:
    """One sample for the signature where there is no data: noise for floats, zeros (a valid token) for integers."""
    noise = np.random.default_rng(0)
    feed: dict[str, Array] = {}
    for entry in signature["inputs"]:
        free = [1, *[_MADE_UP_AXIS] * len(entry["shape"])]
        sizes = [size if isinstance(size, int) else free[axis] for axis, size in enumerate(entry["shape"])]
        if entry["dtype"] == "object":
            feed[entry["name"]] = np.full(sizes, "", dtype=np.str_)
        elif np.dtype(entry["dtype"]).kind == "f":
            feed[entry["name"]] = noise.standard_normal(sizes).astype(entry["dtype"])
        else:
            feed[entry["name"]] = np.zeros(sizes, dtype=entry["dtype"])
    return feed


def outputs_of(model: Path, feed: Mapping[str, Array]) -> list[Array]:
    """What the model gives for the feed. Raises what onnxruntime raises."""
    from workbench.server.session import open_session

    outputs: list[Array] = open_session(model).run(None, dict(feed))
    return outputs


def check(candidate: Path, original: Path, feed: Mapping[str, Array], trusted: bool) -> str:
    """Raise :class:`StepFailed` unless the candidate loads, runs and gives finite outputs shaped as the original's.

    ``trusted`` says that the feed is real data. Where a made-up one does not run in the original either, it proves
    nothing, and the sentence returned says so; otherwise the text is empty.
    """
    from workbench.server.session import open_session

    try:
        wanted = outputs_of(original, feed)
    except Exception as error:  # onnxruntime raises a class for each status, with no common base below Exception
        if trusted:
            raise StepFailed(
                f"The model does not run on the calibration sample: {first_line(error)}",
                "Check data.calibrate against the model's inputs (`workbench inspect`).",
            ) from error
        wanted = None
    try:
        if wanted is None:
            open_session(candidate)
            return "The variant was loaded but not run yet: the model takes no made-up input."
        found = outputs_of(candidate, feed)
    except Exception as error:  # as above
        raise StepFailed(
            f"The quantized model does not work in onnxruntime: {first_line(error)}",
            "Try another mode, or export the model with opset 17.",
        ) from error
    _compare(found, wanted)
    return ""


def _compare(found: list[Array], wanted: list[Array]) -> None:
    for mine, original in zip(found, wanted, strict=True):
        if mine.shape != original.shape:
            raise StepFailed(
                f"The quantized model gives outputs of shape {list(mine.shape)}, the original {list(original.shape)}.",
                "Try another mode, or export the model with opset 17.",
            )
        if mine.dtype.kind == "f" and np.all(np.isfinite(original)) and not np.all(np.isfinite(mine)):
            raise StepFailed(
                "The quantized model gives NaN or infinite outputs where the original does not.",
                "Try calibration: percentile, or mode: dynamic.",
            )
