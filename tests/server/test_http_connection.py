"""One connection: bodies in pieces, requests one behind the other, when it is kept and when it is closed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from talking import arrive

from workbench.server.clients import Clients
from workbench.server.connection import MAX_UNREAD, Connection
from workbench.server.cycle import Cycle

Reader, Writer = asyncio.StreamReader, asyncio.StreamWriter


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Answers with the body, or as its path says."""
    parts = []
    message = {"more_body": True}
    while message.get("more_body"):
        message = await receive()
        parts.append(message.get("body", b""))
    body = b"".join(parts) or scope["path"].encode()
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(body))]
    if scope["path"] == "/close":
        headers.append((b"connection", b"close"))
    if scope["path"] == "/split":
        headers.append((b"x-said", b"one\r\ntwo: three"))
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


Talk = Callable[[Reader, Writer, list[Connection]], Awaitable[Any]]


def talk(client: Talk, keep_alive: int = 60, patience: float = 30, app: Any = echo) -> Any:
    """What ``client`` returns, which gets a connection to a server with ``app``, and the server's end of it."""

    async def work() -> Any:
        clients, ends = Clients(app, keep_alive=keep_alive, patience=patience), []

        def end() -> Connection:
            ends.append(Connection(clients))
            return ends[-1]

        server = await asyncio.get_running_loop().create_server(end, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        try:
            return await client(reader, writer, ends)
        finally:
            writer.close()
            server.close()
            await server.wait_closed()

    return asyncio.run(asyncio.wait_for(work(), 60))


def request(path: str, body: bytes = b"", method: str = "POST", extra: str = "") -> bytes:
    head = f"{method} {path} HTTP/1.1\r\nHost: here\r\nContent-Length: {len(body)}\r\n{extra}\r\n"
    return head.encode() + body


async def answer(reader: Reader) -> tuple[bytes, bytes]:
    """Head and body of the next answer."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(line for line in head.split(b"\r\n") if line.startswith(b"content-length"))
    return head, await reader.readexactly(int(length.partition(b": ")[2]))


def test_a_body_in_many_pieces_is_whole() -> None:
    body = bytes(range(256)) * (4 * MAX_UNREAD // 256)

    async def client(reader: Reader, writer: Writer, _: Any) -> bytes:
        whole = request("/", body)
        for start in range(0, len(whole), 50_001):
            writer.write(whole[start : start + 50_001])
            await writer.drain()
        return (await answer(reader))[1]

    assert talk(client) == body


def test_requests_sent_at_once_are_answered_in_order() -> None:
    async def client(reader: Reader, writer: Writer, _: Any) -> list[bytes]:
        writer.write(request("/a") + request("/b", b"body") + request("/c%20d"))
        return [(await answer(reader))[1] for _ in range(3)]

    assert talk(client) == [b"/a", b"body", b"/c d"]


@pytest.mark.parametrize(("path", "extra"), [("/close", ""), ("/", "Connection: close\r\n")])
def test_it_is_closed_where_either_side_says_so(path: str, extra: str) -> None:
    async def client(reader: Reader, writer: Writer, _: Any) -> bytes:
        writer.write(request(path, b"last", extra=extra))
        head, _ = await answer(reader)
        assert await reader.read() == b""
        return head

    assert talk(client).count(b"connection: close") == 1


def test_an_answer_to_head_has_no_body() -> None:
    async def client(reader: Reader, writer: Writer, _: Any) -> bytes:
        writer.write(request("/", method="HEAD") + request("/next"))
        await reader.readuntil(b"content-length: 1\r\n\r\n")
        return (await answer(reader))[1]

    assert talk(client) == b"/next"


def test_a_header_of_two_lines_is_never_sent() -> None:
    async def client(reader: Reader, writer: Writer, _: Any) -> bytes:
        writer.write(request("/split"))
        return await reader.read()

    answered = talk(client)
    assert b"two" not in answered
    assert answered.startswith(b"HTTP/1.1 500 ")


def test_one_that_is_idle_for_too_long_is_closed() -> None:
    async def client(reader: Reader, writer: Writer, _: Any) -> bytes:
        writer.write(request("/"))
        await answer(reader)
        return await reader.read()

    assert talk(client, keep_alive=1) == b""


def test_one_that_was_used_meanwhile_is_kept() -> None:
    async def client(reader: Reader, writer: Writer, ends: list[Connection]) -> bytes:
        writer.write(request("/first"))
        await answer(reader)
        ends[0]._look_whether_idle()  # the time is up that began with an answer before this one
        writer.write(request("/second"))
        return (await answer(reader))[1]

    assert talk(client) == b"/second"


def test_what_a_request_takes_does_not_grow_with_how_many_came_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    looked, count = 0, 1_000

    class Counted(Cycle):
        @property
        def answered(self) -> bool:
            nonlocal looked
            looked += 1
            return self._answered

        @answered.setter
        def answered(self, value: bool) -> None:
            self._answered = value

    monkeypatch.setattr("workbench.server.connection.Cycle", Counted)

    async def client(_: Reader, __: Writer, ends: list[Connection]) -> None:
        while not ends:
            await asyncio.sleep(0)
        arrive(ends[0], b"GET / HTTP/1.1\r\n\r\n" * count)

    talk(client)
    assert count <= looked < 10 * count


def test_a_client_that_sends_requests_without_end_is_held_up_until_those_it_sent_are_answered() -> None:
    async def client(reader: Reader, writer: Writer, ends: list[Connection]) -> int:
        async def take() -> None:
            while await reader.read(MAX_UNREAD):
                pass

        taking = asyncio.create_task(take())
        most = 0
        writer.write(request("/") * 50_000)
        while not ends or ends[0]._clients.answered < 10_000:
            await asyncio.sleep(0)
            most = max(most, *(len(end._next) for end in ends), 0)
        taking.cancel()
        return most

    assert talk(client) < 2 * MAX_UNREAD / len(request("/"))


def test_each_request_has_its_own_time_to_arrive() -> None:
    """Also where one begins in the piece in which the one before ends."""

    async def client(reader: Reader, writer: Writer, ends: list[Connection]) -> None:
        timers, whole = [], request("/", b"body")
        writer.write(whole[:-1])
        for _ in range(3):
            while not ends or ends[0]._slow is None or ends[0]._slow in timers:
                await asyncio.sleep(0)
            timers.append(ends[0]._slow)
            writer.write(whole[-1:] + whole[:-1])
            await answer(reader)
        assert all(timer.cancelled() for timer in timers)

    talk(client)


def test_who_sends_no_more_than_an_empty_line_is_cut_off() -> None:
    async def client(reader: Reader, writer: Writer, _: Any) -> bytes:
        writer.write(b"\r\n")
        return await reader.read()

    assert talk(client, patience=0.2) == b""


def test_the_time_a_request_takes_to_arrive_does_not_count_while_nobody_reads_it() -> None:
    """For an answer takes long, which the requests behind it wait for."""
    go_on = asyncio.Event()

    async def late(*words: Any) -> None:
        await go_on.wait()
        await echo(*words)

    async def client(reader: Reader, writer: Writer, ends: list[Connection]) -> list[bytes]:
        second = request("/b", b"body")
        writer.write(request("/a") + second[:-1])
        while not ends or not ends[0]._next:
            await asyncio.sleep(0)
        assert ends[0]._slow is None
        go_on.set()
        found = [(await answer(reader))[1]]
        while ends[0]._slow is None:
            await asyncio.sleep(0)
        writer.write(second[-1:])
        return [*found, (await answer(reader))[1]]

    assert talk(client, app=late) == [b"/a", b"body"]


@pytest.mark.parametrize("extra", ["", "Connection: close\r\n"], ids=["idle", "said"])
def test_one_that_is_closed_is_cut_off_where_the_client_does_not_take_what_it_was_answered(extra: str) -> None:
    """Also where that is so little that the server does not wait for it with other answers."""

    async def large(_: Any, __: Any, send: Any) -> None:
        body = bytes(16 << 20)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})

    async def client(_: Reader, writer: Writer, ends: list[Connection]) -> None:
        while not ends:
            await asyncio.sleep(0)
        clients = ends[0]._clients
        ends[0].transport.set_write_buffer_limits(1 << 30)
        clients.patience = clients.keep_alive = 0.1
        writer.write(request("/", method="GET", extra=extra))
        while not clients.answered:
            await asyncio.sleep(0)
        assert ends[0].transport.get_write_buffer_size()
        while clients.connections:
            await asyncio.sleep(0)

    talk(client, app=large)
