"""Which npz files fit a model: told from their beginnings and their labels, so gigabytes are looked at in no time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from workbench.errors import UsageError
from workbench.model.data import LABELS, check_labels, fit, take_labels
from workbench.model.npz import peek
from workbench.model.signature import in_words

MOST_FILES = 100
"""So many npz files of a folder are looked at, first by name."""

_FIRST = 32
"""So many samples are looked at."""

_EVALUATION = ("test", "eval", "val")
_CALIBRATION = ("calib",)


@dataclass(frozen=True)
class Fitting:
    """An npz file whose arrays fit the model: ``path`` relative to the project, with how many samples and labels."""

    path: str
    samples: int
    labels: NDArray[Any] | None
    low: float
    high: float
    """The least and largest value of the first samples, of all inputs of numbers."""

    def named(self, *words: str) -> bool:
        """Whether one of the words is in the file's name."""
        return any(word in Path(self.path).stem.lower() for word in words)


def look(project: Path, path: str, signature: Mapping[str, Any]) -> Fitting:
    """The file at ``path`` (relative to ``project``). Raises UsageError where it does not fit, with the reason."""
    sizes = [entry["shape"][0] for entry in signature["inputs"] if entry["shape"]]
    rows = next((size for size in sizes if isinstance(size, int)), 1)
    some = rows * -(-_FIRST // rows)
    beginnings = peek(project / path, path, some, whole=LABELS)
    firsts = {name: beginning.first for name, beginning in beginnings.items()}
    labels = take_labels(firsts)
    inputs = {name: beginnings[name].rows for name in firsts}
    arrays = fit(firsts, signature, path, lambda _: None).values()
    samples = next(iter(inputs.values()))
    if len(set(inputs.values())) > 1 or samples % rows:
        takes = "; ".join(map(in_words, signature["inputs"]))
        counts = ", ".join(f"{count} of {name}" for name, count in inputs.items())
        raise UsageError(f"{path} has other numbers of samples than the model takes: {counts}.", f"It takes {takes}.")
    if labels is not None:
        check_labels(labels, samples, "mse", path)
    numbers = [array for array in arrays if array.dtype.kind in "iuf"]
    low = min((float(array.min()) for array in numbers), default=0.0)
    high = max((float(array.max()) for array in numbers), default=0.0)
    return Fitting(path, samples, labels, low, high)


def beside(project: Path, folder: Path, signature: Mapping[str, Any]) -> tuple[list[Fitting], list[str]]:
    """The files of ``folder`` that fit, by name; of the others, why they do not."""
    fitting, others = [], []
    named_in_text = (path for path in folder.glob("*.npz") if path.name.isprintable())
    for path in sorted(named_in_text)[:MOST_FILES]:
        try:
            fitting.append(look(project, path.relative_to(project).as_posix(), signature))
        except UsageError as error:
            others.append(error.message)
    return fitting, others


def for_evaluation(found: Sequence[Fitting]) -> Fitting | None:
    """The one to score on: with labels, and called as if it were kept for that."""

    def rank(each: Fitting) -> tuple[bool, bool, bool, str]:
        kept = each.named(*_EVALUATION)
        return each.labels is None, each.named(*_CALIBRATION, "train"), not kept, each.path

    return min(found, key=rank, default=None)


def for_calibration(found: Sequence[Fitting], evaluate: Fitting | None) -> Fitting | None:
    """The one to take ranges from: called so, or without labels; never the one that is scored on."""

    def rank(each: Fitting) -> tuple[bool, bool, bool, str]:
        return not each.named(*_CALIBRATION), each.labels is not None, each.named(*_EVALUATION), each.path

    others = [each for each in found if evaluate is None or each.path != evaluate.path]
    return min(others, key=rank, default=None)
