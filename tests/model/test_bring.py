"""Bringing a model in: one canonical file from whatever ONNX file it was, or one sentence."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from workbench.errors import UsageError
from workbench.model.bring import bring
from workbench.model.inspect import inspect

DIGITS = Path(__file__).resolve().parents[2] / "assets" / "digits" / "digits.onnx"


def mlp(opset: int = 17, weight: np.ndarray | None = None) -> onnx.ModelProto:
    """x[batch,4] -> y[batch,3], one Gemm."""
    if weight is None:
        weight = np.random.default_rng(1).standard_normal((4, 3)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["x", "w", "b"], ["y"], name="fc")],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3])],
        [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(np.zeros(3, np.float32), "b")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def bring_in(emit: Any, path: Path, **params: Any) -> Any:
    return bring({"source": path}, {"location": str(path), "preprocess": None, **params}, emit)


def refused(emit: Any, path: Path, **params: Any) -> UsageError:
    """The refusal: a sentence that names the file and has a cure."""
    with pytest.raises(UsageError) as caught:
        bring_in(emit, path, **params)
    error = caught.value
    assert path.name in error.message
    assert error.cure
    assert "\n" not in str(error)
    return error


def saved(model: onnx.ModelProto, path: Path) -> Path:
    path.write_bytes(model.SerializeToString())
    return path


def test_digits_comes_in_with_signature_parameters_flops_and_layers(emit: Any) -> None:
    found = bring_in(emit, DIGITS, preprocess={"scale": 0.0625})
    values = found.values
    assert values["signature"]["inputs"] == [{"name": "pixels", "dtype": "float32", "shape": ["batch", 1, 8, 8]}]
    assert json.loads(found.files["signature"].read_bytes()) == values["signature"]
    assert values["opset"] == 17
    assert values["size"] == found.files["model"].stat().st_size
    assert values["operators"]["Conv"] == 5
    assert values["parameters"] == 344139
    first = next(layer for layer in values["layers"] if layer["op"] == "Conv")
    assert first["parameters"] == 32 * 9 + 32
    assert first["flops"] == 2 * 64 * 32 * 9
    assert values["flops"] == sum(layer["flops"] for layer in values["layers"])


def test_the_same_model_gives_the_same_bytes_whoever_wrote_it_and_wherever(emit: Any, tmp_path: Path) -> None:
    plain = saved(mlp(), tmp_path / "plain.onnx")
    noisy = mlp()
    noisy.producer_name, noisy.doc_string = "someone", "/home/someone/train.py line 3"
    helper.set_model_props(noisy, {"trace": "/home/someone/train.py"})
    noisy.graph.doc_string = noisy.graph.node[0].doc_string = noisy.graph.input[0].doc_string = "/home/someone"
    noisy.graph.initializer[0].doc_string = "/home/someone"
    noisy.graph.node[0].metadata_props.add(key="pkg.torch.onnx.stack_trace", value="/home/someone")
    (tmp_path / "elsewhere").mkdir()
    first = bring_in(emit, plain).files["model"].read_bytes()
    second = bring_in(emit, saved(noisy, tmp_path / "elsewhere" / "noisy.onnx")).files["model"].read_bytes()
    assert first == second
    assert b"someone" not in second


def test_weights_that_double_as_inputs_are_weights_only(emit: Any, tmp_path: Path) -> None:
    model = mlp()
    model.ir_version = 3
    model.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [4, 3]))
    model.graph.input.append(helper.make_tensor_value_info("b", TensorProto.FLOAT, [3]))
    found = bring_in(emit, saved(model, tmp_path / "old.onnx"))
    assert [entry["name"] for entry in found.values["signature"]["inputs"]] == ["x"]


def test_unnamed_dynamic_axes_get_names(emit: Any, tmp_path: Path) -> None:
    model = mlp()
    for value in (model.graph.input[0], model.graph.output[0]):
        value.type.tensor_type.shape.dim[0].Clear()
    found = bring_in(emit, saved(model, tmp_path / "m.onnx"))
    assert found.values["signature"]["inputs"][0]["shape"] == ["batch", 4]
    assert onnx.load(found.files["model"]).graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"


def test_an_output_without_a_shape_gets_the_inferred_one(emit: Any, tmp_path: Path) -> None:
    model = mlp()
    model.graph.output[0].type.tensor_type.ClearField("shape")
    found = bring_in(emit, saved(model, tmp_path / "m.onnx"))
    assert found.values["signature"]["outputs"][0]["shape"] == ["batch", 3]


class TestPreprocess:
    def image_model(self, path: Path) -> Path:
        graph = helper.make_graph(
            [helper.make_node("Identity", ["image"], ["out"])],
            "g",
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, 2, 2])],
            [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["n", 3, 2, 2])],
        )
        return saved(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)

    def test_cast_layout_scale_mean_and_std_are_computed_in_the_graph(self, emit: Any, tmp_path: Path) -> None:
        mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
        steps = {"cast": "uint8", "layout": "nhwc->nchw", "scale": 1 / 255, "mean": mean, "std": std}
        found = bring_in(emit, self.image_model(tmp_path / "i.onnx"), preprocess=steps)
        assert found.values["signature"]["inputs"] == [{"name": "image", "dtype": "uint8", "shape": ["n", 2, 2, 3]}]
        image = np.random.default_rng(0).integers(0, 256, (5, 2, 2, 3), dtype=np.uint8)
        session = ort.InferenceSession(str(found.files["model"]), providers=["CPUExecutionProvider"])
        wanted = ((image / 255 - mean) / std).transpose(0, 3, 1, 2)
        np.testing.assert_allclose(session.run(None, {"image": image})[0], wanted, rtol=1e-5, atol=1e-5)

    def test_one_number_serves_every_channel(self, emit: Any, tmp_path: Path) -> None:
        found = bring_in(emit, self.image_model(tmp_path / "i.onnx"), preprocess={"mean": 2.0, "std": 4.0})
        session = ort.InferenceSession(str(found.files["model"]), providers=["CPUExecutionProvider"])
        answer = session.run(None, {"image": np.full((1, 3, 2, 2), 10, np.float32)})[0]
        assert np.all(answer == 2.0)

    @pytest.mark.parametrize(
        "preprocess",
        [
            {"mean": [1.0, 2.0, 3.0, 4.0, 5.0]},
            {"mean": [1.0, 2.0], "layout": "nhwc->nchw"},
            {"std": 0.0},
            {"scale": "a lot"},
            {"scale": float("nan")},
            {"layout": "chwn->nchw"},
            {"cast": "int32"},
            {"crop": 3},
        ],
    )
    def test_what_does_not_fit_the_input_is_refused(self, emit: Any, tmp_path: Path, preprocess: Any) -> None:
        refused(emit, self.image_model(tmp_path / "i.onnx"), preprocess=preprocess)

    def test_layout_needs_four_axes(self, emit: Any, tmp_path: Path) -> None:
        refused(emit, saved(mlp(), tmp_path / "m.onnx"), preprocess={"layout": "nhwc->nchw"})


class TestExternalData:
    def outside(self, folder: Path, location: str, **entries: str) -> Path:
        """A model whose weight lies in the file ``location``."""
        model = mlp()
        tensor = model.graph.initializer[0]
        data = bytes(tensor.raw_data)
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in {"location": location, "offset": "0", "length": str(len(data)), **entries}.items():
            tensor.external_data.add(key=key, value=value)
        folder.mkdir(exist_ok=True)
        (folder / "weights.bin").write_bytes(data)
        return saved(model, folder / "model.onnx")

    def test_a_file_beside_the_model_is_taken_in_and_named_with_its_digest(self, emit: Any, tmp_path: Path) -> None:
        path = self.outside(tmp_path / "m", "weights.bin")
        found = bring_in(emit, path)
        (name, digest), *rest = found.values["also_read"].items()
        assert name == str(tmp_path / "m" / "weights.bin")
        assert digest.startswith("sha256:")
        assert not rest
        whole = bring_in(emit, saved(mlp(), tmp_path / "whole.onnx")).files["model"].read_bytes()
        path.with_name("weights.bin").unlink()  # nothing but the model is needed from now on
        found = bring_in(emit, saved(mlp(), tmp_path / "whole.onnx"))
        assert found.files["model"].read_bytes() == whole

    @pytest.mark.parametrize("location", ["../secret.bin", "{root}/secret.bin", "a/../../secret.bin", "..\\secret.bin"])
    def test_a_file_outside_the_folder_is_never_read(self, emit: Any, tmp_path: Path, location: str) -> None:
        (tmp_path / "secret.bin").write_bytes(bytes(48))
        error = refused(emit, self.outside(tmp_path / "m", location.format(root=tmp_path)))
        assert "outside the model's folder" in error.message

    def test_a_symbolic_link_that_leads_out_is_never_followed(self, emit: Any, tmp_path: Path) -> None:
        (tmp_path / "secret.bin").write_bytes(bytes(48))
        path = self.outside(tmp_path / "m", "link.bin")
        (tmp_path / "m" / "link.bin").symlink_to(tmp_path / "secret.bin")
        assert "outside the model's folder" in refused(emit, path).message

    def test_a_pipe_in_the_folder_is_not_waited_for(self, emit: Any, tmp_path: Path) -> None:
        path = self.outside(tmp_path / "m", "pipe")
        os.mkfifo(tmp_path / "m" / "pipe")
        assert "not an ordinary file" in refused(emit, path).message

    @pytest.mark.parametrize(
        "entries", [{"length": "47"}, {"offset": "8"}, {"offset": "-8"}, {"length": "9" * 30}, {"offset": "0x10"}]
    )
    def test_sizes_that_do_not_fit_are_refused(self, emit: Any, tmp_path: Path, entries: dict[str, str]) -> None:
        refused(emit, self.outside(tmp_path / "m", "weights.bin", **entries))

    def test_a_missing_file_is_named(self, emit: Any, tmp_path: Path) -> None:
        path = self.outside(tmp_path / "m", "weights.bin")
        (tmp_path / "m" / "weights.bin").unlink()
        assert "weights.bin" in refused(emit, path).message


class TestBadFiles:
    def test_every_truncation_of_a_model_is_refused(self, emit: Any, tmp_path: Path) -> None:
        whole = mlp().SerializeToString()
        path = tmp_path / "cut.onnx"
        for length in range(len(whole)):
            path.write_bytes(whole[:length])
            refused(emit, path)

    def test_flipped_bytes_give_a_sentence_or_a_model(self, emit: Any, tmp_path: Path) -> None:
        whole = mlp().SerializeToString()
        noise = np.random.default_rng(7)
        path = tmp_path / "flipped.onnx"
        outcomes = set()
        for _ in range(150):
            damaged = bytearray(whole)
            damaged[noise.integers(len(whole))] ^= 1 << int(noise.integers(8))
            path.write_bytes(damaged)
            with contextlib.suppress(UsageError):
                bring_in(emit, path)
                outcomes.add("model")
                continue
            outcomes.add("refused")
        assert outcomes == {"model", "refused"}

    @pytest.mark.parametrize(
        "data", [b"", b"not a model", b"\x00" * 100, b"PK\x03\x04", b"version https://git-lfs.x/v1\n"]
    )
    def test_other_files_are_refused(self, emit: Any, tmp_path: Path, data: bytes) -> None:
        path = tmp_path / "other.onnx"
        path.write_bytes(data)
        refused(emit, path)

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_weights_without_a_value_are_refused_by_name(self, emit: Any, tmp_path: Path, value: float) -> None:
        weight = np.ones((4, 3), np.float32)
        weight[1, 1] = value
        assert "'w'" in refused(emit, saved(mlp(weight=weight), tmp_path / "m.onnx")).message

    def test_an_attention_mask_may_hold_minus_infinity(self, emit: Any, tmp_path: Path) -> None:
        model = mlp()
        model.graph.initializer.append(numpy_helper.from_array(np.array([0, -np.inf, 0], np.float32), "mask"))
        model.graph.node[0].output[0] = "scores"
        model.graph.node.append(helper.make_node("Add", ["scores", "mask"], ["y"]))
        assert bring_in(emit, saved(model, tmp_path / "m.onnx")).values["operators"] == {"Add": 1, "Gemm": 1}

    def test_a_shape_that_claims_terabytes_is_refused_without_allocating_them(self, emit: Any, tmp_path: Path) -> None:
        model = mlp()
        del model.graph.initializer[0].dims[:]
        model.graph.initializer[0].dims.extend([2**40, 2**20])
        assert "shape" in refused(emit, saved(model, tmp_path / "m.onnx")).message

    def test_external_data_beyond_the_limit_is_refused_before_it_is_read(self, emit: Any, tmp_path: Path) -> None:
        path = TestExternalData().outside(tmp_path / "m", "weights.bin", length=str(2**34 * 4))
        model = onnx.load(path, load_external_data=False)
        del model.graph.initializer[0].dims[:]
        model.graph.initializer[0].dims.extend([2**34])
        with (tmp_path / "m" / "weights.bin").open("wb") as file:
            file.truncate(2**36)
        assert "2 GiB" in refused(emit, saved(model, path)).message

    def test_an_old_opset_is_refused_with_its_number(self, emit: Any, tmp_path: Path) -> None:
        error = refused(emit, saved(mlp(opset=10), tmp_path / "m.onnx"))
        assert "opset 10" in error.message
        assert "11" in error.message

    def test_opset_eleven_is_taken(self, emit: Any, tmp_path: Path) -> None:
        assert bring_in(emit, saved(mlp(opset=11), tmp_path / "m.onnx")).values["opset"] == 11

    def test_operators_of_a_foreign_domain_are_named(self, emit: Any, tmp_path: Path) -> None:
        model = mlp()
        model.graph.node[0].domain, model.graph.node[0].op_type = "com.example", "Fancy"
        model.opset_import.add(domain="com.example", version=1)
        error = refused(emit, saved(model, tmp_path / "m.onnx"))
        assert "com.example" in error.message
        assert "Fancy" in error.message

    def test_an_operator_hidden_in_a_branch_is_found_too(self, emit: Any, tmp_path: Path) -> None:
        model = mlp()
        out = helper.make_tensor_value_info("z", TensorProto.FLOAT, None)
        branch = helper.make_graph([helper.make_node("Fancy", ["y0"], ["z"], domain="com.example")], "b", [], [out])
        model.graph.node[0].output[0] = "y0"
        model.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
        model.graph.node.append(helper.make_node("If", ["yes"], ["y"], then_branch=branch, else_branch=branch))
        model.opset_import.add(domain="com.example", version=1)
        assert "com.example" in refused(emit, saved(model, tmp_path / "m.onnx")).message

    def test_a_graph_whose_types_do_not_fit_is_refused(self, emit: Any, tmp_path: Path) -> None:
        model = mlp()
        model.graph.input[0].type.tensor_type.elem_type = TensorProto.INT64
        refused(emit, saved(model, tmp_path / "m.onnx"))

    def test_outputs_that_are_no_tensors_are_refused(self, emit: Any, tmp_path: Path) -> None:
        model = mlp()
        model.graph.node[0].output[0] = "t"
        model.graph.node.append(helper.make_node("SequenceConstruct", ["t"], ["s"]))
        del model.graph.output[:]
        model.graph.output.append(helper.make_tensor_sequence_value_info("s", TensorProto.FLOAT, None))
        assert "sequence" in refused(emit, saved(model, tmp_path / "m.onnx")).message


class TestInspect:
    def test_it_reads_a_file_as_it_lies_there(self) -> None:
        found = inspect(DIGITS)
        assert found["size"] == DIGITS.stat().st_size
        assert found["operators"]["Gemm"] == 2

    def test_flops_are_unknown_where_another_axis_than_the_batch_is_dynamic(self, tmp_path: Path) -> None:
        weight = numpy_helper.from_array(np.ones((4, 3), np.float32), "w")
        graph = helper.make_graph(
            [helper.make_node("MatMul", ["x", "w"], ["y"])],
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", "length", 4])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", "length", 3])],
            [weight],
        )
        path = saved(
            helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "m"
        )
        assert inspect(path)["flops"] is None
        graph.input[0].type.tensor_type.shape.dim[1].dim_value = 5
        path = saved(
            helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "m"
        )
        assert inspect(path)["flops"] == 2 * 5 * 4 * 3

    def test_what_classical_models_learned_counts_though_it_is_in_attributes(self, tmp_path: Path) -> None:
        tree = {  # x[2] <= 0.5 goes to the first leaf of two
            "nodes_treeids": [0, 0, 0],
            "nodes_nodeids": [0, 1, 2],
            "nodes_featureids": [2, 0, 0],
            "nodes_values": [0.5, 0.0, 0.0],
            "nodes_modes": ["BRANCH_LEQ", "LEAF", "LEAF"],
            "nodes_truenodeids": [1, 0, 0],
            "nodes_falsenodeids": [2, 0, 0],
            "nodes_hitrates": [1.0, 1.0, 1.0],
            "target_treeids": [0, 0],
            "target_nodeids": [1, 2],
            "target_ids": [0, 0],
            "target_weights": [1.0, 2.0],
            "n_targets": 1,
        }
        linear = {"coefficients": [1.0, 2.0, 3.0], "intercepts": [0.5], "targets": 1}
        graph = helper.make_graph(
            [
                helper.make_node(
                    "Scaler", ["x"], ["s"], "scaler", domain="ai.onnx.ml", offset=[0.0] * 3, scale=[1.0] * 3
                ),
                helper.make_node("LinearRegressor", ["s"], ["y"], "linear", domain="ai.onnx.ml", **linear),
                helper.make_node("TreeEnsembleRegressor", ["s"], ["z"], "tree", domain="ai.onnx.ml", **tree),
            ],
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3])],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 1]) for name in "yz"],
        )
        imports = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
        path = saved(helper.make_model(graph, opset_imports=imports, ir_version=8), tmp_path / "m.onnx")
        found = inspect(path)
        assert (found["parameters"], found["flops"]) == (6 + 4 + 3, 2 * 3)
        assert [(each["name"], each["parameters"], each["bytes"], each["flops"]) for each in found["layers"]] == [
            ("scaler", 6, 24, 0),
            ("linear", 4, 16, 6),
            ("tree", 3, 12, 0),
        ]
        session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
        y, z = session.run(None, {"x": np.array([[1, 1, 1]], np.float32)})
        assert (y.item(), z.item()) == (6.5, 2.0)
