"""Which models join the rows of requests, and how many: what was measured of them says it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from batching import Feed, row, run
from onnx import TensorProto, helper, numpy_helper
from server_models import affine, write_model

from workbench.server import model as model_module
from workbench.server.batcher import Batcher, Limits
from workbench.server.meter import Meter
from workbench.server.model import Model
from workbench.server.tensors import Array


def _tensors(*tensors: tuple[str, int, list[Any]]) -> list[Any]:
    return [helper.make_tensor_value_info(*each) for each in tensors]


def _softmax(path: Path) -> Path:
    inputs, outputs = ("x", TensorProto.FLOAT, ["n", 3]), ("y", TensorProto.FLOAT, ["n", 3])
    return write_model(path, [helper.make_node("Softmax", ["x"], ["y"], axis=0)], _tensors(inputs), _tensors(outputs))


def _from_the_mean(path: Path) -> Path:
    nodes = [
        helper.make_node("Cast", ["tokens"], ["x"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[0]),
        helper.make_node("Sub", ["x", "mean"], ["y"]),
    ]
    inputs, outputs = ("tokens", TensorProto.INT64, ["length"]), ("y", TensorProto.FLOAT, ["length"])
    return write_model(path, nodes, _tensors(inputs), _tensors(outputs))


def _times_the_sum(path: Path) -> Path:
    nodes = [
        helper.make_node("ReduceSum", ["tokens"], ["sum"]),
        helper.make_node("Mul", ["tokens", "sum"], ["y"]),
    ]
    inputs, outputs = ("tokens", TensorProto.INT64, ["length"]), ("y", TensorProto.INT64, ["length"])
    return write_model(path, nodes, _tensors(inputs), _tensors(outputs))


def _sorted(path: Path, largest: int) -> Path:
    nodes = [
        helper.make_node("Shape", ["x"], ["count"]),
        helper.make_node("TopK", ["x", "count"], ["y", "places"], axis=0, largest=largest),
    ]
    return write_model(
        path, nodes, _tensors(("x", TensorProto.FLOAT, ["n"])), _tensors(("y", TensorProto.FLOAT, ["n"]))
    )


def _nearest(path: Path, *before: str) -> Path:
    """How far it is from each of the queries to the nearest of the places, which are others' too."""
    nodes = [
        helper.make_node("Unsqueeze", ["query", "second"], ["queries"]),
        helper.make_node("Unsqueeze", ["place", "first"], ["places"]),
        helper.make_node("Sub", ["queries", "places"], ["way"]),
        helper.make_node("ReduceL2", ["way"], ["ways"], axes=[2], keepdims=0),
        helper.make_node("ReduceMin", ["ways"], ["y"], axes=[1], keepdims=0),
        *[helper.make_node("Identity", [name], [f"{name}_too"]) for name in before],
    ]
    names = ["query", *before, "place"]
    weights = [numpy_helper.from_array(np.array([at], np.int64), name) for at, name in enumerate(("first", "second"))]
    return write_model(
        path,
        nodes,
        _tensors(*[(name, TensorProto.FLOAT, [f"of_{name}", 3]) for name in names]),
        _tensors(("y", TensorProto.FLOAT, ["n"]), *[(f"{name}_too", TensorProto.FLOAT, ["n", 3]) for name in before]),
        weights,
    )


@pytest.mark.parametrize(
    "write",
    [
        pytest.param(_softmax, id="a softmax over them"),
        pytest.param(_from_the_mean, id="their mean is taken away"),
        pytest.param(_times_the_sum, id="their sum multiplies them"),
        pytest.param(lambda path: _sorted(path, 1), id="sorted down"),
        pytest.param(lambda path: _sorted(path, 0), id="sorted up"),
        pytest.param(_nearest, id="the nearest of another input"),
        pytest.param(lambda path: _nearest(path, "more"), id="the nearest of another input but one"),
    ],
)
def test_rows_that_touch_each_other_are_never_joined(tmp_path: Path, write: Callable[[Path], Path]) -> None:
    """That an axis is dynamic does not say that it counts rows: it may be a sequence, or mix them otherwise."""
    model = Model("m", "1", write(tmp_path / "m.onnx"), 1)
    model.warm_up(64)
    assert model.joins == 1
    assert model.max_batch == 0


def test_rows_of_several_inputs_join_where_they_do_not_touch(tmp_path: Path) -> None:
    names = ["a", "b", "c", "d", "e"]
    nodes = [helper.make_node("Concat", names, ["y"], axis=1)]
    inputs, output = [(name, TensorProto.INT64, ["n", 2]) for name in names], ("y", TensorProto.INT64, ["n", 10])
    model = Model("m", "1", write_model(tmp_path / "m.onnx", nodes, _tensors(*inputs), _tensors(output)), 1)
    assert model.has_rows()


