"""Inferences that arrive whole are answered as all others are, in whatever pieces and company they come."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from server_models import affine, load_models
from talking import PATH, app, arrive, connected, inputs, request, talk

from workbench.server import connection as connection_module
from workbench.server import direct as direct_module
from workbench.server.api_keys import ApiKeys
from workbench.server.app import App
from workbench.server.connection import Connection
from workbench.server.direct import MAX_HEADS, PATIENT_FOR, Direct
from workbench.server.exchange import Exchange
from workbench.server.landing import WORTH_WHILE
from workbench.server.observe import Observer

__all__ = ["app"]


def binary() -> bytes:
    tensor = {"name": "x", "shape": [1, 3], "datatype": "FP32", "parameters": {"binary_data_size": 12}}
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    return request(head + bytes(12), extra=f"Inference-Header-Content-Length: {len(head)}\r\n")


CHUNKED = (
    f"POST {PATH} HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: chunked\r\n\r\n{len(inputs()):x}\r\n".encode()
    + inputs()
    + b"\r\n0\r\n\r\n"
)

KEY = b"Authorization: Bearer secret\r\n"

REQUESTS = [
    request(inputs(1, 2, 3)),
    request(inputs(4, 5, 6)),
    request(inputs(0.25, -1e30, 7), "/v2/models/m/versions/1/infer"),
    request(inputs(id="a", outputs=[{"name": "double"}])),
    binary(),
    request(inputs(1, 2)),
    request(b"{"),
    request(b""),
    request(inputs(), "/v2/models/other/infer"),
    request(inputs(), "/v2/models/m/versions/2/infer"),
    request(inputs(), extra="Inference-Header-Content-Length: nine\r\n"),
    request(inputs(), method="PUT"),
    request(b"", "/v2/models/m", "GET"),
    request(b'{"instances": [[1, 2, 3]]}', "/v1/models/m:predict"),
    CHUNKED,
    request(inputs(), extra="Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"),
    b"\r\n" + request(inputs(3, 2, 1)),
    request(b"") + b"\r\n",
    request(inputs()) + b"\r\n\r\n",
]


@pytest.fixture(scope="module", params=[1, WORTH_WHILE], ids=["expected", "not expected"])
def shared(app: App, request: pytest.FixtureRequest) -> Iterator[Direct]:
    """What connections share: what one client sent is not to harm another. Of a request that comes again the next one
    is expected to come again, or it is too short for that."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(connection_module, "WORTH_WHILE", request.param)
        yield Direct(app)


