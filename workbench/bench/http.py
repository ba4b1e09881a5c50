"""HTTP/1.1 for measuring: persistent connections and next to nothing between the query and the socket.

A general client costs more than the inference of a small model; what this one costs is measured against a null
responder and shown beside every figure.
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

TIMEOUT_S = 10.0
"""A request that takes longer has failed."""

_END = b"\r\n\r\n"


class HttpFailure(Exception):
    """A request that was not answered with 200."""


@dataclass(frozen=True)
class Endpoint:
    """Where requests go: ``path`` is that of the model's infer route."""

    host: str
    port: int
    path: str

    def request(self, body: bytes) -> bytes:
        """The whole request, head and ``body``."""
        head = (
            f"POST {self.path} HTTP/1.1\r\nHost: {self.host}:{self.port}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return head.encode("ascii") + body

    def connect(self) -> socket.socket:
        """A new connection, without Nagle's delay."""
        connection = socket.create_connection((self.host, self.port), TIMEOUT_S)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection


def missing(response: bytes | bytearray) -> int:
    """How many bytes ``response`` lacks; at least 1 while its head is not whole. HttpFailure where it is no 200."""
    end = response.find(_END)
    if end < 0:
        return 1
    head = bytes(response[:end]).lower()
    if not head.startswith(b"http/1.1 200"):
        raise HttpFailure(head.partition(b"\r\n")[0].decode("latin-1").upper())
    at = head.find(b"\ncontent-length:")
    if at < 0:
        raise HttpFailure("a response without Content-Length")
    length = int(head[at + 16 :].partition(b"\r\n")[0])
    return end + len(_END) + length - len(response)


def _said(error: Exception) -> str:
    return str(error) if isinstance(error, HttpFailure) else f"{type(error).__name__}: {error}"


class Connection:
    """One request after the other on one connection; a broken one is opened again for the next request."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._socket: socket.socket | None = None

    def exchange(self, request: bytes) -> bytes:
        """The response to ``request``, head and body. HttpFailure where it fails."""
        try:
            if self._socket is None:
                self._socket = self._endpoint.connect()
            self._socket.sendall(request)
            response = self._socket.recv(262144)
            while lacking := missing(response) if response else -1:
                more = self._socket.recv(max(lacking, 65536)) if lacking > 0 else b""
                if not more:
                    raise HttpFailure("the server closed the connection")
                response += more
        except (OSError, HttpFailure) as error:
            self.close()
            raise HttpFailure(_said(error)) from None
        return response

    def close(self) -> None:
        """Close the connection."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


Done = Callable[[str], None]
"""Called with an empty string, or with what went wrong."""


@dataclass
class _Flight:
    """A request under way on a connection."""

    connection: socket.socket
    unsent: memoryview
    done: Done
    since: float
    response: bytearray = field(default_factory=bytearray)


class Pool:
    """Many requests at once: sent from the caller's thread, received on one thread of the pool.

    Sending from the caller's thread keeps the load generator's schedule: a hand-over to another thread would add its
    wake-up to every latency.
    """

    def __init__(self, endpoint: Endpoint, most: int = 256, ready: int = 32) -> None:
        """At most ``most`` connections, ``ready`` of them opened now; requests beyond wait for a free one."""
        self._endpoint = endpoint
        self._most = most
        self._epoll = select.epoll()
        self._lock = threading.Lock()
        self._flights: dict[int, _Flight] = {}
        self._waiting: deque[tuple[bytes, Done]] = deque()
        self._opened = 0
        self._idle = [self._open() for _ in range(ready)]
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._receive, name="responses", daemon=True)
        self._thread.start()

    def send(self, request: bytes, done: Done) -> None:
        """Send ``request``; ``done`` is called on the pool's thread once it is answered, or on this one if it fails."""
        with self._lock:
            connection = self._idle.pop() if self._idle else None
            if connection is None and self._opened >= self._most:
                self._waiting.append((request, done))
                return
        self._start(connection, request, done)

    def backlog(self) -> int:
        """Requests that wait for a connection."""
        return len(self._waiting)

    def close(self) -> None:
        """Stop receiving and close every connection."""
        self._closing.set()
        self._thread.join()
        for flight in list(self._flights.values()):
            flight.connection.close()
        for connection in self._idle:
            connection.close()
        self._epoll.close()

    def _open(self) -> socket.socket:
        connection = self._endpoint.connect()
        connection.setblocking(False)
        # One shot: a hang-up of an idle connection is told once, not for ever. Its next request finds out.
        self._epoll.register(connection, select.EPOLLONESHOT)
        with self._lock:
            self._opened += 1
        return connection

    def _start(self, connection: socket.socket | None, request: bytes, done: Done) -> None:
        try:
            connection = connection or self._open()
            # In the table before it is sent: the answer may come before send returns.
            flight = _Flight(connection, memoryview(request), done, time.monotonic())
            self._flights[connection.fileno()] = flight
            self._push(flight)
        except OSError as error:
            if connection is not None:
                self._drop(connection)
            done(_said(error))

    def _push(self, flight: _Flight) -> None:
        """Send as much as the socket takes; the rest when it takes more."""
        with contextlib.suppress(BlockingIOError):
            flight.unsent = flight.unsent[flight.connection.send(flight.unsent) :]
        events = select.EPOLLIN | (select.EPOLLOUT if flight.unsent else 0)
        self._epoll.modify(flight.connection, events | select.EPOLLONESHOT)

    def _receive(self) -> None:
        due = time.monotonic() + 1
        while not self._closing.is_set():
            for descriptor, events in self._epoll.poll(0.25):
                flight = self._flights.get(descriptor)
                if flight is not None:
                    self._advance(flight, events)
            if time.monotonic() > due:
                due = time.monotonic() + 1
                self._give_up_on_late_ones()

    def _advance(self, flight: _Flight, events: int) -> None:
        try:
            if events & select.EPOLLOUT and flight.unsent:
                self._push(flight)
                return
            part = flight.connection.recv(262144)
            flight.response += part
            lacking = missing(flight.response)
            if lacking < 0 or (lacking and not part):
                raise HttpFailure("the server closed the connection" if lacking > 0 else "a response too long")
        except BlockingIOError:
            lacking = 1
        except (OSError, HttpFailure) as error:
            self._end(flight, _said(error))
            return
        if lacking:
            self._epoll.modify(flight.connection, select.EPOLLIN | select.EPOLLONESHOT)
        else:
            self._end(flight, "")

    def _end(self, flight: _Flight, trouble: str) -> None:
        connection: socket.socket | None = flight.connection
        del self._flights[flight.connection.fileno()]
        if trouble:
            self._drop(flight.connection)
            connection = None
        with self._lock:
            waiting = self._waiting.popleft() if self._waiting else None
            if waiting is None and connection is not None:
                self._idle.append(connection)
        flight.done(trouble)
        if waiting is not None:
            self._start(connection, *waiting)

    def _drop(self, connection: socket.socket) -> None:
        self._flights.pop(connection.fileno(), None)
        connection.close()
        with self._lock:
            self._opened -= 1

    def _give_up_on_late_ones(self) -> None:
        late = time.monotonic() - TIMEOUT_S
        for flight in [each for each in self._flights.values() if each.since < late]:
            self._end(flight, f"no answer within {TIMEOUT_S:g} s")
