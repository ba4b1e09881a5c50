"""Of requests whose clients are gone nothing more is computed, and nothing of any is kept after its answer."""

from __future__ import annotations

import asyncio
import gc
import threading
from pathlib import Path

import pytest
from server_models import affine, load_models
from talking import Client, app, arrive, connected, inputs, request, talk

from workbench.server.app import App
from workbench.server.batcher import Request
from workbench.server.clients import Clients
from workbench.server.connection import Connection
from workbench.server.cycle import Cycle, Whole
from workbench.server.direct import Direct, Inference
from workbench.server.exchange import Exchange
from workbench.server.observe import Observer
from workbench.server.protocol import Asked

__all__ = ["app"]


@pytest.mark.parametrize("short", [True, False])
@pytest.mark.parametrize("observed", [True, False])
def test_of_a_client_that_is_gone_nothing_is_computed_that_has_not_begun(
    tmp_path: Path, short: bool, observed: bool
) -> None:
    app = App(load_models({"m": {"1": affine(tmp_path / "m.onnx")}}), 10_000)
    (batcher,) = app.repository
    lines: list[Exchange] = []
    if observed:
        log = type("Log", (), {"add": lambda _, exchange: lines.append(exchange)})()
        app.observer = Observer(log, None)  # type: ignore[arg-type]

    async def work() -> None:
        direct = Direct(app) if short else None
        clients = Clients(app.observer.observed(app) if app.observer else app, direct)  # type: ignore[arg-type]
        ends = []
        for waiting in (1, 2, 3):
            ends.append(Connection(clients))
            ends[-1].connection_made(Client())
            arrive(ends[-1], request(inputs()))
            while batcher.meter.waiting < waiting or not batcher._running:
                await asyncio.sleep(0)
        first, second, third = ends
        first.connection_lost(None)  # its run waits for the thread already
        second.connection_lost(None)
        hold.set()
        while clients.answered < 1:
            await asyncio.sleep(0)
        third.connection_lost(None)
        await clients.finish(30)

    hold = threading.Event()
    batcher._pool.submit(hold.wait)
    batcher.model.slow = True
    try:
        asyncio.run(asyncio.wait_for(work(), 30))
    finally:
        hold.set()
    meter = batcher.meter
    assert (meter.answered, meter.joined.total, meter.waiting, meter.failed) == (1, 2, 0, {})
    assert app._held == 0
    assert [each.status for each in lines] == [0, 0, 200] * observed


@pytest.mark.parametrize("short", [True, False])
def test_what_a_request_holds_is_freed_with_its_answer_and_by_no_collection(app: App, short: bool) -> None:
    ways = (Inference, Request, Whole, Cycle, Asked)
    gc.collect()
    before = {id(each) for each in gc.get_objects()}
    gc.disable()
    try:
        talk(app, [request(inputs())] * 9, 9, Direct(app) if short else None)
        left = [each for each in gc.get_objects() if isinstance(each, ways) and id(each) not in before]
    finally:
        gc.enable()
    assert left == []


@pytest.mark.parametrize("short", [True, False])
def test_so_is_what_a_request_holds_whose_client_is_gone(app: App, short: bool) -> None:
    ways = (Inference, Request, Whole, Cycle, Asked, Connection)
    (batcher,) = app.repository

    async def work() -> None:
        _, end, clients = connected(app, Direct(app) if short else None)
        arrive(end, request(inputs()))
        while not batcher.meter.waiting:
            await asyncio.sleep(0)
        end.connection_lost(None)
        await clients.finish(30)
        await batcher.drained()

    gc.collect()
    before = {id(each) for each in gc.get_objects()}
    gc.disable()
    try:
        asyncio.run(asyncio.wait_for(work(), 30))
        left = [each for each in gc.get_objects() if isinstance(each, ways) and id(each) not in before]
    finally:
        gc.enable()
    assert left == []
