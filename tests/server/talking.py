"""Clients that talk to a connection in this process, and what they send."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest
from server_models import affine, load_models

from workbench.server.app import App
from workbench.server.clients import Clients
from workbench.server.connection import Connection
from workbench.server.direct import Direct

PATH = "/v2/models/m/infer"


class Client(asyncio.Transport):
    """The other end of a connection whose server writes here: no socket, so pieces arrive as they are sent."""

    def __init__(self, **extra: Any) -> None:
        super().__init__(extra)
        self.taken = b""
        self.closed = False

    def write(self, data: bytes) -> None:
        self.taken += data

    def close(self) -> None:
        self.closed = True

    abort = close

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> App:
    return App(load_models({"m": {"1": affine(tmp_path_factory.mktemp("m") / "m.onnx")}}), 100_000)


def arrive(end: Connection, data: bytes) -> None:
    """``data`` comes, as the loop hands it over."""
    while data:
        room = end.get_buffer(-1)
        size = min(len(room), len(data))
        room[:size] = data[:size]
        end.buffer_updated(size)
        data = data[size:]


def connected(app: App, direct: Direct | None, **extra: Any) -> tuple[Client, Connection, Clients]:
    """A client, the server's end of its connection, and what the server counts."""
    clients, client = Clients(app, direct), Client(**extra)
    end = Connection(clients)
    end.connection_made(client)
    return client, end, clients


def talk(app: App, pieces: Sequence[bytes], answers: int, direct: Direct | None = None) -> tuple[bytes, bool]:
    """What a server answers to ``pieces``, of which each arrives when nothing is left to do for the one before, and
    whether it closed the connection; once there are so many ``answers``."""

    async def work() -> tuple[bytes, bool]:
        client, end, clients = connected(app, direct)
        for piece in pieces:
            if client.closed:
                break
            arrive(end, piece)
            for _ in range(10):
                await asyncio.sleep(0)
            while direct is not None and direct.inferences:
                await asyncio.sleep(0)
        while clients.answered < answers and not client.closed:
            await asyncio.sleep(0)
        end.connection_lost(None)
        return client.taken, client.closed

    return asyncio.run(asyncio.wait_for(work(), 60))


def request(body: bytes, path: str = PATH, method: str = "POST", extra: str = "", version: str = "1.1") -> bytes:
    head = f"{method} {path} HTTP/{version}\r\nHost: here\r\n{extra}Content-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def inputs(*values: float, **more: Any) -> bytes:
    tensor = {"name": "x", "shape": [1, 3], "datatype": "FP32", "data": values or (1, 2, 3)}
    return json.dumps({"inputs": [tensor], **more}).encode()
