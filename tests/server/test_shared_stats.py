"""Workers tell each other the statistics of inputs: the sum is what one that saw all requests would know."""

from __future__ import annotations

import asyncio
import functools
import json
import math
import multiprocessing
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from server_models import affine
from server_process import Process, running

from workbench.server import feature_stats, shared
from workbench.server.datatypes import BY_NAME
from workbench.server.feature_stats import Bounds, Features, Labels
from workbench.server.input_stats import InputStatistics, Numbers
from workbench.server.shared import Board, Named
from workbench.server.shared_stats import Agreement, SharedStatistics, StatisticsBoard
from workbench.server.tensors import TensorSpec

Array = Any
INPUTS = {"x": TensorSpec("x", BY_NAME["FP64"], (-1, 2))}
OUTPUTS = {
    "score": TensorSpec("score", BY_NAME["FP64"], (-1, 1)),
    "label": TensorSpec("label", BY_NAME["INT64"], (-1,)),
}
ROWS = hnp.arrays(
    np.float64,
    st.tuples(st.integers(1, 40), st.just(3)),
    elements=st.floats(-1e6, 1e6, width=32) | st.sampled_from([math.nan, math.inf, -math.inf]),
)


def statistics(folder: Path) -> InputStatistics:
    return InputStatistics(INPUTS, OUTPUTS, folder, lambda _: None)


def add(to: InputStatistics, rows: Array) -> None:
    """A request whose score is its third column, and its label the sign of that."""
    score = rows[:, 2:]
    to.add({"x": rows[:, :2]}, ["score", "label"], [score, np.sign(np.nan_to_num(score[:, 0])).astype(np.int64)])


def same(one: Any, other: Any) -> None:
    """Equal but for the last digits of means and what follows from them."""
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key, value in one.items():
            if key in ("mean", "std") and value is not None:
                assert value == pytest.approx(other[key], rel=1e-6, abs=1e-4)
            else:
                same(value, other[key])
    elif isinstance(one, list):
        assert len(one) == len(other)
        for each, its in zip(one, other, strict=True):
            same(each, its)
    else:
        assert one == other


