"""The server speaks the Open Inference Protocol V2 in JSON."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from server_models import TYPES, Ask, asker

from workbench.server.app import App

INFER = "/v2/models/affine/infer"


def tensor(data: Any, shape: list[int], name: str = "x", datatype: str = "FP32") -> dict[str, Any]:
    return {"name": name, "shape": shape, "datatype": datatype, "data": data}


def of_each_type(**changed: Any) -> dict[str, Any]:
    values: dict[str, Any] = {"BOOL": [True, False], "BYTES": ["ä\0", ""]}
    return {"inputs": [tensor(changed.get(name, values.get(name, [1, 2])), [2], f"in_{name}", name) for name in TYPES]}


def test_server_metadata_names_the_server(ask: Ask) -> None:
    status, answer = ask("/v2")
    assert status == 200
    assert answer["name"] == "workbench"
    assert answer["extensions"] == ["binary_tensor_data", "model_configuration", "model_repository", "statistics"]


def test_health(ask: Ask) -> None:
    assert ask("/v2/health/live") == (200, {"live": True})
    assert ask("/v2/health/ready") == (200, {"ready": True})
    assert ask("/v2/models/affine/ready") == (200, {"name": "affine", "ready": True})
    assert ask("/v2/models/affine/versions/2/ready")[0] == 200


def test_a_stopping_server_is_alive_and_not_ready(app: App, ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "ready", False)
    assert ask("/v2/health/live")[0] == 200
    assert ask("/v2/health/ready") == (503, {"ready": False})
    assert ask("/v2/models/affine/ready")[0] == 503


def test_model_metadata_is_the_signature(ask: Ask) -> None:
    status, answer = ask("/v2/models/affine")
    assert status == 200
    assert answer["versions"] == ["1", "2", "10"]
    assert answer["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 3]}]
    assert [output["name"] for output in answer["outputs"]] == ["double", "total"]


def test_inference_gives_every_output_and_the_request_id(ask: Ask) -> None:
    status, answer = ask(INFER, {"id": "a-1", "inputs": [tensor([1, 2, 3, 4, 5, 6], [2, 3])]})
    assert status == 200
    assert answer["id"] == "a-1"
    assert answer["model_name"] == "affine"
    assert answer["outputs"] == [
        {"name": "double", "datatype": "FP32", "shape": [2, 3], "data": [10, 20, 30, 40, 50, 60]},
        {"name": "total", "datatype": "FP32", "shape": [2, 1], "data": [6, 15]},
    ]


def test_the_highest_version_answers_unless_one_is_named(ask: Ask) -> None:
    body = {"inputs": [tensor([1, 1, 1], [1, 3])], "outputs": [{"name": "double"}]}
    for path, version, value in ((INFER, "10", 10), ("/v2/models/affine/versions/2/infer", "2", 2)):
        _, answer = ask(path, body)
        assert (answer["model_version"], answer["outputs"][0]["data"]) == (version, [value] * 3)


def test_only_the_requested_outputs_come_in_their_order(ask: Ask) -> None:
    body = {"inputs": [tensor([1, 1, 1], [1, 3])], "outputs": [{"name": "total"}, {"name": "double"}]}
    assert [output["name"] for output in ask(INFER, body)[1]["outputs"]] == ["total", "double"]
    body["outputs"] = [{"name": "total"}]
    assert [output["name"] for output in ask(INFER, body)[1]["outputs"]] == ["total"]


def test_parameters_are_accepted_and_not_used(ask: Ask) -> None:
    body = {
        "parameters": {"sequence_id": 1},
        "inputs": [tensor([1, 1, 1], [1, 3]) | {"parameters": {"binary_data": False}}],
        "outputs": [{"name": "total", "parameters": {"priority": 1}}],
    }
    assert ask(INFER, body)[0] == 200


def test_nested_data_is_the_flat_data(ask: Ask) -> None:
    flat = ask(INFER, {"inputs": [tensor([1, 2, 3, 4, 5, 6], [2, 3])]})
    assert ask(INFER, {"inputs": [tensor([[1, 2, 3], [4, 5, 6]], [2, 3])]}) == flat


def test_every_datatype_goes_in_and_comes_out(ask: Ask) -> None:
    status, answer = ask("/v2/models/identity/infer", of_each_type())
    assert status == 200
    outputs = {output["datatype"]: output["data"] for output in answer["outputs"]}
    assert set(outputs) == set(TYPES)
    assert outputs["BOOL"] == [True, False]
    assert outputs["BYTES"] == ["ä\0", ""]
    assert all(outputs[name] == [1, 2] for name in TYPES if name not in ("BOOL", "BYTES"))


def test_float32_survives_json_bit_for_bit(ask: Ask) -> None:
    bits = np.random.default_rng(0).integers(0, 2**32, 4000, dtype=np.uint32)
    values = bits.view(np.float32)
    values = np.append(values[np.isfinite(values)], np.float32([0.1, -0.0, 1e-45, 3.4028235e38]))
    data = np.resize(values, (len(values) // 3, 3))
    body = {"inputs": [tensor(data.ravel().tolist(), list(data.shape))], "outputs": [{"name": "double"}]}
    _, answer = ask("/v2/models/affine/versions/1/infer", body)
    assert np.array(answer["outputs"][0]["data"], np.float32).tobytes() == data.tobytes()


def test_the_limits_of_an_integer_survive(ask: Ask) -> None:
    extremes = {"INT64": [-(2**63), 2**63 - 1], "UINT64": [0, 2**64 - 1]}
    _, answer = ask("/v2/models/identity/infer", of_each_type(**extremes))
    outputs = {output["datatype"]: output["data"] for output in answer["outputs"]}
    assert {name: outputs[name] for name in extremes} == extremes


def test_what_json_cannot_say_is_null_in_an_answer(ask: Ask) -> None:
    body = {"inputs": [tensor([3e38, 1, 1], [1, 3])], "outputs": [{"name": "double"}]}
    assert ask(INFER, body)[1]["outputs"][0]["data"] == [None, 10, 10]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/", 404),
        ("/v1", 404),
        ("/v2/models", 404),
        ("/v2/models/none", 404),
        ("/v2/models/affine/versions/3", 404),
        ("/v2/models/affine/versions/", 404),
        ("/v2/models/../affine", 404),
        (INFER, 405),
    ],
)
def test_what_is_not_there_is_said(ask: Ask, path: str, status: int) -> None:
    answered, answer = ask(path)
    assert answered == status
    assert answer["error"]


GOOD = tensor([1, 2, 3], [1, 3])


@pytest.mark.parametrize(
    ("body", "names"),
    [
        (b"", "truncated"),
        (b"{", "truncated"),
        (b'{"other": ' + b"[" * 50_000, "recursion"),
        (b'{"inputs": "x"}', "inputs"),
        ({}, "inputs"),
        ({"inputs": []}, "missing"),
        ({"inputs": [GOOD, GOOD]}, "twice"),
        ({"inputs": [GOOD | {"name": "y"}]}, "no input 'y'"),
        ({"inputs": [GOOD | {"datatype": "FP64"}]}, "FP32"),
        ({"inputs": [GOOD | {"datatype": "float"}]}, "does not know"),
        ({"inputs": [GOOD | {"shape": [3]}]}, "shape [3]"),
        ({"inputs": [GOOD | {"shape": [1, 4]}]}, "shape [1, 4]"),
        ({"inputs": [GOOD | {"shape": [-1, 3]}]}, "shape [-1, 3]"),
        ({"inputs": [GOOD | {"shape": [2, 3]}]}, "6 elements"),
        ({"inputs": [GOOD | {"shape": [10**30, 3]}]}, "elements"),
        ({"inputs": [GOOD | {"shape": [True, 3]}]}, "int"),
        ({"inputs": [{key: GOOD[key] for key in ("name", "shape", "datatype")}]}, "no data"),
        ({"inputs": [GOOD | {"data": [1, "2", 3]}]}, "FP32"),
        ({"inputs": [GOOD | {"data": [1, True, 3]}]}, "FP32"),
        ({"inputs": [GOOD | {"data": [1, None, 3]}]}, "FP32"),
        ({"inputs": [GOOD | {"data": [1, 1e39, 3]}]}, "range of FP32"),
        ({"inputs": [GOOD | {"data": [[1, 2], [3]]}]}, "nested"),
        ({"inputs": [GOOD | {"data": [[[1, 2, 3]]]}]}, "FP32"),
        (b'{"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, NaN, 3]}]}', "malformed"),
        (b'{"inputs": [{"name": "\xff", "shape": [1, 3], "datatype": "FP32", "data": []}]}', "utf-8"),
        ({"inputs": [GOOD], "outputs": [{"name": "z"}]}, "no output 'z'"),
        ({"inputs": [GOOD], "outputs": [{"name": "total"}, {"name": "total"}]}, "twice"),
    ],
)
def test_a_bad_request_is_400_and_says_what_is_wrong(ask: Ask, body: Any, names: str) -> None:
    status, answer = ask(INFER, body)
    assert status == 400
    assert names in answer["error"]


@pytest.mark.parametrize(("name", "value"), [("INT8", 128), ("UINT64", -1), ("UINT8", 2**70), ("FP16", 65520)])
def test_a_value_out_of_range_is_400(ask: Ask, name: str, value: float) -> None:
    status, answer = ask("/v2/models/identity/infer", of_each_type(**{name: [1, value]}))
    assert status == 400
    assert f"range of {name}" in answer["error"]


def test_a_shape_of_nothing_must_not_claim_everything(ask: Ask) -> None:
    inputs = [tensor([], [0], f"in_{name}", name) for name in TYPES]
    assert ask("/v2/models/identity/infer", {"inputs": inputs})[0] == 200
    assert ask(INFER, {"inputs": [tensor([], [0, 3])]})[0] == 200
    assert ask(INFER, {"inputs": [tensor([], [2**40, 0])]})[0] == 400


def test_what_only_the_model_finds_wrong_is_400_too(ask: Ask) -> None:
    body = {"inputs": [tensor([2], [1], "index", "INT64")]}
    assert ask("/v2/models/lookup/infer", body)[1]["outputs"][0]["data"] == [4, 5]
    body["inputs"][0]["data"] = [4]
    status, answer = ask("/v2/models/lookup/infer", body)
    assert status == 400
    assert "does not take these values" in answer["error"]


def test_a_body_over_the_limit_is_413(ask: Ask) -> None:
    fitting = json.dumps({"inputs": [GOOD]}).encode().ljust(100_000)
    assert ask(INFER, fitting)[0] == 200
    assert ask(INFER, fitting, pieces=7)[0] == 200
    for pieces in (1, 7):
        status, answer = ask(INFER, fitting + b" ", pieces=pieces)
        assert status == 413
        assert "100000" in answer["error"]
    assert ask(INFER, b"{}", headers=[(b"content-length", b"100001")])[0] == 413


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)
tensors = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from(["x", "y"]) | json_values,
        "shape": st.lists(st.integers(-1, 4), max_size=3) | json_values,
        "datatype": st.sampled_from(sorted(TYPES)) | json_values,
        "data": st.lists(st.floats(width=32), max_size=6) | json_values,
    },
)
requests = st.fixed_dictionaries(
    {"inputs": st.lists(tensors, max_size=2)}, optional={"id": json_values, "outputs": json_values}
)


@settings(max_examples=400, deadline=None)
@given(body=requests.map(lambda value: json.dumps(value).encode()) | st.binary())
def test_no_body_is_answered_with_anything_but_200_or_400(app: App, body: bytes) -> None:
    assert asker(app)(INFER, body)[0] in (200, 400)
