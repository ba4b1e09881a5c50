"""Parity: the image answers what the model answers in process."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from image_helpers import Emit, Image
from onnx import numpy_helper

from workbench.assets import asset
from workbench.errors import StepFailed
from workbench.image import limits, parity, runtime
from workbench.image.v2 import arrays_of, infer_body

LIMITS = {"cpus": 1, "memory": None}
PARAMS = {"name": "digits", "atol": 1e-5, "rtol": 1e-4, "threads": 1, "samples": 16, "limits": LIMITS}


def inputs_of(image: Image, folder: Path, variant: Path | None = None) -> dict[str, Path]:
    """The step's inputs; digits.onnx takes what the shipped samples hold."""
    model = variant or asset("digits/digits.onnx")
    name = onnx.load(model, load_external_data=False).graph.input[0].name
    with np.load(asset("digits/test.npz"), allow_pickle=False) as samples:
        np.savez(folder / "evaluate.npz", **{name: samples["x"].astype(np.float32)})
    return {"config": image.files["config"], **image.layers, "variant": model, "evaluate": folder / "evaluate.npz"}


@pytest.fixture
def unpacked_before(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Spares a test the unpacking, which another one shows."""
    monkeypatch.setattr(runtime, "unpacked_for_now", lambda *_: contextlib.nullcontext(root))


@pytest.mark.integration
def test_the_image_answers_bit_by_bit_what_the_model_answers(image: Image, emit: Emit, tmp_path: Path) -> None:
    values = parity.check(inputs_of(image, tmp_path), PARAMS, emit).values
    assert values == {
        "samples": 16,
        "bit_equal": True,
        "max_abs": 0.0,
        "max_rel": 0.0,
        "top1_equal": True,
        "method": "bubblewrap",
    }
    assert not any(emit.scratch.iterdir())
    assert emit.notes == []


@pytest.mark.integration
@pytest.mark.usefixtures("unpacked_before")
def test_limits_that_this_machine_does_not_hold_are_told(
    image: Image, emit: Emit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "delegated", lambda: None)
    wanted = {"cpus": 4096, "memory": 512 << 20}
    parity.check(inputs_of(image, tmp_path), {**PARAMS, "samples": 1, "limits": wanted}, emit)
    cpus, memory = emit.notes
    assert "limits.cpus is 4096" in cpus
    taken = re.search(r"limits.memory \(512.0 MiB\) is not enforced here.* took ([\d.]+) MiB at most", memory)
    assert taken is not None
    assert 10 < float(taken[1]) < 512


@pytest.mark.integration
@pytest.mark.usefixtures("unpacked_before")
def test_another_model_in_the_image_fails_and_the_difference_is_told(image: Image, emit: Emit, tmp_path: Path) -> None:
    model = onnx.load(asset("digits/digits.onnx"))
    bias = next(one for one in model.graph.initializer if one.dims == [10])
    bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + np.float32(0.5), bias.name))
    other = tmp_path / "other.onnx"
    onnx.save(model, other)
    with pytest.raises(StepFailed, match=r"largest difference 0\.5 absolute"):
        parity.check(inputs_of(image, tmp_path, other), PARAMS, emit)


def arrays(**values: Any) -> dict[str, np.ndarray[Any, Any]]:
    return {name: np.array(value, dtype=np.float32) for name, value in values.items()}


def test_within_the_tolerance_counts_unless_the_best_class_differs() -> None:
    close = parity.Difference(atol=0.01, rtol=0)
    close.compare(0, arrays(y=[[1.0, 2.0]]), arrays(y=[[1.005, 2.0]]))
    assert close.equal
    assert not close.bit_equal
    assert close.max_abs == pytest.approx(0.005, rel=1e-3)
    other = parity.Difference(atol=0.01, rtol=0)
    other.compare(0, arrays(y=[[1.0, 1.001]]), arrays(y=[[1.001, 1.0]]))
    assert other.within
    assert not other.equal


def test_nan_equals_nan_and_nothing_else() -> None:
    same = parity.Difference(0, 0)
    same.compare(0, arrays(y=[float("nan"), 1.0]), arrays(y=[float("nan"), 1.0]))
    assert same.bit_equal
    other = parity.Difference(1e9, 0)
    other.compare(0, arrays(y=[float("nan"), 1.0]), arrays(y=[0.0, 1.0]))
    assert not other.equal


def test_minus_zero_is_not_zero_bit_by_bit_but_equal() -> None:
    difference = parity.Difference(0, 0)
    difference.compare(0, arrays(y=[0.0]), arrays(y=[-0.0]))
    assert not difference.bit_equal
    assert difference.equal


@pytest.mark.parametrize("answered", [{"z": [1.0]}, {"y": [1.0, 2.0]}, {"y": [[1.0]]}])
def test_another_form_of_answer_fails(answered: dict[str, Any]) -> None:
    with pytest.raises(StepFailed):
        parity.Difference(1, 1).compare(0, arrays(y=[1.0]), arrays(**answered))


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int8", "uint8", "int64", "uint64", "bool"])
def test_numbers_survive_json_bit_by_bit(dtype: str) -> None:
    rng = np.random.default_rng(7)
    bits = rng.integers(0, 256, 8 * 512, dtype=np.uint8)
    array = (bits > 127) if dtype == "bool" else bits.view(dtype)
    if array.dtype.kind == "f":
        array = array[np.isfinite(array)]
    array = array[: array.size // 4 * 4].reshape(-1, 4)
    body = infer_body({"x": array}).replace(b'"inputs"', b'"outputs"')
    back = arrays_of(body)["x"]
    assert back.dtype == array.dtype
    assert back.tobytes() == array.tobytes()


def test_strings_survive_json() -> None:
    array = np.array([["ä", "b"]], dtype=object)
    assert arrays_of(infer_body({"x": array}).replace(b'"inputs"', b'"outputs"'))["x"].tolist() == [["ä", "b"]]


class FakeSession:
    """What parity asks of a session: its inputs' shapes."""

    def __init__(self, *shape: Any) -> None:
        self._shape = shape

    def get_inputs(self) -> list[Any]:
        return [type("Input", (), {"name": "x", "shape": list(self._shape)})()]


def test_samples_are_spread_and_a_fixed_batch_is_filled() -> None:
    data = {"x": np.arange(10).reshape(10, 1)}
    one = parity.batches(FakeSession("n", 1), data, 4)
    assert [request["x"].ravel().tolist() for request in one] == [[0], [3], [6], [9]]
    four = parity.batches(FakeSession(4, 1), data, 64)
    assert [request["x"].ravel().tolist() for request in four] == [[0, 1, 2, 3], [4, 5, 6, 7]]
