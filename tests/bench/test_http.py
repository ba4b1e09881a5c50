"""The measuring HTTP client: every answer is read whole, every failure counted."""

from __future__ import annotations

import threading

import pytest
from bench_parts import ok, scripted

from workbench.bench import http, targets
from workbench.bench.http import Connection, Endpoint, HttpFailure, Pool

UNAVAILABLE = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"


def endpoint(port: int) -> Endpoint:
    return Endpoint("127.0.0.1", port, "/v2/models/m/infer")


def test_an_answer_in_pieces_is_one_answer() -> None:
    whole = ok(b"x" * 300_000)
    with scripted(lambda n, request: [whole[:5], whole[5:60], whole[60:]]) as port:
        connection = Connection(endpoint(port))
        assert connection.exchange(endpoint(port).request(b"a")) == whole
        assert connection.exchange(endpoint(port).request(b"b")) == whole
        connection.close()


@pytest.mark.parametrize(
    ("answer", "what"),
    [
        ([UNAVAILABLE], "503"),
        ([b"HTTP/1.1 200 OK\r\n\r\n"], "Content-Length"),
        ([ok() + b"more"], "closed|too long"),
        (None, "closed"),
    ],
)
def test_what_is_no_whole_200_is_a_failure_and_the_next_request_starts_anew(
    answer: list[bytes] | None, what: str
) -> None:
    def answers(number: int, request: bytes) -> list[bytes] | None:
        return [ok()] if number else answer

    with scripted(answers) as port:
        connection = Connection(endpoint(port))
        with pytest.raises(HttpFailure, match=what):
            connection.exchange(endpoint(port).request(b""))
        assert connection.exchange(endpoint(port).request(b"")) == ok()
        connection.close()


class Collected:
    """Counts answers until all are there."""

    def __init__(self, expected: int) -> None:
        self.troubles: list[str] = []
        self.all = threading.Event()
        self._expected = expected

    def __call__(self, trouble: str) -> None:
        self.troubles.append(trouble)
        if len(self.troubles) == self._expected:
            self.all.set()


def test_many_requests_at_once_share_the_connections() -> None:
    seen: set[bytes] = set()
    done = Collected(200)

    def answer(number: int, request: bytes) -> list[bytes]:
        seen.add(request.partition(b"\r\n\r\n")[2])
        return [ok(request)]

    with scripted(answer) as port:
        pool = Pool(endpoint(port), most=4, ready=2)
        for number in range(200):
            pool.send(endpoint(port).request(str(number).encode()), done)
        assert done.all.wait(60)
        pool.close()
    assert done.troubles == [""] * 200
    assert len(seen) == 200


def test_a_request_larger_than_the_socket_takes_is_sent_whole() -> None:
    body = b"0123456789" * 1_000_000
    sizes: list[int] = []
    done = Collected(1)

    def answer(number: int, request: bytes) -> list[bytes]:
        sizes.append(len(request.partition(b"\r\n\r\n")[2]))
        return [ok()]

    with scripted(answer) as port:
        pool = Pool(endpoint(port), ready=1)
        pool.send(endpoint(port).request(body), done)
        assert done.all.wait(60)
        pool.close()
    assert (done.troubles, sizes) == ([""], [len(body)])


def test_failures_of_the_pool_are_told_and_leave_the_rest_alone() -> None:
    done = Collected(3)

    def answer(number: int, request: bytes) -> list[bytes] | None:
        return ([UNAVAILABLE], None, [ok()])[number]

    with scripted(answer) as port:
        pool = Pool(endpoint(port), most=1, ready=1)
        for _ in range(3):
            pool.send(endpoint(port).request(b""), done)
        assert done.all.wait(60)
        pool.close()
    assert done.troubles[2] == ""
    assert "503" in done.troubles[0]
    assert "closed" in done.troubles[1]


def test_a_request_without_an_answer_fails_after_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "TIMEOUT_S", 0.1)
    done = Collected(1)
    with scripted(lambda n, request: []) as port:
        pool = Pool(endpoint(port), ready=1)
        pool.send(endpoint(port).request(b""), done)
        assert done.all.wait(60)
        pool.close()
    assert "no answer" in done.troubles[0]


def test_the_null_responder_answers_everything() -> None:
    with targets.null_server() as null:
        connection = Connection(endpoint(null.port))
        for size in (0, 1, 500_000):
            assert connection.exchange(endpoint(null.port).request(b"x" * size)).endswith(b"{}")
        connection.close()
