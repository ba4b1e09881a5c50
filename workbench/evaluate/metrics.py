"""Metrics over a whole evaluation set, and the same over many resamples of it at once.

The value of a metric is scikit-learn's. A metric also gives what intervals need: its value under sample weights, for
many weightings in one go (a bootstrap resample is a weighting by how often each sample was drawn).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workbench.errors import UsageError

Array = NDArray[Any]
Weighted = Callable[[Array], Array]
"""Weights, shape [resamples, samples], each row summing to the number of samples -> values, shape [resamples]."""

PROPORTIONS = ("accuracy", "top")
LOWER_IS_BETTER = frozenset({"mse"})


@dataclass(frozen=True)
class Scored:
    """A metric's value, and what is needed to judge it.

    ``each`` is the score of each sample where the metric is their mean; ``decisions`` the predicted class of each
    sample and ``right`` whether it counts as correct, where there is such a thing.
    """

    value: float
    weighted: Weighted
    each: Array | None = None
    decisions: Array | None = None
    right: Array | None = None


def family(name: str) -> str:
    """``top`` for ``top-5``, else the name itself."""
    return "top" if name.startswith("top-") else name


def higher_is_better(name: str) -> bool:
    """Whether more of the metric is better."""
    return name not in LOWER_IS_BETTER


def evaluate(name: str, output: Array, labels: Array | None, reference: Array | None) -> Scored:
    """The metric ``name`` of a model's ``output`` (first axis samples).

    ``labels`` is needed by all but ``mse`` and ``fidelity``, which without them take the original's output
    ``reference`` (and without that one the output itself: the original's distance to itself). Raises
    :class:`UsageError` for an unknown name and for labels that do not fit the output.
    """
    rule = _RULES.get(family(name))
    if rule is None:
        known = "accuracy, top-K, f1, auc, mse, fidelity"
        raise UsageError(f"The metric {name!r} is not known.", f"Known are {known}.")
    if family(name) not in ("mse", "fidelity") and labels is None:
        raise UsageError(f"The evaluation data has no labels, which {name} needs.", "Add them as an array named y.")
    return rule(name, output, labels, reference)


def cosines(output: Array, reference: Array) -> Array:
    """Cosine between each sample's output and the reference's, flattened; two zero vectors agree (1), one does not."""
    a = output.reshape(len(output), -1).astype(np.float64)
    b = reference.reshape(len(reference), -1).astype(np.float64)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    both_zero = ~a.any(axis=1) & ~b.any(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        found = np.where(norms > 0, np.einsum("ij,ij->i", a, b) / norms, 0.0)
    return np.where(both_zero, 1.0, np.clip(found, -1.0, 1.0))


def mean_weighted(each: Array) -> Weighted:
    """The mean of per-sample scores under weights."""
    return lambda weights: weights @ each / weights.sum(axis=1)


def classes_of(output: Array) -> Array:
    """The predicted class: the largest of the last axis, or a threshold on one score.

    One score a sample is a probability where all lie in 0..1 (threshold 0.5), else a logit (threshold 0). Integer
    outputs of one axis are classes already.
    """
    if output.ndim == 1 and output.dtype.kind in "iub":
        return output.astype(np.int64)
    if output.ndim == 1 or output.shape[-1] == 1:
        scores = output.reshape(len(output), -1)[:, 0] if output.ndim <= 2 else output[..., 0]
        probability = bool(np.all((scores >= 0) & (scores <= 1)))
        return (scores > (0.5 if probability else 0.0)).astype(np.int64)
    return np.asarray(output.argmax(axis=-1), dtype=np.int64)


def _class_count(output: Array) -> int:
    return 2 if output.ndim == 1 or output.shape[-1] == 1 else int(output.shape[-1])


def _check_labels(name: str, output: Array, labels: Array, axes: tuple[int, ...]) -> None:
    if labels.shape != axes:
        raise UsageError(
            f"The labels have the shape {list(labels.shape)}, and {name} of an output of shape {list(output.shape)} "
            f"needs {list(axes)}.",
            "Give one class index for each prediction.",
        )
    classes = _class_count(output)
    scores = not (output.ndim == 1 and output.dtype.kind in "iub")
    if scores and labels.max(initial=0) >= classes:
        raise UsageError(
            f"The labels go up to {int(labels.max())}, and the model tells {classes} classes apart.",
            "Number the classes from 0 in the order of the model's outputs.",
        )


def _accuracy(name: str, output: Array, labels: Array | None, _: Array | None) -> Scored:
    from sklearn.metrics import accuracy_score

    assert labels is not None
    decisions = classes_of(output)
    _check_labels(name, output, labels, decisions.shape)
    right = decisions == labels
    each = right.reshape(len(right), -1).mean(axis=1)
    value = float(accuracy_score(labels.reshape(-1), decisions.reshape(-1)))
    single = decisions.ndim == 1
    return Scored(value, mean_weighted(each), each, decisions if single else None, right if single else None)


def _top(name: str, output: Array, labels: Array | None, _: Array | None) -> Scored:
    from sklearn.metrics import top_k_accuracy_score

    assert labels is not None
    k = int(name.removeprefix("top-")) if name.removeprefix("top-").isdigit() else 0
    if output.ndim != 2 or not 1 <= k < output.shape[-1]:
        raise UsageError(
            f"{name} needs scores for more than {k} classes; the output has the shape {list(output.shape)}.",
            "Use accuracy, or a smaller k.",
        )
    _check_labels(name, output, labels, (len(output),))
    best = np.argsort(output, axis=1, kind="mergesort")[:, ::-1][:, :k]  # ties as scikit-learn breaks them
    right = (best == labels[:, None]).any(axis=1)
    each = right.astype(np.float64)
    classes = np.arange(output.shape[1])
    value = each.mean() if output.shape[1] == 2 else top_k_accuracy_score(labels, output, k=k, labels=classes)
    return Scored(float(value), mean_weighted(each), each, best[:, 0], right)


def _f1(name: str, output: Array, labels: Array | None, _: Array | None) -> Scored:
    from scipy.sparse import csr_array
    from sklearn.metrics import f1_score

    assert labels is not None
    decisions = classes_of(output)
    _check_labels(name, output, labels, (len(output),))
    classes, packed = np.unique(np.concatenate([labels, decisions]), return_inverse=True)
    truth, guess = packed[: len(labels)], packed[len(labels) :]
    rows = np.arange(len(labels))
    shape = (len(labels), len(classes))
    hits = csr_array((np.asarray(truth == guess, dtype=np.float64), (rows, truth)), shape=shape)
    total = csr_array((np.ones(2 * len(rows)), (np.tile(rows, 2), packed)), shape=shape)

    def weighted(weights: Array) -> Array:
        """Macro F1: mean over the classes drawn of 2 TP / (true + predicted)."""
        true_positive, seen = weights @ hits, weights @ total
        with np.errstate(invalid="ignore"):
            return np.asarray(np.nanmean(2 * true_positive / seen, axis=1))

    value = float(f1_score(labels, decisions, average="macro", zero_division=0.0))
    return Scored(value, weighted, None, decisions, decisions == labels)


def _auc(name: str, output: Array, labels: Array | None, _: Array | None) -> Scored:
    from sklearn.metrics import roc_auc_score

    assert labels is not None
    if output.ndim > 2 or output.dtype.kind != "f":
        raise UsageError(f"auc needs scores; the output is {output.dtype}{list(output.shape)}.", "Use another metric.")
    _check_labels(name, output, labels, (len(output),))
    columns = _ranked(output)
    tasks = [(scores, labels == positive) for positive, scores in columns.items()]
    tasks = [(scores, truth) for scores, truth in tasks if truth.any() and not truth.all()]
    if not tasks:
        raise UsageError("auc needs samples of at least two classes.", "Add samples of another class.")
    value = float(np.mean([roc_auc_score(truth, scores) for scores, truth in tasks]))
    curves = [_weighted_auc(scores, truth) for scores, truth in tasks]

    def weighted(weights: Array) -> Array:
        return np.asarray(np.nanmean([curve(weights) for curve in curves], axis=0))

    return Scored(value, weighted, None, classes_of(output), None)


def _ranked(output: Array) -> Mapping[int, Array]:
    """Scores by positive class: one for two classes, one against the rest for each of more (macro average).

    Scores of several classes that are not probabilities yet go through softmax: one class's logits of different samples
    do not compare.
    """
    if output.ndim == 1 or output.shape[1] == 1:
        return {1: output.reshape(-1)}
    scores = output.astype(np.float64)
    if np.any(scores < 0) or not np.allclose(scores.sum(axis=1), 1.0, atol=1e-3):
        scores = np.exp(scores - scores.max(axis=1, keepdims=True))
        scores /= scores.sum(axis=1, keepdims=True)
    return {1: scores[:, 1]} if scores.shape[1] == 2 else dict(enumerate(scores.T))


def _weighted_auc(scores: Array, truth: Array) -> Weighted:
    """The chance that a positive scores above a negative, ties counting half, under weights."""
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(scores[order]) > 0])  # where equal scores begin
    positive = truth[order].astype(np.float64)

    def weighted(weights: Array) -> Array:
        drawn = weights[:, order]
        pos = np.add.reduceat(drawn * positive, starts, axis=1)
        neg = np.add.reduceat(drawn * (1 - positive), starts, axis=1)
        below = np.cumsum(neg, axis=1) - neg / 2
        with np.errstate(invalid="ignore"):  # a resample may miss one side: not a number, left out of the mean
            return np.asarray((pos * below).sum(axis=1) / (pos.sum(axis=1) * neg.sum(axis=1)))

    return weighted


def _mse(_name: str, output: Array, labels: Array | None, reference: Array | None) -> Scored:
    from sklearn.metrics import mean_squared_error

    wanted = labels if labels is not None else reference if reference is not None else output
    if wanted.size != output.size or len(wanted) != len(output):
        raise UsageError(
            f"The labels have the shape {list(wanted.shape)}, the output {list(output.shape)}.",
            "Give y in the shape of the output.",
        )
    truth = wanted.reshape(len(output), -1).astype(np.float64)
    found = output.reshape(len(output), -1).astype(np.float64)
    each = np.square(found - truth).mean(axis=1)
    return Scored(float(mean_squared_error(truth, found)), mean_weighted(each), each)


def _fidelity(_name: str, output: Array, _labels: Array | None, reference: Array | None) -> Scored:
    each = cosines(output, output if reference is None else reference)
    return Scored(float(each.mean()), mean_weighted(each), each)


_RULES: Mapping[str, Callable[[str, Array, Array | None, Array | None], Scored]] = {
    "accuracy": _accuracy,
    "top": _top,
    "f1": _f1,
    "auc": _auc,
    "mse": _mse,
    "fidelity": _fidelity,
}
