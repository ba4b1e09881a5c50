"""A reverse proxy in front of a real registry that does to requests what networks and overloaded registries do."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

_PIECE = 64 << 10


@dataclass
class Seen:
    """A request that came: ``got`` is how many bytes of its body the registry got, ``status`` what was answered."""

    method: str
    path: str
    headers: Mapping[str, str]
    status: int = 0
    got: int = 0


@dataclass
class Rule:
    """What happens to the next ``times`` requests of ``method`` whose path contains ``part``."""

    method: str
    part: str
    times: int
    act: Callable[[_Handler], bool]


@dataclass
class Tokens:
    """A token server: gives tokens to ``account`` (``user:password``) that allow what their scopes say."""

    account: str
    ends_s: int = 300
    given: dict[str, set[str]] = field(default_factory=dict)
    asked: int = 0

    def expire(self) -> None:
        """No token that was given holds any more."""
        self.given.clear()

    def allow(self, header: str, scope: str) -> bool:
        name, actions = scope.rsplit(":", 1)
        held = {one for one in self.given.get(header.removeprefix("Bearer "), set()) if one.startswith(f"{name}:")}
        return any(set(actions.split(",")) <= set(one.rsplit(":", 1)[1].split(",")) for one in held)


class Proxy:
    """The proxy: what it saw, and what it does."""

    def __init__(self, registry: str) -> None:
        self.registry = registry
        self.seen: list[Seen] = []
        self.rules: list[Rule] = []
        self.tokens: Tokens | None = None
        self.connections = 0
        self.lock = threading.Lock()
        self.server = _Server(("127.0.0.1", 0), _Handler)
        self.server.proxy = self
        self.address = f"127.0.0.1:{self.server.server_address[1]}"

    # --- what it does

    def answer(
        self, method: str, status: int, part: str = "", *, times: int = 1, body: bytes = b"", **headers: str
    ) -> None:
        """Answers by itself; ``headers`` are written with _ for -."""

        def act(handler: _Handler) -> bool:
            handler.drop_body()
            handler.say(status, {name.replace("_", "-"): value for name, value in headers.items()}, body)
            return True

        self.rules.append(Rule(method, part, times, act))

    def cut(self, method: str, part: str = "", *, after: int, forwarded: bool, times: int = 1) -> None:
        """Resets the connection after so many bytes of the body; ``forwarded`` says whether the registry gets them."""

        def act(handler: _Handler) -> bool:
            if forwarded:
                handler.forward(cut=after)
            else:
                handler.rfile.read(after)
            handler.reset()
            return True

        self.rules.append(Rule(method, part, times, act))

    def lose_answer(self, method: str, part: str = "", *, times: int = 1) -> None:
        """The registry gets the request; its answer never arrives."""

        def act(handler: _Handler) -> bool:
            handler.forward(answer=False)
            handler.reset()
            return True

        self.rules.append(Rule(method, part, times, act))

    def cut_answer(self, part: str, *, after: int, times: int = 1) -> None:
        """Ends the connection after so many bytes of the answer to a GET."""

        def act(handler: _Handler) -> bool:
            handler.forward(answer_cut=after)
            handler.close_connection = True
            return True

        self.rules.append(Rule("GET", part, times, act))

    def change(self, method: str, part: str = "", *, times: int = 1, **headers: str) -> None:
        """Replaces headers of the answer; without any, lets the request pass, for rules that come later."""

        def act(handler: _Handler) -> bool:
            handler.forward(change={name.replace("_", "-"): value for name, value in headers.items()})
            return True

        self.rules.append(Rule(method, part, times, act))

    # --- what it saw

    def methods(self) -> list[str]:
        return [one.method for one in self.seen]

    def got(self) -> int:
        """The bytes of blobs that the registry got."""
        return sum(one.got for one in self.seen if "/blobs/uploads/" in one.path)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    proxy: Proxy

    def handle_error(self, *_: object) -> None:
        """A connection that broke is what this proxy is for."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    @property
    def proxy(self) -> Proxy:
        assert isinstance(self.server, _Server)
        return self.server.proxy

    def setup(self) -> None:
        super().setup()
        self.proxy.connections += 1

    def handle_any(self) -> None:
        path = urlsplit(self.path).path
        self.seen = Seen(self.command, path, dict(self.headers.items()))
        with self.proxy.lock:
            if path != "/token":
                self.proxy.seen.append(self.seen)
            matching = (r for r in self.proxy.rules if r.method == self.command and r.part in self.path and r.times)
            rule = None if path == "/token" else next(matching, None)
            if rule:
                rule.times -= 1
        if path == "/token":
            return self._give_token()
        if self.proxy.tokens and not self._allowed(path):
            return None
        if rule and rule.act(self):
            return None
        return self.forward()

    do_GET = do_HEAD = do_PUT = do_POST = do_PATCH = do_DELETE = handle_any

    # --- doing

    def forward(
        self,
        *,
        cut: int | None = None,
        answer: bool = True,
        answer_cut: int | None = None,
        change: Mapping[str, str] | None = None,
    ) -> None:
        """Passes the request on and its answer back."""
        upstream = http.client.HTTPConnection(self.proxy.registry, timeout=60)
        upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() not in ("connection", "authorization"):
                upstream.putheader(name, value)
        upstream.endheaders()
        left = int(self.headers.get("Content-Length") or 0)
        while left and (cut is None or self.seen.got < cut):
            piece = self.rfile.read(min(_PIECE, left, left if cut is None else cut - self.seen.got))
            upstream.send(piece)
            left -= len(piece)
            self.seen.got += len(piece)
        if left:
            upstream.close()
            return
        with contextlib.closing(upstream), upstream.getresponse() as response:
            body = response.read()
            if answer:
                headers = {name: value for name, value in response.getheaders() if name.lower() != "content-length"}
                headers |= (
                    {} if self.command != "HEAD" else {"Content-Length": response.headers["Content-Length"] or "0"}
                )
                self.say(response.status, headers | dict(change or {}), body, body[:answer_cut])

    def drop_body(self) -> None:
        left = int(self.headers.get("Content-Length") or 0)
        while left:
            left -= len(self.rfile.read(min(_PIECE, left)))

    def say(self, status: int, headers: Mapping[str, str], body: bytes, sent: bytes | None = None) -> None:
        self.seen.status = status
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if not any(name.lower() == "content-length" for name in headers):
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body if sent is None else sent)

    def reset(self) -> None:
        """Ends the connection as a broken network does: with a reset."""
        self.wfile.flush()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    # --- tokens

    def _allowed(self, path: str) -> bool:
        assert self.proxy.tokens is not None
        repository = path.removeprefix("/v2/").partition("/blobs/")[0].partition("/manifests/")[0]
        actions = "pull" if self.command in ("GET", "HEAD") else "pull,push"
        scope = f"repository:{repository}:{actions}"
        if self.proxy.tokens.allow(self.headers.get("Authorization", ""), scope):
            return True
        self.drop_body()
        realm = f'Bearer realm="http://{self.proxy.address}/token",service="here",scope="{scope}"'
        self.say(401, {"WWW-Authenticate": realm}, b"{}")
        return False

    def _give_token(self) -> None:
        tokens = self.proxy.tokens
        assert tokens is not None
        tokens.asked += 1
        known = base64.b64encode(tokens.account.encode()).decode()
        if self.headers.get("Authorization") != f"Basic {known}":
            return self.say(401, {}, b"{}")
        scopes = set(parse_qs(urlsplit(self.path).query).get("scope", []))
        token = f"secret-token-{tokens.asked}"
        tokens.given[token] = scopes
        return self.say(200, {}, json.dumps({"token": token, "expires_in": tokens.ends_s}).encode())

    def log_message(self, *_: object) -> None: ...


@contextlib.contextmanager
def running(registry: str) -> Iterator[Proxy]:
    """A proxy in front of ``registry`` until the end of the block."""
    proxy = Proxy(registry)
    thread = threading.Thread(target=proxy.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield proxy
    finally:
        proxy.server.shutdown()
        proxy.server.server_close()
        thread.join()
