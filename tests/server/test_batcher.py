"""Concurrent requests join into one run; what one of them does wrong is its own affair."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from batching import Feed, row, run
from onnx import TensorProto, helper, numpy_helper
from server_models import lookup, write_model

from workbench.server import batcher as batcher_module
from workbench.server.errors import RequestError
from workbench.server.tensors import Array


def test_what_arrives_together_is_one_run_and_each_gets_its_own(make: Any) -> None:
    model, batcher = make()

    async def work() -> Any:
        return await asyncio.gather(*[batcher.infer(row(each, each), ["double"]) for each in (1, 2, 3)])

    for value, (found,) in zip((1, 2, 3), run(work()), strict=True):
        assert np.array_equal(found, np.full((value, 3), 2 * value))
    assert model.rows == [6]
    meter = batcher.meter
    assert (meter.answered, meter.rows, meter.joined.total, meter.waiting) == (3, 6, 6, 0)
    assert (meter.queue.count, meter.compute.count) == (3, 1)


@pytest.mark.parametrize(("in_flight", "rows"), [(3, [3]), (4, [])])
def test_a_run_begins_once_all_that_the_server_has_taken_wait_for_it(
    make: Any, in_flight: int, rows: list[int]
) -> None:
    model, batcher = make()

    async def work() -> None:
        asked = [asyncio.create_task(batcher.infer(row(1), ["double"], in_flight=in_flight)) for _ in range(3)]
        await asyncio.sleep(0)
        assert model.rows == rows  # the other one may still come in the next turn of the loop
        await asyncio.gather(*asked)

    run(work())
    assert model.rows == [3]


def test_a_run_has_no_more_rows_than_it_may(make: Any) -> None:
    model, batcher = make(rows=4)

    async def work() -> None:
        await asyncio.gather(*[batcher.infer(row(1, each), ["double"]) for each in (1, 2, 3, 9)])

    run(work())
    assert model.rows == [3, 3, 9]  # one that is too large by itself runs by itself


def test_where_joining_gains_nothing_nobody_waits_for_others(make: Any) -> None:
    model, batcher = make(joins=1)

    async def work() -> None:
        await asyncio.gather(*[batcher.infer(row(1), ["double"]) for _ in range(3)])

    run(work())
    assert model.rows == [1, 1, 1]


@pytest.mark.parametrize(("moment", "runs"), [(60.0, [3, 3, 3]), (0.0, [1, 2, 3])])
def test_runs_of_a_quick_model_follow_on_each_other_for_a_moment_before_they_are_answered(
    make: Any, monkeypatch: pytest.MonkeyPatch, moment: float, runs: list[int]
) -> None:
    monkeypatch.setattr(batcher_module, "TURN", moment)
    model, batcher = make(joins=1)
    had_run = []

    async def work() -> None:
        all_there = asyncio.Event()

        def answered(outcome: Any) -> None:
            assert not isinstance(outcome, RequestError)
            had_run.append(len(model.rows))
            if len(had_run) == len(runs):
                all_there.set()

        for _ in runs:
            batcher.submit(row(1), ["double"], answered)
        await all_there.wait()

    run(work())
    assert had_run == runs


def test_other_outputs_and_other_shapes_do_not_mix(make: Any, tmp_path: Path) -> None:
    wide = write_model(
        tmp_path / "wide.onnx",
        [helper.make_node("Neg", ["x"], ["y"]), helper.make_node("Abs", ["x"], ["z"])],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", "m"])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", "m"]) for name in "yz"],
    )
    model, batcher = make(wide)
    feeds = [({"x": np.ones((1, width), np.float32)}, out) for width, out in ((2, "y"), (3, "y"), (2, "z"), (2, "y"))]

    async def work() -> Any:
        return await asyncio.gather(*[batcher.infer(feed, [out]) for feed, out in feeds])

    found = run(work())
    assert sorted(model.rows) == [1, 1, 2]
    for (feed, out), (result,) in zip(feeds, found, strict=True):
        assert np.array_equal(result, feed["x"] * (-1 if out == "y" else 1))


def test_one_that_the_model_refuses_does_not_fail_its_neighbours(make: Any, tmp_path: Path) -> None:
    lookup = write_model(
        tmp_path / "lookup.onnx",
        [helper.make_node("Gather", ["table", "index"], ["row"])],
        [helper.make_tensor_value_info("index", TensorProto.INT64, ["n"])],
        [helper.make_tensor_value_info("row", TensorProto.FLOAT, ["n", 2])],
        [numpy_helper.from_array(np.arange(8, dtype=np.float32).reshape(4, 2), "table")],
    )
    model, batcher = make(lookup)

    async def work() -> Any:
        asked = [batcher.infer({"index": np.array([index])}, ["row"]) for index in (1, 99, 3)]
        return await asyncio.gather(*asked, return_exceptions=True)

    first, refused, third = run(work())
    assert first[0].tolist() == [[2, 3]]
    assert third[0].tolist() == [[6, 7]]
    assert isinstance(refused, RequestError)
    assert refused.status == 400
    assert model.rows == [3, 1, 1, 1]
    assert (batcher.meter.answered, batcher.meter.failed) == (2, {"model": 1})


def test_what_arrives_while_a_slow_model_runs_joins_the_next_run(make: Any) -> None:
    model, batcher = make(slow=True)

    async def work() -> None:
        first = asyncio.create_task(batcher.infer(row(1), ["double"]))
        await asyncio.to_thread(model.started.wait)
        rest = [asyncio.create_task(batcher.infer(row(2), ["double"])) for _ in range(3)]
        await asyncio.sleep(0)  # they are in the queue: the event loop is free while the model runs
        assert batcher.meter.waiting == 4
        model.hold.set()
        await asyncio.gather(first, *rest)
        await batcher.drained()

    run(work())
    assert model.rows == [1, 3]


def test_who_waits_for_others_waits_no_longer_than_until_as_many_came_as_last_time(make: Any) -> None:
    model, batcher = make(slow=True, gather=3600)
    model.hold.set()

    async def work() -> None:
        for _ in range(2):
            await asyncio.gather(*[batcher.infer(row(1), ["double"]) for _ in range(3)])

    run(work())
    assert model.rows == [3, 3]


def test_nobody_waits_for_others_that_cannot_join(make: Any) -> None:
    model, batcher = make(joins=1, slow=True, gather=3600)
    model.hold.set()

    async def work() -> None:
        for rows in (5, 1):
            await batcher.infer(row(1, rows), ["double"])

    run(work())
    assert model.rows == [5, 1]


def test_where_the_pool_is_gone_before_rows_are_tried_others_go_on(make: Any, pool: ThreadPoolExecutor) -> None:
    model, batcher = make(joins=1)
    model.undecided = True
    pool.shutdown()

    async def work() -> None:
        await asyncio.gather(*[batcher.infer(row(1), ["double"]) for _ in range(2)])

    run(work())
    assert model.rows == [1, 1]


def test_a_full_queue_refuses_at_once_and_says_when_to_come_again(make: Any) -> None:
    model, batcher = make(slow=True, queue=2)

    async def work() -> RequestError:
        taken = [asyncio.create_task(batcher.infer(row(1), ["double"])) for _ in range(2)]
        await asyncio.to_thread(model.started.wait)
        with pytest.raises(RequestError) as refused:
            await batcher.infer(row(1), ["double"])
        model.hold.set()
        await asyncio.gather(*taken)
        return refused.value

    refused = run(work())
    assert refused.status == 429
    assert refused.retry_after is not None
    assert refused.retry_after >= 1
    assert batcher.meter.failed == {"full": 1}


def test_who_would_wait_too_long_is_refused_though_the_queue_has_room(make: Any) -> None:
    model, batcher = make(joins=1, slow=True, wait=1.5)
    batcher._row_seconds = 1.0

    async def work() -> int | None:
        taken = [asyncio.create_task(batcher.infer(row(1), ["double"]))]
        await asyncio.to_thread(model.started.wait)
        taken += [asyncio.create_task(batcher.infer(row(1), ["double"])) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(RequestError) as refused:
            await batcher.infer(row(1), ["double"])
        model.hold.set()
        await asyncio.gather(*taken)
        return refused.value.retry_after

    assert run(work()) == 2  # one runs, two rows of a second each wait


def test_a_deadline_ends_the_wait_and_what_is_late_is_not_computed(make: Any) -> None:
    model, batcher = make(slow=True)

    async def work() -> None:
        first = asyncio.create_task(batcher.infer(row(1), ["double"]))
        await asyncio.to_thread(model.started.wait)
        with pytest.raises(RequestError) as late:
            await batcher.infer(row(2), ["double"], timeout=0.01)
        assert late.value.status == 504
        model.hold.set()
        await first
        await batcher.drained()

    run(work())
    assert model.rows == [1]
    assert batcher.meter.failed == {"deadline": 1}


def test_a_client_that_gives_up_leaves_no_trace(make: Any) -> None:
    model, batcher = make(slow=True)

    async def work() -> None:
        first = asyncio.create_task(batcher.infer(row(1), ["double"]))
        await asyncio.to_thread(model.started.wait)
        gone = asyncio.create_task(batcher.infer(row(2), ["double"]))
        await asyncio.sleep(0)
        gone.cancel()
        model.hold.set()
        await first
        await batcher.drained()

    run(work())
    assert model.rows == [1]
    assert batcher.meter.waiting == 0


def test_of_a_client_that_gave_up_nothing_is_kept_until_its_deadline(make: Any) -> None:
    _, batcher = make()
    feed = row(1)
    held = weakref.ref(feed["x"])

    async def work() -> None:
        nonlocal feed
        asked = asyncio.create_task(batcher.infer(feed, ["double"], timeout=9e9))
        await asyncio.sleep(0)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        del feed, asked
        await batcher.drained()
        await asyncio.sleep(0)
        gc.collect()
        assert held() is None

    run(work())


@pytest.mark.parametrize("ends", ["deadline", "client"])
def test_of_a_request_that_is_over_nothing_is_kept_in_the_queue(make: Any, ends: str) -> None:
    """Its body is not counted any more among those that the server holds, so there may be any number of others."""
    model, batcher = make(slow=True)

    async def work() -> None:
        first = asyncio.create_task(batcher.infer(row(1), ["double"]))
        await asyncio.to_thread(model.started.wait)
        feed = row(2)
        held = weakref.ref(feed["x"])
        asked = asyncio.create_task(batcher.infer(feed, ["double"], timeout=0.001 if ends == "deadline" else None))
        del feed
        await asyncio.sleep(0)
        if ends == "client":
            asked.cancel()
        await asyncio.wait([asked])
        assert isinstance(asked.exception(), RequestError) if ends == "deadline" else asked.cancelled()
        del asked
        gc.collect()
        assert held() is None
        model.hold.set()
        await first
        await batcher.drained()

    run(work())
    assert model.rows == [1]


def test_one_whose_answer_cannot_be_handed_over_does_not_harm_its_neighbours(make: Any) -> None:
    _, batcher = make()
    found: list[Any] = []

    async def work() -> None:
        batcher.submit(row(1), ["double"], lambda _: found.append(1 / 0))
        batcher.submit(row(2), ["double"], found.append)
        await batcher.drained()

    run(work())
    assert [each[0].tolist() for each in found] == [[[4, 4, 4]]]


def test_a_run_that_fails_as_nobody_foresaw_is_500_and_the_next_one_goes_on(make: Any) -> None:
    model, batcher = make(slow=True)
    model.hold.set()
    original = model.run

    def run_once(feed: Feed, outputs: list[str]) -> list[Array]:
        model.run = original
        raise MemoryError

    async def work() -> None:
        model.run = run_once
        with pytest.raises(RequestError, match="failed at this") as failed:
            await batcher.infer(row(1), ["double"])
        assert failed.value.status == 500
        assert (await batcher.infer(row(1), ["double"]))[0].tolist() == [[2, 2, 2]]

    run(work())


def test_where_the_pool_is_gone_who_waits_is_told(make: Any, pool: ThreadPoolExecutor) -> None:
    _, batcher = make(slow=True)
    pool.shutdown()

    async def work() -> None:
        with pytest.raises(RequestError, match="the server ends"):
            await batcher.infer(row(1), ["double"])
        await batcher.drained()

    run(work())


def test_from_runs_that_are_refused_nothing_is_learnt(make: Any, tmp_path: Path) -> None:
    model, batcher = make(lookup(tmp_path / "lookup.onnx"), joins=2)
    model.most_joins = 64
    learnt: list[int] = []
    model.ran = lambda rows, seconds: learnt.append(rows)

    async def work() -> None:
        for index in (99, 1):
            with contextlib.suppress(RequestError):
                await batcher.infer({"index": np.array([index])}, ["row"])

    run(work())
    assert learnt == [1]


@pytest.mark.parametrize("before", [0, 1])
def test_a_request_of_so_many_rows_that_a_quick_model_takes_long_leaves_the_event_loop(
    make: Any, monkeypatch: pytest.MonkeyPatch, before: int
) -> None:
    """Also where it comes after one that does not. Meanwhile the server says that it is well, and answers others."""
    model, batcher = make(joins=4)
    batcher._row_seconds = 0.001
    monkeypatch.setattr(batcher_module, "TURN", 3600)
    threads: dict[int, int] = {}
    run_ = model.run

    def noted(feed: Feed, outputs: list[str]) -> list[Array]:
        threads[len(feed["x"])] = threading.get_ident()
        found: list[Array] = run_(feed, outputs)
        return found

    monkeypatch.setattr(model, "run", noted)

    async def work() -> Any:
        asked = [batcher.infer(row(each), ["double"]) for each in range(before)]
        return await asyncio.gather(*asked, batcher.infer(row(7, 100), ["double"]), batcher.infer(row(8), ["double"]))

    *_, many, last = run(work())
    assert (many[0].shape, many[0].max(), last[0].max()) == ((100, 3), 14, 16)
    here = threading.get_ident()
    assert (threads[1] == here, threads[100] == here) == (True, False)
    assert batcher.meter.answered == before + 2
    assert batcher.meter.waiting == 0


def test_after_a_run_that_took_long_others_leave_the_event_loop_though_they_are_quick(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else each that takes long after a quick one, as long texts after short ones, has all others wait for it."""
    model, batcher = make()
    monkeypatch.setattr(batcher_module, "APART", 2)
    here: list[bool] = []
    run_ = model.run

    def noted(feed: Feed, outputs: list[str]) -> list[Array]:
        here.append(threading.current_thread() is threading.main_thread())
        found: list[Array] = run_(feed, outputs)
        return found

    monkeypatch.setattr(model, "run", noted)

    async def work() -> None:
        for most in (3600, 0, 3600, 3600, 3600):
            monkeypatch.setattr(batcher_module, "STUCK", most)
            await batcher.infer(row(1), ["double"])

    run(work())
    assert here == [True, True, False, False, True]


def test_a_request_that_never_joins_counts_its_rows_all_the_same(make: Any) -> None:
    model, batcher = make(joins=1)

    async def work() -> None:
        await asyncio.gather(batcher.infer(row(1, 5), ["double"]), batcher.infer(row(2, 3), ["double"]))

    run(work())
    assert model.rows == [5, 3]
    assert batcher.meter.rows == 8
