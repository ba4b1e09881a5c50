"""The evaluate step on real models: batches, predictions, metric, comparison."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from workbench.errors import StepFailed, UsageError
from workbench.evaluate.score import score
from workbench.model.npz import read_npz, write_npz

DIGITS = Path(__file__).resolve().parents[2] / "assets" / "digits"
ACCURACY = {"metric": {"name": "accuracy"}, "seed": 0, "threads": 1}


@pytest.fixture
def test_set(tmp_path: Path) -> Path:
    """The shipped evaluation set, scaled as the model without preprocessing wants it."""
    arrays = read_npz(DIGITS / "test.npz", "")
    write_npz(tmp_path / "evaluate.npz", {"pixels": arrays["x"] / np.float32(16), "y": arrays["y"]})
    return tmp_path / "evaluate.npz"


def shaken(path: Path, amount: float) -> Path:
    """Digits with noise on the last weights: a variant that decides otherwise here and there."""
    model = onnx.load(DIGITS / "digits.onnx")
    tensor = next(t for t in model.graph.initializer if list(t.dims) == [10, 128])
    values = numpy_helper.to_array(tensor)
    values = values + amount * np.random.default_rng(0).standard_normal(values.shape).astype(np.float32)
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    path.write_bytes(model.SerializeToString())
    return path


def tiny(path: Path, nodes: list[Any], y: list[Any], x: list[Any], **weights: Any) -> Path:
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, y)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


def test_digits_are_scored_with_every_prediction_kept(emit: Any, test_set: Path) -> None:
    found = score({"model": DIGITS / "digits.onnx", "evaluate": test_set}, ACCURACY, emit)
    metric = found.values["metric"]
    assert found.values["samples"] == 360
    assert found.values["size"] == (DIGITS / "digits.onnx").stat().st_size
    assert metric["value"] > 0.97
    assert metric["interval"][0] < metric["value"] < metric["interval"][1]
    assert "compare" not in found.values
    session = ort.InferenceSession(str(DIGITS / "digits.onnx"), providers=["CPUExecutionProvider"])
    wanted = session.run(None, {"pixels": read_npz(test_set, "")["pixels"]})[0]
    np.testing.assert_allclose(read_npz(found.files["predictions"], "")["logits"], wanted, rtol=1e-4, atol=1e-4)


def test_a_variant_is_compared_with_the_original_sample_by_sample(emit: Any, test_set: Path, tmp_path: Path) -> None:
    original = score({"model": DIGITS / "digits.onnx", "evaluate": test_set}, ACCURACY, emit)
    kept = original.files["predictions"].rename(tmp_path / "reference.npz")
    variant = shaken(tmp_path / "variant.onnx", 0.3)
    found = score({"model": variant, "evaluate": test_set, "reference": kept}, ACCURACY, emit)
    compare = found.values["compare"]
    assert compare["drop"] == pytest.approx(original.values["metric"]["value"] - found.values["metric"]["value"])
    assert compare["drop"] > 0
    assert compare["flipped"] > 0
    assert 0 <= compare["p_value"] <= 1
    assert compare["interval"][0] < compare["drop"] < compare["interval"][1]
    assert 0.5 < compare["fidelity"] < 1
    assert "paired bootstrap" in compare["method"]


@pytest.mark.parametrize("name", ["fidelity", "mse"])
def test_without_labels_a_variant_is_judged_by_its_distance_to_the_original(
    emit: Any, test_set: Path, tmp_path: Path, name: str
) -> None:
    write_npz(tmp_path / "bare.npz", {"pixels": read_npz(test_set, "")["pixels"]})
    params = {**ACCURACY, "metric": {"name": name}}
    original = score({"model": DIGITS / "digits.onnx", "evaluate": tmp_path / "bare.npz"}, params, emit)
    assert original.values["metric"]["value"] == pytest.approx(1.0 if name == "fidelity" else 0.0)
    kept = original.files["predictions"].rename(tmp_path / "reference.npz")
    variant = shaken(tmp_path / "variant.onnx", 0.1)
    found = score({"model": variant, "evaluate": tmp_path / "bare.npz", "reference": kept}, params, emit)
    assert found.values["compare"]["drop"] > 0
    assert found.values["metric"]["higher_is_better"] is (name == "fidelity")


def test_a_fixed_first_axis_is_run_in_its_own_size(emit: Any, tmp_path: Path) -> None:
    model = tiny(tmp_path / "m.onnx", [helper.make_node("Neg", ["x"], ["y"])], [2, 3], [2, 3])
    x = np.arange(18, dtype=np.float32).reshape(6, 3)
    write_npz(tmp_path / "e.npz", {"x": x})
    found = score({"model": model, "evaluate": tmp_path / "e.npz"}, {**ACCURACY, "metric": {"name": "mse"}}, emit)
    np.testing.assert_array_equal(read_npz(found.files["predictions"], "")["y"], -x)


def test_a_batch_axis_that_is_dynamic_in_name_only_is_run_sample_by_sample_and_said(emit: Any, tmp_path: Path) -> None:
    nodes = [helper.make_node("Reshape", ["x", "shape"], ["y"])]
    model = tiny(tmp_path / "m.onnx", nodes, ["batch", 3], ["batch", 3], shape=np.array([1, 3]))
    x = np.arange(12, dtype=np.float32).reshape(4, 3)
    write_npz(tmp_path / "e.npz", {"x": x})
    found = score({"model": model, "evaluate": tmp_path / "e.npz"}, {**ACCURACY, "metric": {"name": "mse"}}, emit)
    np.testing.assert_array_equal(read_npz(found.files["predictions"], "")["y"], x)
    assert "one sample at a time" in emit.notes[0]


def test_an_output_without_samples_is_a_failed_step(emit: Any, tmp_path: Path) -> None:
    nodes = [helper.make_node("ReduceSum", ["x"], ["y"], keepdims=0)]
    model = tiny(tmp_path / "m.onnx", nodes, [], ["batch", 3])
    write_npz(tmp_path / "e.npz", {"x": np.ones((4, 3), np.float32)})
    with pytest.raises(StepFailed, match="first axis"):
        score({"model": model, "evaluate": tmp_path / "e.npz"}, {**ACCURACY, "metric": {"name": "mse"}}, emit)


def test_a_model_that_does_not_load_is_a_failed_step_that_names_the_variant(
    emit: Any, test_set: Path, tmp_path: Path
) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"not a model")
    with pytest.raises(StepFailed, match="int8"):
        score({"model": tmp_path / "broken.onnx", "evaluate": test_set}, {**ACCURACY, "name": "int8"}, emit)


def test_an_output_may_be_chosen_by_name(emit: Any, test_set: Path) -> None:
    inputs = {"model": DIGITS / "digits.onnx", "evaluate": test_set}
    chosen = score(inputs, {**ACCURACY, "metric": {"name": "accuracy", "output": "logits"}}, emit)
    assert chosen.values["metric"]["value"] > 0.97
    with pytest.raises(UsageError, match="no output"):
        score(inputs, {**ACCURACY, "metric": {"name": "accuracy", "output": "other"}}, emit)
