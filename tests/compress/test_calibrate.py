"""Ranges over a sample: exact, in strides, rounded outward."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import zoo
from hypothesis import given
from hypothesis import strategies as st

from workbench.compress import calibrate

X = np.random.default_rng(3).standard_normal((500, 16)).astype(np.float32)


def named(model: onnx.ModelProto) -> onnx.ModelProto:
    for index, node in enumerate(model.graph.node):
        node.name = f"n{index}"
    return onnx.shape_inference.infer_shapes(model)


@pytest.fixture
def mlp() -> onnx.ModelProto:
    return named(zoo.mlp())


def test_ranges_are_the_extremes_of_every_activation(emit: Any, mlp: onnx.ModelProto) -> None:
    tensors = calibrate.tensors_of(mlp, ["n0", "n1", "n2"])
    assert tensors == ["x", "h", "r", "y"]
    ranges, _ = calibrate.minmax(mlp, tensors, {"x": X}, None, emit.scratch, emit)
    assert ranges["x"] == (float(X.min()), float(X.max()))
    assert ranges["r"][0] == 0.0
    assert ranges["r"][1] == ranges["h"][1] > 0


def test_ranges_do_not_depend_on_the_stride_and_a_stride_stays_within_its_memory(
    emit: Any, mlp: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensors = calibrate.tensors_of(mlp, ["n0", "n1", "n2"])
    bytes_a_sample = 4 * (16 + 64 + 64 + 8)
    whole, widest = calibrate.minmax(mlp, tensors, {"x": X}, None, emit.scratch, emit)
    monkeypatch.setattr(calibrate, "STRIDE_BYTES", 7 * bytes_a_sample)
    again, narrow = calibrate.minmax(mlp, tensors, {"x": X}, None, emit.scratch, emit)
    assert (narrow, widest) == (7, calibrate.MAX_ROWS)
    assert calibrate.rounded(again) == calibrate.rounded(whole)


def test_a_fixed_first_axis_decides_the_stride(emit: Any) -> None:
    model = named(zoo.lstm())
    x = np.random.default_rng(0).standard_normal((12, 1, 16)).astype(np.float32)
    ranges, stride = calibrate.minmax(model, ["x"], {"x": x}, 4, emit.scratch, emit)
    assert stride == 4
    assert ranges["x"] == (float(x.min()), float(x.max()))


@pytest.mark.parametrize("outlier", [20.0, 1e6, 1e30])
def test_percentiles_cut_outliers_of_any_size(emit: Any, mlp: onnx.ModelProto, outlier: float) -> None:
    x = np.random.default_rng(5).standard_normal((4000, 16)).astype(np.float32)
    x[0, 0] = outlier
    ranges, stride = calibrate.minmax(mlp, ["x"], {"x": x}, None, emit.scratch, emit)
    assert ranges["x"][1] == np.float32(outlier)
    low, high = calibrate.percentile(mlp, ranges, {"x": x}, stride, 99.9, emit.scratch, emit)["x"]
    wanted = np.percentile(x, [0.05, 99.95])
    assert low == pytest.approx(wanted[0], rel=0.02)
    assert high == pytest.approx(wanted[1], rel=0.02)


def test_percentile_100_is_the_whole_range(emit: Any, mlp: onnx.ModelProto) -> None:
    tensors = calibrate.tensors_of(mlp, ["n0", "n1"])
    ranges, stride = calibrate.minmax(mlp, tensors, {"x": X}, None, emit.scratch, emit)
    assert calibrate.percentile(mlp, ranges, {"x": X}, stride, 100.0, emit.scratch, emit) == ranges


def test_percentiles_are_the_same_however_tensors_are_grouped(
    emit: Any, mlp: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensors = calibrate.tensors_of(mlp, ["n0", "n1", "n2"])
    ranges, stride = calibrate.minmax(mlp, tensors, {"x": X}, None, emit.scratch, emit)
    together = calibrate.percentile(mlp, ranges, {"x": X}, stride, 99.0, emit.scratch, emit)
    monkeypatch.setattr(calibrate, "HISTOGRAM_BYTES", 1)
    assert calibrate.percentile(mlp, ranges, {"x": X}, stride, 99.0, emit.scratch, emit) == together


@given(st.floats(min_value=1e-30, max_value=1e30))
def test_rounding_goes_outward_by_at_most_a_64th(value: float) -> None:
    low, high = calibrate.rounded({"t": (-value, value)})["t"]
    assert -low == high
    assert value * (1 - 2.0**-13) <= high <= value * (1 + 2.0**-calibrate.KEPT_BITS)
    fraction, _ = math.frexp(high)
    assert (fraction * 2 ** (calibrate.KEPT_BITS + 1)).is_integer()


@given(st.floats(min_value=0.01, max_value=100.0), st.integers(min_value=-8, max_value=8))
def test_ranges_round_alike_around_exact_values(scale: float, ulps: int) -> None:
    exact = float(2 ** math.floor(math.log2(scale)))
    shaken = float(np.float32(exact) + ulps * np.spacing(np.float32(exact)))
    assert calibrate.rounded({"t": (0.0, shaken)}) == {"t": (0.0, exact)}


def test_zero_is_always_inside() -> None:
    assert calibrate.rounded({"t": (2.0, 4.0)}) == {"t": (0.0, 4.0)}
    assert calibrate.rounded({"t": (-4.0, -2.0)}) == {"t": (-4.0, 0.0)}


def test_no_augmented_model_is_left_behind(emit: Any, mlp: onnx.ModelProto) -> None:
    ranges, stride = calibrate.minmax(mlp, ["x", "h"], {"x": X}, None, emit.scratch, emit)
    calibrate.percentile(mlp, ranges, {"x": X}, stride, 99.0, emit.scratch, emit)
    assert list(Path(emit.scratch).iterdir()) == []
