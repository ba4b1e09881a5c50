"""What a model is asked and answers is summed up, feature by feature, and compared with a reference."""

from __future__ import annotations

import itertools
import json
import math
import threading
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import TensorProto, helper
from server_models import Ask, affine, asker, identity, write_model
from server_process import running

from workbench.server import feature_stats, input_stats
from workbench.server.app import App
from workbench.server.cache import ResponseCache
from workbench.server.datatypes import BY_NAME
from workbench.server.drift_reference import FeatureReference
from workbench.server.errors import ServerError
from workbench.server.feature_stats import Features, Labels, stability
from workbench.server.input_stats import InputStatistics, absorbing
from workbench.server.repository import Loader, Repository, find_models
from workbench.server.tensors import TensorSpec

Array = Any
INFER = "/v2/models/m/infer"
X = TensorSpec("x", BY_NAME["FP32"], (-1, 3))
Y = TensorSpec("y", BY_NAME["FP32"], (-1, 1))


@pytest.fixture
def follow(tmp_path: Path) -> Callable[[], App]:
    """Makes an application over the folder's models whose inputs are followed."""

    def made() -> App:
        loader = Loader(1, follow=lambda _: None)
        return App(Repository(loader, loader.load_all(find_models(tmp_path), {})), 10_000_000)

    return made


def send(ask: Ask, rows: Array, **more: Any) -> Any:
    return ask(INFER, {"inputs": [tensor("x", rows)]} | more)


def tensor(name: str, values: Array, datatype: str = "FP32") -> dict[str, Any]:
    return {"name": name, "shape": list(np.shape(values)), "datatype": datatype, "data": np.ravel(values).tolist()}


def drift(ask: Ask, path: str = "/v2/models/m/versions/1/drift") -> Any:
    status, answer = ask(path)
    assert status == 200
    return answer["model_drift"][0]


def test_features_and_scores_are_summed_up(follow: Callable[[], App], tmp_path: Path) -> None:
    affine(tmp_path / "m" / "1" / "model.onnx", 2.0)
    ask = asker(follow())
    rows = np.random.default_rng(0).normal([0, 5, -100], [1, 2, 3], (1000, 3)).astype(np.float32)
    for part in np.split(rows, 8):
        assert send(ask, part)[0] == 200
    found = drift(ask)
    assert (found["name"], found["version"], found["rows"], found["rows_seen"]) == ("m", "1", 1000, 1000)
    assert found["left_out"] == {}
    for name, values in (("double", 2 * rows), ("total", rows.sum(axis=1, keepdims=True))):
        check(found["outputs"][name]["features"], values)
    check(found["inputs"]["x"]["features"], rows)


def check(features: Any, values: Array) -> None:
    assert len(features) == values.shape[1]
    for number, (feature, column) in enumerate(zip(features, values.T.astype(float), strict=True)):
        assert feature["name"] == str(number)
        assert (feature["count"], feature["missing"], feature["infinite"]) == (len(column), 0, 0)
        assert (feature["min"], feature["max"]) == pytest.approx((column.min(), column.max()), rel=1e-6)
        assert (feature["mean"], feature["std"]) == pytest.approx((column.mean(), column.std()), rel=1e-5)
        # The first 1000 rows are absorbed at once here, so they set the bounds: their deciles.
        assert feature["bounds"] == pytest.approx(np.quantile(column, np.linspace(0.1, 0.9, 9)), rel=1e-5)
        assert feature["counts"] == [100] * 10


def test_what_is_missing_or_infinite_is_counted_apart() -> None:
    features = Features(2, [FeatureReference(bounds=[0.0]), FeatureReference(bounds=[])])
    features.add(np.array([[np.nan, 1], [np.inf, 1], [-np.inf, 1], [-4, 1], [2, 1]], np.float32))
    some, all_ = features.report()["features"]
    assert some == {
        "name": "0",
        "count": 4,
        "missing": 1,
        "infinite": 2,
        "min": -4,
        "max": 2,
        "mean": -1,
        "std": 3,
        "bounds": [0],
        "counts": [2, 2],
    }
    assert (all_["mean"], all_["std"], all_["counts"]) == (1, 0, [5])


def test_a_feature_that_is_always_missing_has_no_numbers() -> None:
    features = Features(1)
    features.add(np.full((300, 1), np.nan))
    (found,) = features.report()["features"]
    assert (found["count"], found["missing"], found["min"], found["mean"], found["std"]) == (0, 300, None, None, None)
    assert (found["bounds"], found["counts"]) == ([], [0])


COLUMNS = hnp.arrays(
    np.float64,
    st.tuples(st.integers(1, 40), st.just(2)),
    elements=st.floats(-1e6, 1e6, width=32) | st.sampled_from([math.nan, math.inf, -math.inf]),
)