def test_a_model_that_takes_only_so_many_rows_joins_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be memory that is short. That more were tried keeps nobody from starting."""
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "first"], ["rows"]),
        helper.make_node("Gather", ["table", "rows"], ["nothing"]),
        helper.make_node("Add", ["x", "nothing"], ["y"]),
    ]
    weights = [numpy_helper.from_array(np.zeros(9, np.float32), "table"), numpy_helper.from_array(np.array(0), "first")]
    inputs, outputs = ("x", TensorProto.FLOAT, ["n", 3]), ("y", TensorProto.FLOAT, ["n", 3])
    path = write_model(tmp_path / "m.onnx", nodes, _tensors(inputs), _tensors(outputs), weights)
    monkeypatch.setattr(Model, "_timed", lambda self, feed: (self.run(feed, list(self.outputs)), 0.001))
    model = Model("m", "1", path, 1)
    assert model.warm_up(64) == ""
    assert model.joins == model.max_batch == 8


@pytest.fixture
def costs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Model, list[int]]]:
    """Makes a model whose runs are said to take ``cost(rows)`` seconds, and the list of rows of its runs."""

    def made(cost: Callable[[int], float]) -> tuple[Model, list[int]]:
        tried: list[int] = []

        def timed(self: Model, feed: Feed) -> tuple[list[Array], float]:
            tried.append(len(feed["x"]))
            return self.run(feed, list(self.outputs)), cost(tried[-1])

        monkeypatch.setattr(model_module.Model, "_timed", timed)
        return Model("m", "1", affine(tmp_path / "m.onnx"), 1), tried

    return made


@pytest.mark.parametrize(
    ("cost", "joins"),
    [
        pytest.param(lambda rows: 0.0002 * rows, 1, id="a row costs the same in any company"),
        pytest.param(lambda rows: 0.001, 64, id="a run costs the same with any number of rows"),
        pytest.param(lambda rows: max(0.001, 0.0005 * rows), 2, id="two rows are free, no more"),
    ],
)
def test_how_many_rows_join_is_what_was_measured(costs: Any, cost: Callable[[int], float], joins: int) -> None:
    model, _ = costs(cost)
    model.warm_up(64)
    assert model.joins == model.most_joins == joins


def test_where_more_rows_gain_nothing_no_more_are_tried(costs: Any) -> None:
    model, tried = costs(lambda rows: 0.0001 * rows)
    model.warm_up(64)
    assert max(tried) == 4
    assert model.joins == 1


def test_a_slow_model_is_ready_after_one_run_and_tries_the_rest_after_its_first_answer(
    costs: Any, pool: ThreadPoolExecutor
) -> None:
    model, tried = costs(lambda rows: 0.02)
    model.warm_up(64)
    assert tried == [1]
    assert model.undecided
    batcher = Batcher(model, Limits(), pool, Meter())

    async def work() -> list[list[Array]]:
        other: Feed = row(2, 3)
        return await asyncio.gather(
            *[batcher.infer(each, [name]) for each, name in ((row(1), "double"), (other, "total"), (row(3), "double"))]
        )

    found = run(work())
    assert [each[0].shape[0] for each in found] == [1, 3, 1]
    assert not model.undecided
    assert sum(tried) == 1 + 1 + 1 + 2 + 3
    assert model.joins < model.most_joins == 64


def test_where_the_try_fails_nobody_joins_and_the_log_says_why(
    make: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model, batcher = make(joins=1)
    model.undecided = True
    monkeypatch.setattr(model, "decide", lambda: {}["no such thing"])

    async def work() -> None:
        await batcher.infer(row(1), ["double"])
        await batcher.infer(row(1), ["double"])

    run(work())
    assert not model.undecided
    assert "no such thing" in caplog.text


@pytest.mark.parametrize(
    ("cost", "joins"),
    [
        pytest.param(lambda rows: 0.02 * rows, 1, id="a row costs the same in any company"),
        pytest.param(lambda rows: 0.02, 64, id="a run costs the same with any number of rows"),
        pytest.param(lambda rows: max(0.02, 0.0025 * rows), 8, id="eight rows are free, no more"),
    ],
)
def test_a_slow_model_learns_in_service_how_many_rows_to_join(
    costs: Any, cost: Callable[[int], float], joins: int
) -> None:
    model, _ = costs(cost)
    model.warm_up(64)
    model.decide()
    seen = [model.joins]
    while model.joins < model.most_joins:
        model.ran(1, cost(1))  # of those that are far from full nothing is learnt
        model.ran(model.joins, cost(model.joins))
        seen.append(model.joins)
    assert model.joins == joins
    assert len(seen) < 20
