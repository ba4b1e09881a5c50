"""Metrics against scikit-learn, weighted metrics against explicit resampling, paired comparison."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn import metrics as sk

from workbench.errors import UsageError
from workbench.evaluate.compare import compare, interval
from workbench.evaluate.metrics import Scored, cosines, evaluate

N, C = 200, 4
NOISE = np.random.default_rng(11)
LABELS = NOISE.integers(0, C, N)
LOGITS = (np.eye(C)[LABELS] * 1.5 + NOISE.standard_normal((N, C))).astype(np.float32)
SOFTMAX = np.exp(LOGITS.astype(float)) / np.exp(LOGITS.astype(float)).sum(1, keepdims=True)
OTHER = (LOGITS + 0.7 * NOISE.standard_normal((N, C))).astype(np.float32)


def scored(name: str, output: Any = LOGITS, labels: Any = LABELS, reference: Any = None) -> Scored:
    return evaluate(name, output, labels, reference)


def test_values_are_those_of_scikit_learn() -> None:
    guess = LOGITS.argmax(1)
    assert scored("accuracy").value == sk.accuracy_score(LABELS, guess)
    assert scored("top-2").value == sk.top_k_accuracy_score(LABELS, LOGITS, k=2)
    assert scored("f1").value == pytest.approx(sk.f1_score(LABELS, guess, average="macro"))
    assert scored("auc").value == pytest.approx(sk.roc_auc_score(LABELS, SOFTMAX, multi_class="ovr"))
    assert scored("mse", labels=OTHER).value == pytest.approx(sk.mean_squared_error(OTHER, LOGITS))


def test_two_classes_may_have_one_score_or_two() -> None:
    labels, two = LABELS % 2, LOGITS[:, :2]
    wanted = sk.roc_auc_score(labels, two[:, 1] - two[:, 0])
    assert scored("auc", two, labels).value == pytest.approx(wanted)
    one = (two[:, 1] - two[:, 0])[:, None]
    assert scored("auc", one, labels).value == pytest.approx(wanted)
    assert scored("accuracy", one, labels).value == scored("accuracy", two, labels).value
    probability = 1 / (1 + np.exp(-one))
    assert scored("accuracy", probability, labels).value == scored("accuracy", two, labels).value


def test_integer_outputs_are_classes() -> None:
    assert scored("accuracy", LABELS.copy()).value == 1.0


@pytest.mark.parametrize("name", ["accuracy", "top-2", "f1", "auc", "mse", "fidelity"])
def test_weights_say_what_resampling_would(name: str) -> None:
    reference, labels = (OTHER, OTHER) if name in ("mse", "fidelity") else (None, LABELS)
    whole = scored(name, labels=labels, reference=reference)
    assert whole.weighted(np.ones((1, N)))[0] == pytest.approx(whole.value)
    for seed in range(5):
        drawn = np.random.default_rng(seed).integers(0, N, N)
        again = scored(name, LOGITS[drawn], labels[drawn], None if reference is None else reference[drawn])
        assert whole.weighted(np.bincount(drawn, minlength=N)[None].astype(float))[0] == pytest.approx(again.value)


def test_auc_counts_ties_half() -> None:
    scores, labels = np.array([0.1, 0.5, 0.5, 0.9])[:, None], np.array([0, 0, 1, 1])
    found = scored("auc", scores, labels)
    assert found.weighted(np.ones((1, 4)))[0] == found.value == 0.875


def test_cosine_of_nothing_with_nothing_is_one_and_with_something_zero() -> None:
    zero, some = np.zeros((1, 3), np.float32), np.ones((1, 3), np.float32)
    assert [cosines(a, b)[0] for a, b in ((zero, zero), (zero, some), (some, -some))] == [1.0, 0.0, -1.0]


@pytest.mark.parametrize(
    ("name", "output", "labels"),
    [
        ("recall", LOGITS, LABELS),
        ("top-x", LOGITS, LABELS),
        ("top-4", LOGITS, LABELS),
        ("accuracy", LOGITS, LABELS + 1),
        ("accuracy", LOGITS, LABELS[:, None]),
        ("accuracy", LOGITS, None),
        ("auc", LOGITS, np.zeros(N, int)),
        ("mse", LOGITS, LABELS),
    ],
)
def test_labels_that_do_not_fit_are_refused_with_a_cure(name: str, output: Any, labels: Any) -> None:
    with pytest.raises(UsageError) as caught:
        evaluate(name, output, labels, None)
    assert caught.value.cure


class TestCompare:
    def against(self, name: str, variant: Any, seed: int = 0) -> dict[str, Any]:
        labels = None if name in ("mse", "fidelity") else LABELS
        return compare(name, evaluate(name, variant, labels, LOGITS), evaluate(name, LOGITS, labels, LOGITS), N, seed)

    def test_a_drop_is_positive_where_the_variant_is_worse_whichever_way_the_metric_runs(self) -> None:
        for name in ("accuracy", "f1", "auc", "mse", "fidelity"):
            found = self.against(name, OTHER)
            assert found["drop"] > 0
            low, high = found["interval"]
            assert low < found["drop"] < high

    def test_flipped_predictions_and_mcnemar_are_exact(self) -> None:
        found = self.against("accuracy", OTHER)
        before, after = LOGITS.argmax(1), OTHER.argmax(1)
        assert found["flipped"] == (before != after).sum()
        lost = ((before == LABELS) & (after != LABELS)).sum()
        won = ((before != LABELS) & (after == LABELS)).sum()
        assert found["drop"] == pytest.approx((lost - won) / N)
        ways = np.array([1.0])
        for _ in range(lost + won):  # Pascal's triangle: the binomial distribution of a fair coin
            ways = np.convolve(ways, [0.5, 0.5])
        assert found["p_value"] == pytest.approx(min(1.0, 2 * ways[: min(lost, won) + 1].sum()))

    def test_the_same_seed_gives_the_same_interval(self) -> None:
        assert self.against("accuracy", OTHER, 3) == self.against("accuracy", OTHER, 3)
        assert self.against("auc", OTHER, 3)["interval"] != self.against("auc", OTHER, 4)["interval"]

    def test_no_change_at_all_claims_no_more_than_the_samples_can_show(self) -> None:
        same = self.against("accuracy", LOGITS)
        assert (same["drop"], same["flipped"], same["p_value"]) == (0.0, 0, 1.0)
        assert same["interval"][1] == pytest.approx(1.96 * 2**0.5 / (N + 2), rel=1e-3)
        assert "Bonett-Price" in same["method"]

    def test_pairing_makes_the_interval_narrower_than_two_apart(self) -> None:
        nearly = LOGITS.copy()
        nearly[:3] = np.roll(nearly[:3], 1, axis=1)
        low, high = self.against("accuracy", nearly)["interval"]
        alone = interval("accuracy", scored("accuracy"), N, 0)
        assert high - low < alone[1] - alone[0]

    def test_the_interval_covers_the_truth_about_as_often_as_it_says(self) -> None:
        hits, rounds, n, truth = 0, 80, 100, 0.08
        for seed in range(rounds):
            noise = np.random.default_rng(seed)
            right = noise.random(n) < 0.9
            lost = right & (noise.random(n) < truth / 0.9)
            labels = np.zeros(n, int)
            original = np.where(right, 0, 1)
            variant = np.where(right & ~lost, 0, 1)
            found = compare(
                "accuracy",
                evaluate("accuracy", variant, labels, None),
                evaluate("accuracy", original, labels, None),
                n,
                0,
            )
            hits += found["interval"][0] <= truth <= found["interval"][1]
        assert 0.85 <= hits / rounds < 1.0


def test_a_perfect_score_does_not_claim_certainty() -> None:
    low, high = interval("accuracy", scored("accuracy", LABELS.copy()), N, 0)
    assert 0.97 < low < 0.99
    assert high == 1.0