@given(st.lists(COLUMNS, min_size=1, max_size=5), st.lists(st.integers(-5, 5), unique=True, max_size=4).map(sorted))
@settings(max_examples=200)
def test_parts_give_what_the_whole_gives(parts: list[Array], bounds: list[int]) -> None:
    reference = [FeatureReference(bounds=list(map(float, bounds))) for _ in range(2)]
    features = Features(2, reference)
    for part in parts:
        features.add(part)
    for feature, column in zip(features.report()["features"], np.concatenate(parts).T, strict=True):
        present = column[~np.isnan(column)]
        finite = column[np.isfinite(column)]
        assert (feature["count"], feature["missing"]) == (len(present), len(column) - len(present))
        assert feature["infinite"] == len(present) - len(finite)
        if len(finite):
            assert (feature["min"], feature["max"]) == (finite.min(), finite.max())
            assert feature["mean"] == pytest.approx(finite.mean(), rel=1e-9, abs=1e-6)
            assert feature["std"] == pytest.approx(finite.std(), rel=1e-6, abs=1e-6)
        edges = [-math.inf, *bounds, math.inf]
        binned = [int(((present > low) & (present <= high)).sum()) for low, high in itertools.pairwise(edges)]
        binned[0] += int((present == -math.inf).sum())
        assert feature["counts"] == binned


def test_a_large_input_is_worked_on_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.random.default_rng(1).normal(size=(1000, 3))
    whole, pieces = Features(3), Features(3)
    whole.add(rows)
    monkeypatch.setattr(feature_stats, "_PIECE", 3 * 300)
    pieces.add(rows)
    for one, other in zip(whole.report()["features"], pieces.report()["features"], strict=True):
        assert one["mean"] == pytest.approx(other["mean"])
        assert sum(other["counts"]) == 1000
        # The bounds are those of the first rows, however many more came with them.
        assert other["bounds"] == pytest.approx(np.quantile(rows[:300, int(one["name"])], np.linspace(0.1, 0.9, 9)))


def test_labels_are_counted_and_strings_and_odd_shapes_left_out(follow: Callable[[], App], tmp_path: Path) -> None:
    identity(tmp_path / "m" / "1" / "model.onnx")
    ask = asker(follow())
    values: dict[str, Any] = {"BOOL": [True, False, True], "BYTES": ["cat", "dog", "cat"]}
    names = ("BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64")
    sent = [
        {"name": f"in_{name}", "shape": [3], "datatype": name, "data": values.get(name, [1, 2, 1])}
        for name in (*names, "BYTES")
    ]
    assert ask(INFER, {"inputs": sent})[0] == 200
    found = drift(ask)
    assert found["rows"] == 3
    assert found["left_out"] == {"in_BYTES": "strings are not followed"}
    assert set(found["inputs"]) == {f"in_{name}" for name in names}
    for name in names[1:]:
        (feature,) = found["inputs"][f"in_{name}"]["features"]
        assert (feature["count"], feature["mean"]) == (3, pytest.approx(4 / 3))
    assert found["inputs"]["in_BOOL"]["features"][0]["mean"] == pytest.approx(2 / 3)
    assert found["outputs"]["out_BYTES"] == {"labels": {"cat": 2, "dog": 1}, "others": 0}
    assert found["outputs"]["out_INT64"] == {"labels": {"1": 2, "2": 1}, "others": 0}
    assert found["outputs"]["out_BOOL"] == {"labels": {"True": 2, "False": 1}, "others": 0}
    assert found["outputs"]["out_FP16"]["features"][0]["max"] == 2


def test_tensors_that_are_no_features_are_left_out(tmp_path: Path) -> None:
    inputs = {
        "image": TensorSpec("image", BY_NAME["UINT8"], (-1, 3, 32, 32)),
        "tokens": TensorSpec("tokens", BY_NAME["INT64"], (-1, -1)),
        "nothing": TensorSpec("nothing", BY_NAME["FP32"], (-1, 0)),
        "row": TensorSpec("row", BY_NAME["FP32"], (4,)),
        "number": TensorSpec("number", BY_NAME["FP32"], ()),
    }
    found = InputStatistics(inputs, {}, tmp_path, lambda _: None)
    feed = {
        "image": np.zeros((2, 3, 32, 32), np.uint8),
        "tokens": np.zeros((1, 7), np.int64),
        "nothing": np.zeros((5, 0), np.float32),
        "row": np.arange(4, dtype=np.float32),
        "number": np.array(3, np.float32),
    }
    for _ in range(2):
        found.add(feed, [], [])
    report = found.report()
    assert set(report["left_out"]) == {"image", "tokens", "nothing"}
    assert "3072 elements" in report["left_out"]["image"]
    assert [each["mean"] for each in report["inputs"]["row"]["features"]] == [0, 1, 2, 3]
    assert report["inputs"]["number"]["features"][0]["count"] == report["rows"] == 2


