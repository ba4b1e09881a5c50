"""The server speaks the V1 protocol of KServe and TensorFlow Serving."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from server_models import Ask, affine, asker, load_models, lookup, write_model

from workbench.server.app import App

PREDICT = "/v1/models/affine:predict"
TWO = "/v1/models/two:predict"


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> App:
    """An application over affine in versions 1 and 10, lookup, and two: a (n, 2), b (n) and a scalar, texts of n."""
    folder = tmp_path_factory.mktemp("models")
    value = helper.make_tensor_value_info
    two = write_model(
        folder / "two.onnx",
        [
            helper.make_node("Add", ["a", "scalar"], ["sums"]),
            helper.make_node("Identity", ["b"], ["same"]),
            helper.make_node("ReduceMax", ["a"], ["most"], keepdims=0),
        ],
        [value("a", TensorProto.FLOAT, ["n", 2]), value("b", TensorProto.STRING, ["n"]), value("scalar", 1, [])],
        [value("sums", TensorProto.FLOAT, ["n", 2]), value("same", TensorProto.STRING, ["n"]), value("most", 1, [])],
    )
    pair = write_model(
        folder / "pair.onnx",
        [helper.make_node("Identity", ["a"], ["c"]), helper.make_node("Identity", ["b"], ["d"])],
        [value("a", TensorProto.FLOAT, ["n", 2]), value("b", TensorProto.STRING, ["n"])],
        [value("c", TensorProto.FLOAT, ["n", 2]), value("d", TensorProto.STRING, ["n"])],
    )
    files = {
        "affine": {version: affine(folder / f"{version}.onnx", float(version)) for version in ("1", "10")},
        "lookup": {"1": lookup(folder / "lookup.onnx")},
        "two": {"1": two},
        "pair": {"1": pair},
    }
    return App(load_models(files), max_body=100_000)


def test_the_models_are_listed_and_say_that_they_are_ready(ask: Ask, app: App, monkeypatch: Any) -> None:
    assert ask("/v1/models") == (200, {"models": ["affine", "lookup", "two", "pair"]})
    assert ask("/v1/models/affine") == (200, {"name": "affine", "ready": True})
    assert ask("/v1/models/affine/versions/1") == (200, {"name": "affine", "ready": True})
    monkeypatch.setattr(app, "ready", False)
    assert ask("/v1/models/affine") == (503, {"name": "affine", "ready": False})


def test_each_instance_gets_its_prediction(ask: Ask) -> None:
    status, answer = ask(PREDICT, {"instances": [[1, 2, 3], [4, 5, 6.5]]})
    assert status == 200
    assert answer == {
        "predictions": [{"double": [10, 20, 30], "total": [6]}, {"double": [40, 50, 65], "total": [15.5]}]
    }


def test_a_model_with_one_output_predicts_it_without_a_name(ask: Ask) -> None:
    assert ask("/v1/models/lookup:predict", {"instances": [2]}) == (200, {"predictions": [[4, 5]]})


def test_instances_may_name_the_inputs(ask: Ask) -> None:
    named = {"instances": [{"x": [1, 2, 3]}, {"x": [4, 5, 6.5]}]}
    assert ask(PREDICT, named) == ask(PREDICT, {"instances": [[1, 2, 3], [4, 5, 6.5]]})
    both = {"instances": [{"a": [1, 2], "b": "ä"}, {"b": "", "a": [3, 4]}]}
    expected = [{"c": [1, 2], "d": "ä"}, {"c": [3, 4], "d": ""}]
    assert ask("/v1/models/pair:predict", both) == (200, {"predictions": expected})


def test_columns_are_answered_with_columns(ask: Ask) -> None:
    asked = {"inputs": {"a": [[1, 2], [3, 4]], "b": ["x", "y"], "scalar": 10}, "signature_name": "serving_default"}
    expected = {"sums": [[11, 12], [13, 14]], "same": ["x", "y"], "most": 4}
    assert ask(TWO, asked) == (200, {"outputs": expected})
    assert ask("/v1/models/lookup:predict", {"inputs": [3]}) == (200, {"outputs": [[6, 7]]})
    assert ask("/v1/models/lookup:predict", {"inputs": {"index": [3]}}) == (200, {"outputs": [[6, 7]]})


def test_long_rows_are_read_as_short_ones_are(ask: Ask) -> None:
    long = b",".join(b"%d.%b" % (number, b"0" * 2000) for number in (1, 2, 3))
    assert ask(PREDICT, b'{"instances": [[%b]]}' % long) == ask(PREDICT, {"instances": [[1, 2, 3]]})
    assert ask(PREDICT, b'{"instances": [[%b, 4]]}' % long)[0] == 400
    assert ask(PREDICT, b'{"instances": [[%b], [%b, 4]]}' % (long, long))[0] == 400


def test_a_version_can_be_named(ask: Ask) -> None:
    for version in ("1", "10"):
        _, answer = ask(f"/v1/models/affine/versions/{version}:predict", {"instances": [[1, 0, 0]]})
        assert answer["predictions"][0]["double"][0] == float(version)


def test_no_instances_get_no_predictions(ask: Ask) -> None:
    assert ask(PREDICT, {"instances": []}) == (200, {"predictions": []})


def test_both_protocols_count_in_one_meter(ask: Ask, app: App) -> None:
    meter = app.repository.get("affine").meter
    answered, failed = meter.answered, meter.failed.get("invalid", 0)
    ask(PREDICT, {"instances": [[1, 2, 3]]})
    ask(PREDICT, {"instances": [[1, 2]]})
    assert (meter.answered, meter.failed["invalid"]) == (answered + 1, failed + 1)


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        (PREDICT, b"", "truncated"),
        (PREDICT, b"[]", "object"),
        (PREDICT, b'{"instances": [[1, NaN, 3]]}', "malformed"),
        (PREDICT, b'{"instances": ' + b"[" * 50_000, "recursion"),
        (PREDICT, {}, "either"),
        (PREDICT, {"instances": [], "inputs": []}, "either"),
        (PREDICT, {"instances": None}, "nested 2 deep"),
        (PREDICT, {"instances": [1, 2, 3]}, "nested 2 deep"),
        (PREDICT, {"instances": [[[1, 2, 3]]]}, "nested 2 deep"),
        (PREDICT, {"instances": [[1, 2, 3], [1, 2]]}, "equally long"),
        (PREDICT, {"instances": [[1, 2]]}, "shape [1, 2]"),
        (PREDICT, {"instances": [[1, 2, "3"]]}, "FP32"),
        (PREDICT, {"instances": [[1, 2, True]]}, "FP32"),
        (PREDICT, {"instances": [[1, 2, 1e39]]}, "range of FP32"),
        (PREDICT, {"instances": [{"y": [1, 2, 3]}]}, "instance 0: the model has no input 'y'"),
        (PREDICT, {"instances": [{"x": [1, 2, 3]}, {}]}, "instance 1: inputs are missing: 'x'"),
        (PREDICT, {"instances": [{"x": [1, 2, 3]}, [1, 2, 3]]}, "instance 1 is not an object"),
        (PREDICT, {"inputs": {"x": [[1, 2, 3]], "y": 1}}, "no input 'y'"),
        (PREDICT, {"inputs": {}}, "missing: 'x'"),
        (TWO, {"instances": [[1, 2]]}, "an object of them by name"),
        (TWO, {"inputs": [[1, 2]]}, "an object of them by name"),
        (TWO, {"instances": [{"a": [1, 2], "b": "x", "scalar": 1}]}, "nested 0 deep"),
        ("/v1/models/lookup:predict", {"instances": [9]}, "does not take these values"),
        ("/v1/models/lookup:predict", {"instances": [1, 2]}, "shape [2]"),
    ],
)
def test_a_bad_request_is_400_and_says_what_is_wrong(ask: Ask, path: str, body: Any, words: str) -> None:
    status, answer = ask(path, body)
    assert status == 400
    assert words in answer["error"]


@pytest.mark.parametrize(
    ("path", "method", "status"),
    [
        ("/v1/models/none:predict", "POST", 404),
        ("/v1/models/affine/versions/3:predict", "POST", 404),
        ("/v1/models/affine:explain", "POST", 404),
        ("/v1/models/", "GET", 404),
        ("/v1/models/none", "GET", 404),
        (PREDICT, "GET", 405),
        ("/v1/models", "POST", 405),
        ("/v1/models/affine", "POST", 405),
    ],
)
def test_what_is_not_there_is_said(ask: Ask, path: str, method: str, status: int) -> None:
    answered, answer = ask(path, {"instances": [[1, 2, 3]]} if method == "POST" else None, method)
    assert answered == status
    assert answer["error"]


def test_a_model_without_inputs_answers(tmp_path: Path) -> None:
    """What it gives may come from chance, or from what it was made with."""
    constant = write_model(
        tmp_path / "m.onnx",
        [helper.make_node("Identity", ["weight"], [name]) for name in ("y", "z")],
        [],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in (("y", [2]), ("z", ["n"]))],
        [numpy_helper.from_array(np.array([1, 2], np.float32), "weight")],
    )
    ask = asker(App(load_models({"m": {"1": constant}}), 10_000))
    status, answer = ask("/v2/models/m/infer", {"inputs": []})
    assert status == 200
    assert [each["data"] for each in answer["outputs"]] == [[1, 2], [1, 2]]
    assert ask("/v1/models/m:predict", {"inputs": {}}) == (200, {"outputs": {"y": [1, 2], "z": [1, 2]}})
    status, answer = ask("/v1/models/m:predict", {"instances": [{}]})
    assert status == 400
    assert "ask by 'inputs' instead" in answer["error"]


nested = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 300) | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["x", "a", "b"]), inner, max_size=3),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(
    body=st.dictionaries(st.sampled_from(["instances", "inputs"]), nested, min_size=1),
    path=st.sampled_from([PREDICT, TWO, "/v1/models/pair:predict"]),
)
def test_no_body_is_answered_with_anything_but_200_or_400(app: App, body: Any, path: str) -> None:
    assert asker(app)(path, body)[0] in (200, 400)