@pytest.fixture(scope="module")
def expected(app: App) -> dict[bytes, bytes]:
    """What each request is answered where it is alone, and goes the way of all."""
    return {each: talk(app, [each], 1)[0] for each in REQUESTS}


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(REQUESTS), min_size=1, max_size=6), st.data())
def test_each_is_answered_as_if_it_were_alone(
    app: App, shared: Direct, expected: dict[bytes, bytes], asked: list[bytes], data: st.DataObject
) -> None:
    whole = b"".join(asked)
    ends = [sum(map(len, asked[:number])) for number in range(1, len(asked))]
    anywhere = st.lists(st.integers(1, len(whole) - 1), max_size=4)
    cuts = sorted({*data.draw(anywhere), *data.draw(st.sets(st.sampled_from(ends)) if ends else st.just(set()))})
    pieces = [whole[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    answered, _ = talk(app, pieces, len(asked), shared)
    assert answered == b"".join(expected[each] for each in asked)
    assert not shared.inferences
    assert all(head.startswith(b"POST ") for head in shared.heads)
    assert app._held == 0


@pytest.mark.parametrize("short", [False, True])
def test_what_follows_a_body_in_chunks_is_no_header(tmp_path: Path, short: bool) -> None:
    """Who checks headers on the way, as a proxy does, has not seen it."""
    app = App(load_models({"m": {"1": affine(tmp_path / "m.onnx")}}), 10_000)
    app.keys = ApiKeys(["secret"])
    said = []
    for header, trailer in [(b"", KEY), (KEY, b"Content-Encoding: gzip\r\n")]:
        whole = CHUNKED.replace(b"Host: here\r\n", b"Host: here\r\n" + header)[:-2] + trailer + b"\r\n"
        said.append(talk(app, [whole], 1, Direct(app) if short else None)[0][9:12])
    assert said == [b"401", b"200"]


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """How many requests have gone the short way."""
    count = 0
    original = Direct.begin

    def begin(self: Direct, *words: Any) -> None:
        nonlocal count
        count += 1
        original(self, *words)

    monkeypatch.setattr(Direct, "begin", begin)
    return lambda: count


def test_a_whole_request_goes_the_short_way_and_so_does_one_whose_body_comes_by_itself(app: App, begun: Any) -> None:
    whole = request(inputs())
    at = whole.index(b"\r\n\r\n") + 4
    talk(app, [whole, whole[:at], whole[at:], whole[:at], whole[at:-9], whole[-9:]], 3, Direct(app))
    assert begun() == 3


@pytest.mark.parametrize(
    "other",
    [
        request(inputs(), extra="Content-Encoding: gzip\r\n"),
        request(inputs(), method="PUT"),
        request(inputs(), "/v1/models/m:predict"),
        request(inputs(), extra="Inference-Header-Content-Length: nine\r\n"),
    ],
)
def test_what_is_no_plain_inference_goes_the_way_of_all(app: App, begun: Any, other: bytes) -> None:
    direct = Direct(app)
    talk(app, [other], 1, direct)
    assert begun() == 0
    assert not direct.heads


def test_a_long_body_is_not_waited_for(app: App, begun: Any) -> None:
    whole = request(inputs() + b" " * PATIENT_FOR)
    talk(app, [whole[:-9], whole[-9:]], 1, Direct(app))
    assert begun() == 0


@pytest.mark.parametrize("path", [PATH, "/v2/models/other/infer"])
def test_who_is_refused_anyway_is_so_before_the_body_is_there(tmp_path: Path, path: str) -> None:
    app = App(load_models({"m": {"1": affine(tmp_path / "m.onnx")}}), 1_000_000)
    if path == PATH:
        app.keys = ApiKeys(["secret"])
    answered, _ = talk(app, [request(inputs() + b" " * 100_000, path)[:-9]], 1, Direct(app))
    assert answered.startswith(b"HTTP/1.1 401 " if path == PATH else b"HTTP/1.1 404 ")


def test_of_who_has_no_key_no_head_is_kept(tmp_path: Path) -> None:
    app = App(load_models({"m": {"1": affine(tmp_path / "m.onnx")}}), 10_000)
    app.keys = ApiKeys(["secret"])
    direct = Direct(app)
    answered, _ = talk(app, [request(inputs()), request(inputs(), extra="Authorization: Bearer secret\r\n")], 2, direct)
    assert [each[:3] for each in answered.split(b"HTTP/1.1 ")[1:]] == [b"401", b"200"]
    assert len(direct.heads) == 1


def test_what_nobody_foresaw_is_500_and_the_connection_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    app = App(load_models({"m": {"1": affine(tmp_path / "m.onnx")}}), 10_000)
    direct = Direct(app)
    with monkeypatch.context() as broken:
        broken.setattr(direct_module, "understood", lambda *_: {}["no such thing"])
        answered, _ = talk(app, [request(inputs())], 1, direct)
        assert answered.startswith(b"HTTP/1.1 500 ")
    assert "no such thing" in caplog.text
    assert (app._held, direct.inferences) == (0, {})


def test_at_the_end_inferences_are_waited_for_and_then_told_as_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = App(load_models({"m": {"1": affine(tmp_path / "m.onnx")}}), 10_000)
    lines: list[Exchange] = []
    app.observer = Observer(type("Log", (), {"add": lambda _, exchange: lines.append(exchange)})(), None)  # type: ignore[arg-type]
    monkeypatch.setattr(app, "submit", lambda _batcher, _asked, _served, _done: None)

    async def work() -> list[int]:
        direct = Direct(app)
        _, end, clients = connected(app, direct)
        arrive(end, request(inputs()))
        finish = asyncio.create_task(clients.finish(60))
        await asyncio.sleep(0)
        assert not finish.done()
        clients.cut_off()
        end.connection_lost(None)
        return [await finish, len(direct.inferences)]

    assert asyncio.run(asyncio.wait_for(work(), 30)) == [0, 0]
    assert [each.status for each in lines] == [0]


def test_a_body_in_many_pieces_is_not_waited_for(app: App, begun: Any) -> None:
    whole = request(inputs() + b" " * 1000)
    at = whole.index(b"\r\n\r\n") + 4
    pieces = [whole[:at], *[whole[each : each + 1] for each in range(at, len(whole))]]
    answered, _ = talk(app, pieces, 1, Direct(app))
    assert answered.startswith(b"HTTP/1.1 200 ")
    assert begun() == 0


def test_what_has_come_of_a_body_is_counted(app: App) -> None:
    """Also where the head is known, as it is the second time."""
    whole = request(inputs() + b" " * 1000)
    at = whole.index(b"\r\n\r\n") + 4
    bounded = App(app.repository, 10_000, max_bodies=900)
    direct = Direct(bounded)
    for _ in range(2):
        talk(bounded, [whole[: at + 500]], 0, direct)
        assert bounded._held == 0
        answered, _ = talk(bounded, [whole[: at + 500], whole[at + 500 :]], 1, direct)
        assert answered.startswith(b"HTTP/1.1 429 ")
        assert bounded._held == 0
        assert len(direct.heads) == 1


def test_the_client_that_waits_to_be_told_to_go_on_is_told(app: App) -> None:
    """Also where it did not wait the first time, so that its head could be known."""
    whole = request(inputs(), extra="Expect: 100-continue\r\n")
    at = whole.index(b"\r\n\r\n") + 4
    answered, _ = talk(app, [whole, whole[:at], whole[at:]], 2, Direct(app))
    assert answered.count(b"HTTP/1.1 200 OK\r\n") == 2
    assert answered.count(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n") == 1


def test_a_head_that_is_known_is_not_parsed_again(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[bytes] = []
    original = Connection.on_url
    monkeypatch.setattr(Connection, "on_url", lambda self, url: (parsed.append(url), original(self, url))[1])
    one, two, longer = request(inputs(1, 2, 3)), request(inputs(3, 2, 1)), request(inputs(10, 2, 3))
    answered, _ = talk(app, [one, two, longer, one, longer], 5, Direct(app))
    assert answered.count(b" 200 OK") == 5
    assert len(parsed) == 2


@pytest.mark.parametrize("came", [0, 9], ids=["nothing", "some"])
def test_it_is_known_too_where_the_body_comes_by_itself(
    app: App, monkeypatch: pytest.MonkeyPatch, begun: Any, came: int
) -> None:
    fed: list[bytes] = []
    original = Connection._fed
    monkeypatch.setattr(Connection, "_fed", lambda self, data: (fed.append(data), original(self, data))[1])
    one, two = request(inputs(1, 2, 3)), request(inputs(3, 2, 1))
    at = one.index(b"\r\n\r\n") + 4 + came
    answered, _ = talk(app, [one[:at], one[at:], two[:at], two[at:-5], two[-5:], one[:at], one[at:]], 3, Direct(app))
    assert begun() == answered.count(b" 200 OK") == 3
    assert fed == [one[:at], one[at:]]


def test_what_comes_after_a_body_that_was_waited_for_is_the_next_request(app: App, begun: Any) -> None:
    one, two = request(inputs(1, 2, 3)), request(inputs(3, 2, 1))
    at = len(one) - 9
    answered, _ = talk(app, [one, one[:at], one[at:] + two[:at], two[at:]], 3, Direct(app))
    assert answered.count(b" 200 OK") == 3
    assert answered.endswith(talk(app, [two], 1)[0])


def test_what_is_known_of_heads_is_bounded(app: App) -> None:
    direct = Direct(app)
    many = [request(inputs(), extra=f"X-Request-Id: {number}\r\n") for number in range(MAX_HEADS + 10)]
    long = [request(inputs(), extra=f"X-Long: {'a' * 3000}\r\n")]
    answered, _ = talk(app, [*many, *long], len(many) + 1, direct)
    assert answered.count(b" 200 OK") == len(many) + 1
    assert 0 < len(direct.heads) <= MAX_HEADS
    assert max(map(len, direct.heads)) < 3000


@pytest.mark.parametrize(
    "last", [request(inputs(), extra="Connection: close\r\n"), request(inputs(), version="1.0")], ids=["said", "1.0"]
)
def test_the_connection_is_closed_after_the_last_answer(app: App, last: bytes) -> None:
    answered, closed = talk(app, [request(inputs()), last, request(inputs())], 3, Direct(app))
    assert closed
    assert answered.count(b" 200 OK") == 2
    assert answered.count(b"connection: close") == 1


def test_many_that_offer_to_speak_something_else_at_once_are_all_answered(app: App) -> None:
    offer = request(inputs(), extra="Connection: Upgrade\r\nUpgrade: h2c\r\n")
    answered, _ = talk(app, [offer * 1200], 1200, Direct(app))
    assert answered.count(b" 200 OK") == 1200


@pytest.mark.parametrize("known", [False, True], ids=["new", "known"])
def test_who_takes_too_long_for_a_body_is_cut_off_and_not_before_for_being_idle(app: App, known: bool) -> None:
    whole = request(inputs())
    direct = Direct(app)
    if not known:
        direct.keep = lambda *_: None  # type: ignore[method-assign]

    async def work() -> None:
        client, end, clients = connected(app, direct)
        arrive(end, whole)
        while not clients.answered:
            await asyncio.sleep(0)
        clients.keep_alive, clients.patience = 0, 0.2
        arrive(end, whole[:-9])
        end._look_whether_idle()
        assert not client.closed
        while not client.closed:
            await asyncio.sleep(0)
        end.connection_lost(None)

    asyncio.run(asyncio.wait_for(work(), 60))
    assert app._held == 0


@pytest.mark.parametrize("known", [False, True], ids=["new", "known"])
def test_a_request_that_is_still_arriving_when_the_server_stops_is_answered(app: App, known: bool) -> None:
    whole = request(inputs())
    direct = Direct(app)
    if known:
        talk(app, [whole], 1, direct)

    async def work() -> bytes:
        client, end, _ = connected(app, direct)
        arrive(end, whole[:-9])
        end.shutdown()
        assert not client.closed
        arrive(end, whole[-9:])
        while not client.closed:
            await asyncio.sleep(0)
        return client.taken

    answered = asyncio.run(asyncio.wait_for(work(), 60))
    assert answered.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"connection: close\r\n" in answered


def test_a_body_over_the_limit_is_refused(app: App, begun: Any) -> None:
    answered, _ = talk(app, [request(b" " * 100_001)], 1, Direct(app))
    assert answered.startswith(b"HTTP/1.1 413 ")
    assert begun() == 1


def test_it_is_observed_as_all_others_are(tmp_path: Path, begun: Any) -> None:
    """The same lines, and the same answers but for the number of the span, whichever way a request goes."""
    app = App(load_models({"m": {"1": affine(tmp_path / "m.onnx")}}), 10_000)
    trace, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    asked = [
        request(inputs(), extra=f"traceparent: 00-{trace}-{parent}-01\r\n"),
        request(b"{"),
        request(inputs(), "/v2/models/other/infer"),
    ]
    lines: list[list[Exchange]] = [[], []]
    for kept, whole in zip(lines, (True, False), strict=True):
        log = type("Log", (), {"add": lambda _, exchange, kept=kept: kept.append(exchange)})()
        app.observer = Observer(log, None)
        answered, _ = talk(app.observer.observed(app), asked, 3, Direct(app) if whole else None)  # type: ignore[arg-type]
        assert answered.count(b"traceparent: 00-") == 3
        assert f"traceparent: 00-{trace}-".encode() in answered
    assert begun() == 3
    told = ("method", "path", "status", "received", "sent", "model", "version", "rows", "cached", "parent_id")
    short, long = [[[getattr(each, name) for name in told] for each in kept] for kept in lines]
    assert short == long
    assert [each[2] for each in short] == [200, 400, 404]
    assert short[0][-1] == parent
    assert lines[0][0].compute > 0


def test_an_answer_that_cannot_be_written_is_500_and_its_neighbours_get_theirs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    app = App(load_models({"m": {"1": affine(tmp_path / "m.onnx")}}), 10_000)
    original = direct_module.response

    def response(batcher: Any, asked: Any, results: Any) -> Any:
        if asked.id == "bad":
            raise ValueError("no such answer")
        return original(batcher, asked, results)

    monkeypatch.setattr(direct_module, "response", response)
    answered, _ = talk(app, [request(inputs(id="bad")), request(inputs(id="good"))], 2, Direct(app))
    first, second = answered.split(b"HTTP/1.1 ")[1:]
    assert first.startswith(b"500 ")
    assert msgspec.json.decode(first.partition(b"\r\n\r\n")[2])["error"].startswith("the server failed at this")
    assert second.startswith(b"200 ")
    assert "no such answer" in caplog.text