def test_labels_beyond_the_most_are_others() -> None:
    labels = Labels()
    labels.add(np.arange(1500))
    labels.add(np.array([0, 0, 1499]))
    found = labels.report()
    assert len(found["labels"]) == 1000
    assert (found["labels"]["0"], found["others"]) == (3, 501)


def test_the_answer_on_known_data_is_a_reference_for_later(follow: Callable[[], App], tmp_path: Path) -> None:
    folder = tmp_path / "m" / "1"
    affine(folder / "model.onnx")
    source = np.random.default_rng(2)
    known = source.normal(size=(2000, 3))
    ask = asker(follow())
    send(ask, known)
    answer = drift(ask)
    answer["inputs"]["x"]["features"][0]["name"] = "age"
    (folder / "reference.json").write_text(json.dumps(answer))

    ask = asker(follow())
    assert "psi" not in drift(ask)["inputs"]["x"]["features"][0]
    send(ask, source.normal([0, 3, 0], size=(2000, 3)))
    same, moved, also = drift(ask)["inputs"]["x"]["features"]
    assert [each["name"] for each in (same, moved, also)] == ["age", "1", "2"]
    assert same["bounds"] == answer["inputs"]["x"]["features"][0]["bounds"]
    assert same["psi"] < 0.02
    assert also["psi"] < 0.02
    assert moved["psi"] > 1


def test_labels_have_a_reference_too(tmp_path: Path) -> None:
    label = TensorSpec("label", BY_NAME["INT64"], (-1,))
    (tmp_path / "reference.json").write_text('{"outputs": {"label": {"labels": {"0": 50, "1": 50}}}}')
    found = InputStatistics({"x": X}, {"label": label}, tmp_path, lambda _: None)
    found.add({"x": np.zeros((10, 3), np.float32)}, ["label"], [np.array([0] * 5 + [1] * 5)])
    assert found.report()["outputs"]["label"]["psi"] == 0
    found.add({"x": np.zeros((10, 3), np.float32)}, ["label"], [np.full(10, 2)])
    assert found.report()["outputs"]["label"]["psi"] > 1


def test_the_stability_index_is_that_of_its_definition() -> None:
    assert stability([50, 50], [5, 5]) == 0
    expected = (0.6 - 0.5) * math.log(0.6 / 0.5) + (0.4 - 0.5) * math.log(0.4 / 0.5)
    assert stability([50, 50], [6, 4]) == pytest.approx(expected)
    assert stability([0, 0], [1, 2]) is None
    assert stability([1, 2], [0, 0]) is None
    assert math.isfinite(stability([1, 0], [0, 1]) or math.nan)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("nonsense", "malformed"),
        ({"inputs": {"z": {}}}, "tells of 'z'"),
        ({"inputs": {"x": {"features": [{"bounds": [1]}]}}}, "3 features, and 1"),
        ({"inputs": {"x": {"features": [{"bounds": [1, 1]}] * 3}}}, "do not rise"),
        ({"inputs": {"x": {"features": [{"counts": [1]}] * 3}}}, "no bounds"),
        ({"inputs": {"x": {"features": [{"bounds": [1], "counts": [1, 2, 3]}] * 3}}}, "takes 2 counts"),
        ({"inputs": {"x": {"features": [{"bounds": [1], "counts": [1, -1]}] * 3}}}, "takes 2 counts"),
    ],
)
def test_a_reference_that_is_not_usable_is_named(tmp_path: Path, content: Any, words: str) -> None:
    path = tmp_path / "reference.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(ServerError, match=words) as caught:
        InputStatistics({"x": X}, {"y": Y}, tmp_path, lambda _: None)
    assert str(path) in caught.value.message


def test_of_more_than_fits_a_uniform_sample_is_seen(tmp_path: Path) -> None:
    found = InputStatistics({"x": X}, {"y": Y}, tmp_path, lambda _: None)
    for number in range(20_000):
        found.add({"x": np.full((1, 3), number, np.float32)}, ["y"], [np.full((1, 1), number, np.float32)])
    report = found.report()
    assert (report["rows"], report["rows_seen"]) == (20_000, 1024)
    feature = report["inputs"]["x"]["features"][0]
    # Six standard errors of the mean of 1024 draws from 0 ... 19999.
    assert feature["mean"] == pytest.approx(10_000, abs=6 * 20_000 / math.sqrt(12 * 1024))
    assert feature["max"] > 19_000
    assert feature["min"] < 1_000


