"""A request whose head is known is read to where its tensors stay."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from server_models import affine, load_models
from talking import Client, app, arrive, connected, inputs, request, talk

from workbench.server.app import App
from workbench.server.connection import Connection
from workbench.server.direct import Direct
from workbench.server.landing import WORTH_WHILE

__all__ = ["app"]


@pytest.mark.parametrize("pieces", [1, 3])
def test_a_long_tensor_stays_where_it_was_read_to_once_its_head_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pieces: int
) -> None:
    app = App(load_models({"m": {"1": affine(tmp_path / "m.onnx")}}), 1_000_000)
    tensor = {"name": "x", "shape": [2000, 3], "datatype": "FP32", "parameters": {"binary_data_size": 24_000}}
    head = json.dumps({"inputs": [tensor]}).encode()
    values = np.arange(6000, dtype=np.float32)
    whole = request(head + values.tobytes(), extra=f"Inference-Header-Content-Length: {len(head)}\r\n")
    step = -(-len(whole) // pieces)
    rooms: list[Any] = []
    original = Connection.get_buffer
    monkeypatch.setattr(Connection, "get_buffer", lambda self, hint: (rooms.append(original(self, hint)), rooms[-1])[1])
    feeds: list[Any] = []
    (batcher,) = app.repository
    run = batcher.model.run
    monkeypatch.setattr(batcher.model, "run", lambda feed, outputs: (feeds.append(feed["x"]), run(feed, outputs))[1])

    each = [whole[begin : begin + step] for begin in range(0, len(whole), step)]
    answered, _ = talk(app, [whole, *each * 3], 4, Direct(app))
    assert answered.count(b" 200 OK") == 4
    for again in feeds[2:]:
        assert np.array_equal(again.ravel(), values)
        assert any(np.shares_memory(again, np.asarray(room)) for room in rooms)
        assert again.ctypes.data % 16 == 0
    assert not np.shares_memory(feeds[2], feeds[3])


@pytest.mark.parametrize("secure", [False, True])
def test_room_for_the_next_long_request_is_made_when_it_comes_and_over_tls_when_its_head_has(
    app: App, secure: bool
) -> None:
    """Of TLS there may come the beginning of a record, and nothing to read."""
    long = request(inputs() + b" " * WORTH_WHILE)

    async def work() -> None:
        _, end, clients = connected(app, Direct(app), **({"sslcontext": object()} if secure else {}))
        for answered in (1, 2):
            assert end.get_buffer(-1) is clients.buffer
            arrive(end, long)
            while clients.answered < answered:
                await asyncio.sleep(0)
        assert (end.get_buffer(-1) is clients.buffer) == secure
        arrive(end, long[:-9])
        assert app._held == len(long) - 9
        end.connection_lost(None)

    asyncio.run(asyncio.wait_for(work(), 60))
    assert app._held == 0


def test_what_clients_only_announce_takes_no_room_of_others(app: App) -> None:
    whole = request(inputs() + b" " * 50_000)
    begin = whole[: whole.index(b"\r\n\r\n") + 5]
    bounded = App(app.repository, 100_000, max_bodies=60_000)

    async def work() -> bytes:
        direct = Direct(bounded)
        client, end, clients = connected(bounded, direct)
        arrive(end, whole)
        while not clients.answered:
            await asyncio.sleep(0)
        for _ in range(9):  # their head is known by now
            other = Connection(clients)
            other.connection_made(Client())
            arrive(other, begin)
        arrive(end, whole)
        while clients.answered < 2:
            await asyncio.sleep(0)
        for each in [*clients.connections]:
            each.connection_lost(None)
        return client.taken

    assert asyncio.run(asyncio.wait_for(work(), 30)).count(b" 200 OK") == 2
    assert bounded._held == 0
