"""How samples go through a model: in batches where its first axis is dynamic, else as many as it takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def rows_per_call(signature: Mapping[str, Any], batch: int) -> int:
    """``batch`` where every input's first axis is dynamic, else the fixed size of that axis (mostly 1)."""
    fixed = [entry["shape"][0] for entry in signature["inputs"] if isinstance(entry["shape"][0], int)]
    return int(fixed[0]) if fixed else batch


def batches(arrays: Mapping[str, Array], rows: int) -> Iterator[dict[str, Array]]:
    """The arrays cut along their first axis into feeds of ``rows`` samples (the last may be shorter)."""
    samples = len(next(iter(arrays.values())))
    for start in range(0, samples, rows):
        yield {name: np.ascontiguousarray(array[start : start + rows]) for name, array in arrays.items()}