def test_long_requests_are_held_in_part_and_never_more_than_the_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(input_stats, "_HELD_BYTES", 1 << 20)
    found = InputStatistics({"x": X}, {}, tmp_path, lambda _: None)
    rows = np.arange(300_000, dtype=np.float32).reshape(-1, 3)
    for _ in range(200):
        found.add({"x": rows[:2]}, [], [])
        found.add({"x": rows}, [], [])
        assert found._held_bytes == sum(each.size for each in found._held) <= (1 << 20) + (64 << 10)
    report = found.report()
    assert report["rows"] == 200 * 100_002
    assert 0 < report["rows_seen"] < report["rows"]
    feature = report["inputs"]["x"]["features"][0]
    # Every so many rows of all, not the first ones.
    assert feature["max"] > 290_000
    assert found._held_bytes == 0


def test_a_thread_absorbs_what_is_held_without_being_asked(tmp_path: Path) -> None:
    done = threading.Event()

    class Watched(InputStatistics):
        def absorb(self) -> None:
            super().absorb()
            done.set()

    with absorbing() as work:
        found = Watched({"x": X}, {}, tmp_path, work)
        for _ in range(2):
            done.clear()
            found.add({"x": np.zeros((1, 3), np.float32)}, [], [])
            assert done.wait(30)
    assert found._rows_seen == 2


def test_answers_from_the_cache_are_followed_too(follow: Callable[[], App], tmp_path: Path) -> None:
    affine(tmp_path / "m" / "1" / "model.onnx")
    app = follow()
    app.cache = ResponseCache(1 << 20)
    ask = asker(app)
    for _ in range(3):
        send(ask, [[1, 2, 3]])
    assert drift(ask)["rows_seen"] == 3
    (batcher,) = app.repository
    assert batcher.meter.cache_hits == 2


def test_a_request_for_some_outputs_counts_for_those(follow: Callable[[], App], tmp_path: Path) -> None:
    affine(tmp_path / "m" / "1" / "model.onnx")
    ask = asker(follow())
    send(ask, [[1, 2, 3]], outputs=[{"name": "total"}])
    found = drift(ask)
    assert found["outputs"]["total"]["features"][0]["count"] == 1
    assert found["outputs"]["double"]["features"][0]["count"] == 0


def test_an_output_that_is_an_input_is_counted_once(follow: Callable[[], App], tmp_path: Path) -> None:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3]) for name in ("x", "y"))
    write_model(tmp_path / "m" / "1" / "model.onnx", [helper.make_node("Neg", ["x"], ["y"])], [x], [y, x])
    ask = asker(follow())
    send(ask, [[1, 2, 3]])
    found = drift(ask)
    for tensors in (found["inputs"], found["outputs"]):
        assert [each["count"] for each in tensors["x"]["features"]] == [1, 1, 1]


def test_a_refused_request_does_not_count(follow: Callable[[], App], tmp_path: Path) -> None:
    write_model(
        tmp_path / "m" / "1" / "model.onnx",
        [helper.make_node("Gather", ["x", "x"], ["y"])],
        [helper.make_tensor_value_info("x", TensorProto.INT64, ["n"])],
        [helper.make_tensor_value_info("y", TensorProto.INT64, ["n"])],
    )
    ask = asker(follow())
    assert ask(INFER, {"inputs": [tensor("x", [9, 9], "INT64")]})[0] == 400
    assert drift(ask)["rows"] == 0
    assert ask(INFER, {"inputs": [tensor("x", [1, 0], "INT64")]})[0] == 200
    assert drift(ask)["rows"] == 2


def test_a_server_follows_where_it_is_told_to(tmp_path: Path) -> None:
    affine(tmp_path / "m" / "1" / "model.onnx")
    affine(tmp_path / "m" / "2" / "model.onnx")
    body = json.dumps({"inputs": [tensor("x", [[1, 2, 3]])]}).encode()
    with running(tmp_path, WORKBENCH_INPUT_STATS="1") as server:
        urllib.request.urlopen(server.url + INFER, body, timeout=30).close()
        for path, rows in (("m/drift", [0, 1]), ("m/versions/2/drift", [1]), ("drift", [0, 1])):
            with urllib.request.urlopen(f"{server.url}/v2/models/{path}", timeout=30) as answer:
                assert [each["rows"] for each in json.load(answer)["model_drift"]] == rows


def test_where_inputs_are_not_followed_the_address_says_how(ask: Ask) -> None:
    status, answer = ask("/v2/models/affine/drift")
    assert status == 404
    assert "WORKBENCH_INPUT_STATS=1" in answer["error"]