@pytest.fixture
def referenced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a reference for two of the tensors; bounds of the third are settled after 20 rows."""
    folder = tmp_path_factory.mktemp("referenced")
    features = [{"name": "a", "bounds": [-5.0, 0.0], "counts": [1, 2, 3]}, {"bounds": [3.0]}]
    labels = {"labels": {"0": 5, "7": 1}}
    (folder / "reference.json").write_text(
        json.dumps({"inputs": {"x": {"features": features}}, "outputs": {"label": labels}})
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(feature_stats, "_FIRST_ROWS", 20)
        yield folder


@given(st.lists(st.tuples(st.integers(0, 2), ROWS), max_size=8))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_sum_is_what_one_that_saw_all_would_tell(referenced: Path, sent: list[tuple[int, Array]]) -> None:
    agreement = Agreement()
    workers = [statistics(referenced) for _ in range(3)]
    for each in workers:
        each.agree_by(functools.partial(agreement.settle, "m", "1"))
    for worker, rows in sent:
        add(workers[worker], rows)
        workers[worker].absorb()
    told = [each.told() for each in workers[1:]]
    found = workers[0].report(told)
    # Where nothing gives bounds, those that the workers settled are given to the one that saw all.
    whole = statistics(referenced)
    bounds = found["outputs"]["score"]["features"][0].get("bounds")
    whole.agree_by(lambda *_: bounds if bounds is None else [bounds])
    for _, rows in sent:
        add(whole, rows)
    same(whole.report(), found)
    assert found["rows"] == sum(len(rows) for _, rows in sent)
    if any(sum(len(rows) for each, rows in sent if each == worker) >= 20 for worker in range(3)):
        assert bounds is not None


def test_a_successor_goes_on_from_what_was_told(tmp_path: Path) -> None:
    source = np.random.default_rng(0)
    first, then = source.normal(size=(300, 3)), source.normal(size=(500, 3))
    before, after, whole = (statistics(tmp_path) for _ in range(3))
    add(before, first)
    after.join(before.told())
    add(after, then)
    for rows in (first, then):
        add(whole, rows)
        whole.absorb()
    same(whole.report(), after.report())


def test_numbers_of_another_model_are_left_out() -> None:
    rows = np.arange(12.0).reshape(-1, 2)
    features, other = Features(2), Features(3)
    features.add(rows)
    other.add(rows.reshape(-1, 3))
    before = features.report()
    features.join(other.told())
    assert features.report() == before


def test_labels_of_all_are_counted_apart_up_to_the_most() -> None:
    one, other = Labels(), Labels()
    one.add(np.arange(900))
    other.add(np.arange(500, 1700))
    found = one.joined([other.told()]).report()
    assert len(found["labels"]) == 1000
    assert sum(found["labels"].values()) + found["others"] == 900 + 1200
    assert found["labels"]["700"] == 2


def test_a_histogram_over_other_bounds_is_left_out() -> None:
    one, other = Features(1), Features(1)
    one.add(np.arange(300.0).reshape(-1, 1))
    other.add(np.arange(500.0).reshape(-1, 1))
    (found,) = one.joined([other.told()]).report()["features"]
    assert found["count"] == 800
    assert found["max"] == 499
    assert found["counts"] == one.report()["features"][0]["counts"]


def test_the_first_that_knows_bounds_sets_them_for_all_processes() -> None:
    agreement = Agreement()
    settle = functools.partial(agreement.settle, "m", "1", "x", 1)
    assert settle(None) is None
    context = multiprocessing.get_context("fork")
    with context.Pool(4, initializer=_inherit, initargs=(agreement,)) as pool:
        found = pool.map(_settle, [[[float(number)]] for number in range(32)])
    assert len({json.dumps(each) for each in found}) == 1
    assert settle(None) == found[0]
    assert settle([[99.0]]) == found[0]
    assert agreement.settle("m", "2", "x", 1, [[7.0]]) == [[7.0]]


def test_one_that_told_before_bounds_were_set_tells_again(tmp_path: Path) -> None:
    told = threading.Event()

    class Few(InputStatistics):
        def told(self) -> Numbers:
            found = super().told()
            told.set()
            return found

    class Many(InputStatistics):
        def told(self) -> Numbers:
            assert told.wait(30)
            return super().told()

    board = StatisticsBoard(2)
    many, few = (kind(INPUTS, OUTPUTS, tmp_path, lambda _: None) for kind in (Many, Few))

    async def scene() -> dict[Any, list[Numbers]]:
        workers = [
            SharedStatistics(board, number, [SimpleNamespace(model=Named("m", "1"), statistics=each)])  # type: ignore[list-item]
            for number, each in enumerate((many, few))
        ]
        workers[1].listen(asyncio.get_running_loop())
        add(many, np.zeros((300, 3)))
        add(few, np.ones((10, 3)))
        return await workers[0].others()

    found = many.report(asyncio.run(scene())["m", "1"])
    assert found["rows"] == 310
    assert [sum(each["counts"]) for each in found["inputs"]["x"]["features"]] == [310, 310]


def _inherit(agreement: Agreement) -> None:
    global _inherited
    _inherited = agreement


def _settle(bounds: Bounds) -> Bounds | None:
    return _inherited.settle("m", "1", "x", 1, bounds)


def test_what_is_written_before_one_is_asked_or_half_is_not_taken() -> None:
    """A worker that writes as it is asked writes once more; what it had begun is from before the question."""
    board = Board(2)
    board.write(1, b"old")
    begin, end = shared._HEAD.pack(3, 7, 3), shared._HEAD.pack(4, 7, 3)

    async def scene() -> list[tuple[int, bytes]]:
        _put(board, begin)
        asked = asyncio.create_task(board.ask(0, 30))
        for state in (end, shared._HEAD.pack(5, 7, 3)):
            for _ in range(3):
                await asyncio.sleep(0)
            _put(board, state)
        await asyncio.wait([asked], timeout=0.01)
        assert not asked.done()
        board.write(1, b"new")
        return await asked

    ((_, data),) = asyncio.run(scene())
    assert data == b"new"


def _put(board: Board, head: bytes) -> None:
    board._memory[shared.SLOT : shared.SLOT + len(head)] = head


def infer(server: Process, rows: list[list[float]]) -> None:
    body = {"inputs": [{"name": "x", "shape": [len(rows), 3], "datatype": "FP32", "data": rows}]}
    request = urllib.request.Request(f"{server.url}/v2/models/m/infer", json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert answer.status == 200


def drift(server: Process) -> Any:
    with urllib.request.urlopen(f"{server.url}/v2/models/m/drift", timeout=30) as answer:
        return json.load(answer)["model_drift"][0]


def test_every_worker_tells_what_all_were_asked(tmp_path: Path) -> None:
    affine(tmp_path / "m" / "1" / "model.onnx")
    with running(tmp_path, WORKBENCH_WORKERS="2", WORKBENCH_INPUT_STATS="1") as server:
        for number in range(30):
            infer(server, [[number, 0, 0]] * 20)
        for _ in range(6):  # whoever answers
            found = drift(server)
            assert found["rows"] == 600
            feature = found["inputs"]["x"]["features"][0]
            assert (feature["count"], feature["min"], feature["max"]) == (600, 0, 29)
            assert feature["mean"] == pytest.approx(14.5)
            assert sum(feature["counts"]) == 600
            assert found["outputs"]["double"]["features"][0]["max"] == 58


def test_what_a_worker_told_outlives_it(tmp_path: Path) -> None:
    affine(tmp_path / "m" / "1" / "model.onnx")
    with running(tmp_path, WORKBENCH_WORKERS="2", WORKBENCH_INPUT_STATS="1") as server:
        for number in range(20):
            infer(server, [[number, 0, 0]])
        assert drift(server)["rows"] == 20
        for worker in psutil.Process(server.process.pid).children():
            worker.kill()
            worker.wait(30)
        assert drift(server)["rows"] == 20
        infer(server, [[100, 0, 0]])
        found = drift(server)
        assert (found["rows"], found["inputs"]["x"]["features"][0]["max"]) == (21, 100)
