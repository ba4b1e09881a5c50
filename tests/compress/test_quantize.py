"""int8 of real and small models: what is quantized, how exact it stays, that the bytes are always the same."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import zoo

from workbench.compress import calibrate, graphs
from workbench.compress.quantize import quantize
from workbench.errors import StepFailed, UsageError
from workbench.model.bring import bring
from workbench.model.npz import read_npz, write_npz

DIGITS = Path(__file__).resolve().parents[2] / "assets" / "digits"
STATIC = {"to": "int8", "mode": "static", "calibration": "minmax", "percentile": 99.99, "per_channel": True}


def brought(emit: Any, model: onnx.ModelProto, tmp_path: Path) -> Path:
    source = tmp_path / "source.onnx"
    source.write_bytes(model.SerializeToString())
    return bring({"source": source}, {"location": "source.onnx", "preprocess": None}, emit).files["model"]


def noise(path: Path, samples: int, *shape: int, seed: int = 0) -> Path:
    values = np.random.default_rng(seed).standard_normal((samples, *shape)).astype(np.float32)
    write_npz(path, {"x": values})
    return path


def outputs(model: Path, x: np.ndarray) -> np.ndarray:
    session = ort.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})[0]


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float((a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b))


@pytest.fixture
def digits(emit: Any, tmp_path: Path) -> dict[str, Path]:
    location = {"location": "digits.onnx", "preprocess": {"scale": 0.0625}}
    model = bring({"source": DIGITS / "digits.onnx"}, location, emit).files["model"]
    kept = tmp_path / "digits.onnx"
    model.rename(kept)
    write_npz(tmp_path / "calibrate.npz", {"pixels": read_npz(DIGITS / "calibrate.npz", "")["x"]})
    return {"model": kept, "calibrate": tmp_path / "calibrate.npz"}


class TestDigits:
    @pytest.mark.parametrize("calibration", ["minmax", "percentile"])
    def test_static_keeps_the_accuracy_at_a_quarter_of_the_size(
        self, emit: Any, digits: dict[str, Path], calibration: str
    ) -> None:
        found = quantize(digits, {**STATIC, "calibration": calibration}, emit)
        test = read_npz(DIGITS / "test.npz", "")
        right = [(outputs(m, test["x"]).argmax(1) == test["y"]).mean() for m in (digits["model"], found.files["model"])]
        assert right[1] >= right[0] - 0.005
        assert found.files["model"].stat().st_size < 0.3 * digits["model"].stat().st_size
        assert found.values["operators"]["QuantizeLinear"] > 0
        assert found.values["quantized_nodes"] >= 7  # five convolutions and two products
        assert found.values["notes"] == emit.notes == []

    def test_weights_have_seven_bits_so_that_no_pair_of_products_saturates(
        self, emit: Any, digits: dict[str, Path]
    ) -> None:
        model = onnx.load(quantize(digits, STATIC, emit).files["model"])
        weights = [
            onnx.numpy_helper.to_array(t) for t in model.graph.initializer if t.data_type == onnx.TensorProto.INT8
        ]
        largest = max(int(np.abs(w.astype(int)).max()) for w in weights if w.ndim >= 2)
        assert largest == 64
        assert 2 * 255 * largest <= 2**15 - 1

    def test_scales_are_one_a_channel(self, emit: Any, digits: dict[str, Path]) -> None:
        model = onnx.load(quantize(digits, STATIC, emit).files["model"])
        kernels = [t for t in model.graph.initializer if t.data_type == onnx.TensorProto.INT8 and len(t.dims) == 4]
        scales = {t.name: t for t in model.graph.initializer}
        for kernel in kernels:
            reader = next(n for n in model.graph.node if kernel.name in n.input)
            assert list(scales[reader.input[1]].dims) == [kernel.dims[0]]

    def test_the_bytes_are_the_same_in_another_folder_on_one_core_and_with_two_threads(
        self, emit: Any, digits: dict[str, Path], tmp_path: Path
    ) -> None:
        first = quantize(digits, STATIC, emit).files["model"].read_bytes()
        code = (
            "import hashlib, json, os, sys\n"
            "from pathlib import Path\n"
            "from types import SimpleNamespace\n"
            "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
            "from workbench.compress.quantize import quantize\n"
            "inputs, params, scratch = json.load(sys.stdin)\n"
            "say = lambda *words: None\n"
            "emit = SimpleNamespace(scratch=Path(scratch), progress=say, note=say, sample=say)\n"
            "found = quantize({k: Path(v) for k, v in inputs.items()}, params, emit)\n"
            "print(hashlib.sha256(found.files['model'].read_bytes()).hexdigest())\n"
        )
        elsewhere = tmp_path / "another place"
        elsewhere.mkdir()
        request = [{name: str(path) for name, path in digits.items()}, {**STATIC, "threads": 2}, str(elsewhere)]
        said = subprocess.run(
            [sys.executable, "-c", code],
            input=json.dumps(request),
            capture_output=True,
            text=True,
            check=True,
            cwd=elsewhere,
            env={**os.environ, "PYTHONHASHSEED": "123"},
        )
        assert said.stdout.strip() == hashlib.sha256(first).hexdigest()

    def test_nothing_is_left_behind_and_nothing_written_elsewhere(
        self, emit: Any, digits: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        forbidden = tmp_path / "no temporary files here"
        monkeypatch.setenv("TMPDIR", str(forbidden))
        before = set(emit.scratch.iterdir())
        found = quantize(digits, STATIC, emit)
        assert set(emit.scratch.iterdir()) - before == {found.files["model"]}

    def test_no_name_of_a_tool_or_person_is_in_the_file(self, emit: Any, digits: dict[str, Path]) -> None:
        model = onnx.load(quantize(digits, STATIC, emit).files["model"])
        assert (model.producer_name, model.producer_version, list(model.metadata_props)) == ("", "", [])

    def test_dynamic_leaves_convolutions_in_float_and_says_why(self, emit: Any, digits: dict[str, Path]) -> None:
        found = quantize({"model": digits["model"]}, {**STATIC, "mode": "dynamic"}, emit)
        assert found.values["operators"]["Conv"] == 5
        assert found.values["operators"]["MatMulInteger"] == found.values["quantized_nodes"] == 2
        assert "5 convolutions stay in float32" in emit.notes[0]

    def test_weight_only_is_smaller_and_close_without_any_calibration(self, emit: Any, digits: dict[str, Path]) -> None:
        found = quantize({"model": digits["model"]}, {**STATIC, "mode": "weight-only"}, emit)
        x = read_npz(DIGITS / "test.npz", "")["x"]
        assert cosine(outputs(digits["model"], x), outputs(found.files["model"], x)) > 0.999
        assert found.files["model"].stat().st_size < 0.3 * digits["model"].stat().st_size


@pytest.mark.parametrize("opset", [11, 12, 13, 17, 21])
class TestOpsets:
    def test_static_gemm_works_from_every_opset(self, emit: Any, tmp_path: Path, opset: int) -> None:
        model = brought(emit, zoo.mlp(opset), tmp_path)
        found = quantize({"model": model, "calibrate": noise(tmp_path / "c.npz", 100, 16)}, STATIC, emit)
        x = read_npz(tmp_path / "c.npz", "")["x"]
        assert cosine(outputs(model, x), outputs(found.files["model"], x)) > 0.999
        raised = [note for note in found.values["notes"] if "opset was raised" in note]
        assert bool(raised) == (opset < 13)

    def test_static_convolutions_work_from_every_opset(self, emit: Any, tmp_path: Path, opset: int) -> None:
        model = brought(emit, zoo.convolutions(opset), tmp_path)
        found = quantize({"model": model, "calibrate": noise(tmp_path / "c.npz", 20, 3, 8, 8)}, STATIC, emit)
        x = read_npz(tmp_path / "c.npz", "")["x"]
        assert cosine(outputs(model, x), outputs(found.files["model"], x)) > 0.99

    def test_dynamic_gemm_works_from_every_opset(self, emit: Any, tmp_path: Path, opset: int) -> None:
        model = brought(emit, zoo.mlp(opset), tmp_path)
        found = quantize({"model": model}, {**STATIC, "mode": "dynamic"}, emit)
        x = read_npz(noise(tmp_path / "c.npz", 100, 16), "")["x"]
        assert found.values["quantized_nodes"] == 2
        assert cosine(outputs(model, x), outputs(found.files["model"], x)) > 0.99


class TestWhatIsQuantized:
    def test_a_residual_addition_between_convolutions_is(self, emit: Any, tmp_path: Path) -> None:
        model = brought(emit, zoo.convolutions(), tmp_path)
        found = quantize({"model": model, "calibrate": noise(tmp_path / "c.npz", 20, 3, 8, 8)}, STATIC, emit)
        graph = onnx.load(found.files["model"]).graph
        given = {name: node for node in graph.node for name in node.output}
        (add,) = (node for node in graph.node if node.op_type == "Add")
        assert {given[name].op_type for name in add.input} == {"DequantizeLinear"}

    def test_attention_products_and_residuals_of_a_transformer_are_not(self, emit: Any, tmp_path: Path) -> None:
        model = brought(emit, zoo.attention(), tmp_path)
        found = quantize({"model": model, "calibrate": noise(tmp_path / "c.npz", 64, 5, 32)}, STATIC, emit)
        graph = onnx.load(found.files["model"]).graph
        given = {name: node.op_type for node in graph.node for name in node.output}
        products = [n for n in graph.node if n.op_type == "MatMul"]
        whole = [n for n in products if all(given.get(name) == "DequantizeLinear" for name in n.input)]
        assert (len(products), len(whole)) == (6, 4)
        assert found.values["quantized_nodes"] == 4
        x = read_npz(tmp_path / "c.npz", "")["x"]
        assert cosine(outputs(model, x), outputs(found.files["model"], x)) > 0.99

    def test_a_mask_of_minus_infinity_does_not_ruin_the_ranges(self, emit: Any, tmp_path: Path) -> None:
        assert not calibrate.usable((-np.inf, 1.0))
        assert not calibrate.usable((-3.4028235e38, 1.0))
        assert calibrate.usable((-5.0, 5.0))
        model = brought(emit, zoo.attention(), tmp_path)
        found = quantize({"model": model, "calibrate": noise(tmp_path / "c.npz", 8, 5, 32)}, STATIC, emit)
        scales = [onnx.numpy_helper.to_array(t) for t in onnx.load(found.files["model"]).graph.initializer]
        assert all(np.all(np.isfinite(s) & (np.abs(s) < 1e6)) for s in scales if s.dtype == np.float32 and s.size == 1)

    def test_a_product_whose_operand_has_no_bounds_stays_in_float_and_that_is_said(
        self, emit: Any, tmp_path: Path
    ) -> None:
        nodes = [
            onnx.helper.make_node("Gemm", ["x", "w1"], ["h"]),
            onnx.helper.make_node("Relu", ["h"], ["r"]),
            onnx.helper.make_node("Add", ["r", "mask"], ["m"]),
            onnx.helper.make_node("Clip", ["m", "low"], ["c"]),
            onnx.helper.make_node("Gemm", ["c", "w2"], ["y"]),
        ]
        weights = {"w1": zoo.weight(1, 16, 16), "w2": zoo.weight(2, 16, 8), "low": np.float32(-3e38)}
        weights["w2"][1::2] = 0  # what is masked counts nothing
        mask = np.where(np.arange(16) % 2, -np.inf, 0).astype(np.float32)
        model = brought(emit, zoo.model(nodes, ["n", 16], ["n", 8], {**weights, "mask": mask}, 17), tmp_path)
        found = quantize({"model": model, "calibrate": noise(tmp_path / "c.npz", 8, 16)}, STATIC, emit)
        assert any("values without bounds" in note for note in emit.notes)
        assert found.values["quantized_nodes"] >= 1
        x = read_npz(tmp_path / "c.npz", "")["x"]
        assert cosine(outputs(model, x), outputs(found.files["model"], x)) > 0.99

    def test_results_for_the_caller_are_not_rounded_to_eight_bits(self, emit: Any, digits: dict[str, Path]) -> None:
        graph = onnx.load(quantize(digits, STATIC, emit).files["model"]).graph
        (last,) = (node for node in graph.node if "logits" in node.output)
        assert last.op_type == "Gemm"

    @pytest.mark.parametrize("after", ["Relu", "Clip"])
    def test_an_activation_behind_a_product_is_never_lost(self, emit: Any, tmp_path: Path, after: str) -> None:
        bounds = ["low", "high"] if after == "Clip" else []
        nodes = [
            onnx.helper.make_node("Gemm", ["x", "w1"], ["h"]),
            onnx.helper.make_node(after, ["h", *bounds], ["r"]),
            onnx.helper.make_node("Softmax", ["r"], ["s"]),
            onnx.helper.make_node("Add", ["s", "r"], ["y"]),
        ]
        weights = {"w1": zoo.weight(1, 16, 16)} | {name: np.float32(i) for i, name in enumerate(bounds)}
        model = brought(emit, zoo.model(nodes, ["n", 16], ["n", 16], weights, 17), tmp_path)
        found = quantize({"model": model, "calibrate": noise(tmp_path / "c.npz", 50, 16)}, STATIC, emit)
        x = read_npz(tmp_path / "c.npz", "")["x"]
        assert found.values["quantized_nodes"] >= 1
        assert cosine(outputs(model, x), outputs(found.files["model"], x)) > 0.999

    def test_an_lstm_is_taken_by_dynamic(self, emit: Any, tmp_path: Path) -> None:
        model = brought(emit, zoo.lstm(), tmp_path)
        found = quantize({"model": model}, {**STATIC, "mode": "dynamic"}, emit)
        assert found.values["operators"].get("DynamicQuantizeLSTM") == 1
        x = np.random.default_rng(0).standard_normal((4, 1, 16)).astype(np.float32)
        assert cosine(outputs(model, x), outputs(found.files["model"], x)) > 0.98

    @pytest.mark.parametrize("mode", ["static", "dynamic", "weight-only"])
    def test_a_model_without_weights_stays_as_it_is_and_that_is_said(
        self, emit: Any, tmp_path: Path, mode: str
    ) -> None:
        model = brought(emit, zoo.only_elementwise(), tmp_path)
        inputs = {"model": model, "calibrate": noise(tmp_path / "c.npz", 8, 4)}
        found = quantize(inputs, {**STATIC, "mode": mode}, emit)
        assert found.files["model"].read_bytes() == model.read_bytes()
        assert found.values["quantized_nodes"] == 0
        assert "Nothing was quantized" in emit.notes[0]

    def test_a_variant_that_is_larger_says_so(self, emit: Any, tmp_path: Path) -> None:
        model = brought(emit, zoo.convolutions(channels=2), tmp_path)
        inputs = {"model": model, "calibrate": noise(tmp_path / "c.npz", 8, 3, 8, 8)}
        found = quantize(inputs, STATIC, emit)
        assert found.files["model"].stat().st_size > model.stat().st_size
        assert any("larger than the original" in note for note in emit.notes)


class TestRefusals:
    def test_static_needs_a_calibration_sample(self, emit: Any, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="calibration sample"):
            quantize({"model": brought(emit, zoo.mlp(), tmp_path)}, STATIC, emit)

    @pytest.mark.parametrize(
        "params", [{"to": "int4"}, {"mode": "magic"}, {"calibration": "entropy"}, {"percentile": 40}]
    )
    def test_unknown_parameters_are_named(self, emit: Any, tmp_path: Path, params: dict[str, Any]) -> None:
        with pytest.raises(UsageError, match=next(iter(params))):
            quantize({"model": tmp_path / "none"}, {**STATIC, **params}, emit)

    def test_a_sample_the_model_cannot_run_on_is_a_failed_step(self, emit: Any, tmp_path: Path) -> None:
        model = brought(emit, zoo.mlp(), tmp_path)
        with pytest.raises(StepFailed, match="calibration sample"):
            quantize({"model": model, "calibrate": noise(tmp_path / "c.npz", 8, 17)}, STATIC, emit)

    def test_a_graph_that_does_not_load_never_counts_as_a_variant(
        self, emit: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def broken(model: onnx.ModelProto, *_: Any) -> onnx.ModelProto:
            model.graph.node[0].input[0] = "nowhere"
            return model

        monkeypatch.setattr(graphs, "static_int8", broken)
        model = brought(emit, zoo.mlp(), tmp_path)
        with pytest.raises(StepFailed, match="does not work in onnxruntime") as caught:
            quantize({"model": model, "calibrate": noise(tmp_path / "c.npz", 8, 16)}, STATIC, emit)
        assert str(tmp_path) not in str(caught.value)

    def test_where_scales_for_each_channel_do_not_work_one_for_each_tensor_is_taken_and_said(
        self, emit: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real = graphs.static_int8

        def picky(model: onnx.ModelProto, names: Any, ranges: Any, per_channel: bool) -> onnx.ModelProto:
            if per_channel:
                raise ValueError("no axis here")
            return real(model, names, ranges, per_channel)

        monkeypatch.setattr(graphs, "static_int8", picky)
        model = brought(emit, zoo.mlp(), tmp_path)
        found = quantize({"model": model, "calibrate": noise(tmp_path / "c.npz", 8, 16)}, STATIC, emit)
        assert "One scale for each tensor" in found.values["notes"][0]


@pytest.mark.integration
@pytest.mark.skipif(shutil.which("qemu-x86_64") is None, reason="needs qemu-user")
def test_a_processor_without_vnni_computes_the_very_same_outputs(
    emit: Any, digits: dict[str, Path], tmp_path: Path
) -> None:
    variant = quantize(digits, STATIC, emit).files["model"]
    x = read_npz(DIGITS / "test.npz", "")["x"][:60]
    write_npz(tmp_path / "x.npz", {"x": x})
    code = (
        "import sys, numpy, onnxruntime\n"
        "session = onnxruntime.InferenceSession(sys.argv[1], providers=['CPUExecutionProvider'])\n"
        "found = session.run(None, {'pixels': numpy.load(sys.argv[2])['x']})[0]\n"
        "sys.stdout.buffer.write(found.tobytes())\n"
    )
    command = ["qemu-x86_64", "-cpu", "Haswell", sys.executable, "-c", code, str(variant), str(tmp_path / "x.npz")]
    environment = {**os.environ, "ORT_DISABLE_TELEMETRY": "1"}
    said = subprocess.run(command, capture_output=True, check=True, cwd=tmp_path, env=environment)
    there = np.frombuffer(said.stdout, np.float32).reshape(60, 10)
    here = outputs(variant, x)
    # The first operator (scaling) and the last (logits) are float32; all between are integers that cannot saturate.
    np.testing.assert_allclose(there, here, rtol=1e-5, atol=1e-5)
