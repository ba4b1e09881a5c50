"""Queries from an evaluation file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from workbench.bench.samples import Input, feeds, request_bodies
from workbench.errors import UsageError


def npz(path: Path, **arrays: object) -> Path:
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return path


def test_a_sample_is_a_query(tmp_path: Path) -> None:
    data = np.arange(12, dtype=np.float32).reshape(4, 3)
    inputs = [Input("a", "FP32", (-1, 3)), Input("b", "INT64", (1,))]
    path = npz(tmp_path / "e.npz", a=data, b=np.arange(4), y=np.arange(4))
    queries = feeds(path, inputs)
    assert [query["a"].tolist() for query in queries] == [[row] for row in data.tolist()]
    assert [query["b"].tolist() for query in queries] == [[0], [1], [2], [3]]
    assert len(feeds(path, inputs, limit=2)) == 2


def test_a_fixed_batch_takes_as_many_samples(tmp_path: Path) -> None:
    path = npz(tmp_path / "e.npz", a=np.arange(3))
    assert [query["a"].tolist() for query in feeds(path, [Input("a", "INT64", (2,))])] == [[0, 1], [1, 2], [2, 0]]


def test_an_input_without_an_axis_for_samples_takes_the_sample(tmp_path: Path) -> None:
    path = npz(tmp_path / "e.npz", a=np.arange(3), b=np.ones((3, 4)))
    query = feeds(path, [Input("a", "INT64", ()), Input("b", "FP64", (4,))])[1]
    assert query["a"].shape == ()
    assert query["a"] == 1
    assert query["b"].shape == (4,)


def test_texts_become_objects_as_onnxruntime_takes_them(tmp_path: Path) -> None:
    path = npz(tmp_path / "e.npz", a=np.array(["x", "yy"]))
    query = feeds(path, [Input("a", "BYTES", (-1,))])[1]
    assert query["a"].dtype == object
    assert json.loads(request_bodies([query], [Input("a", "BYTES", (-1,))])[0])["inputs"][0]["data"] == ["yy"]


def test_a_request_carries_the_exact_values(tmp_path: Path) -> None:
    data = np.float32([[0.1, 1e-45, -0.0]])
    inputs = [Input("a", "FP32", (-1, 3))]
    (body,) = request_bodies(feeds(npz(tmp_path / "e.npz", a=data), inputs), inputs)
    (tensor,) = json.loads(body)["inputs"]
    assert {key: tensor[key] for key in ("name", "shape", "datatype")} == {
        "name": "a",
        "shape": [1, 3],
        "datatype": "FP32",
    }
    assert np.float32([tensor["data"]]).tobytes() == data.tobytes()


@pytest.mark.parametrize("arrays", [{"b": np.ones(3)}, {"a": np.array([None])}, {"a": np.ones((0, 3))}])
def test_a_file_that_does_not_fit_is_named(tmp_path: Path, arrays: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=r"e\.npz"):
        feeds(npz(tmp_path / "e.npz", **arrays), [Input("a", "FP64", (-1,))])


def test_a_file_that_is_no_npz_is_named(tmp_path: Path) -> None:
    (tmp_path / "e.npz").write_bytes(b"PK\3\4 and nothing more")
    with pytest.raises(UsageError, match=r"e\.npz"):
        feeds(tmp_path / "e.npz", [Input("a", "FP64", (-1,))])
