"""HTTP to one registry: connections kept, credentials only where they belong, passing faults tried again.

Requests go over TLS, except to loopback addresses and to hosts that the user lists in ``WORKBENCH_INSECURE_REGISTRIES``
(comma-separated, as they stand in a reference). Certificates are checked against the system's authorities, those of the
``certifi`` package and ``REQUESTS_CA_BUNDLE``; proxies are taken from the environment, never for loopback.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import SplitResult, urljoin, urlsplit

import requests
import tenacity
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError

import workbench
from workbench.errors import MachineLacks, StepFailed
from workbench.registry.auth import Authorization
from workbench.registry.errors import Answer, Passing, refused, unreachable

INSECURE = "WORKBENCH_INSECURE_REGISTRIES"
SMALL = 4 << 20
"""The most that is read of an answer which is no blob: what registries allow a manifest to be."""

_PIECE = 256 << 10
_FAULTS = (requests.RequestException, HTTPError, OSError)
_REDIRECTS = (301, 302, 303, 307, 308)
_T = TypeVar("_T")


def is_plain(host: str) -> bool:
    """Whether ``host`` (with its port) is spoken to without TLS."""
    name = urlsplit(f"//{host}").hostname or ""
    listed = [each.strip().lower() for each in os.environ.get(INSECURE, "").split(",")]
    return _is_loopback(name) or bool({host.lower(), name} & set(filter(None, listed)))


def _is_loopback(name: str) -> bool:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(name).is_loopback
    return name == "localhost"


@dataclass(frozen=True)
class Patience:
    """How long faults are borne: how many ``attempts`` a request has, how long (seconds) a connection and an answer may
    take, and the ``longest_s`` wait for which a registry may ask."""

    attempts: int = 5
    connect_s: float = 10.0
    answer_s: float = 120.0
    longest_s: float = 120.0
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic

    def borne(self, work: Callable[[], _T]) -> _T:
        """What ``work`` returns, tried again after each :class:`Passing`; its error where no attempt is left."""
        try:
            return tenacity.Retrying(
                stop=tenacity.stop_after_attempt(self.attempts),
                wait=self._wait,
                retry=tenacity.retry_if_exception(self._worth_waiting),
                sleep=self.sleep,
                reraise=True,
            )(work)
        except Passing as passing:
            raise passing.error from passing

    def _worth_waiting(self, error: BaseException) -> bool:
        return isinstance(error, Passing) and (error.after or 0) <= self.longest_s

    def _wait(self, state: tenacity.RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, Passing) and error.after is not None:
            return error.after
        return tenacity.wait_random_exponential(multiplier=0.5, max=10)(state)


class Slice:
    """The bytes ``start`` to ``end`` of a file as the body of a request: read while they are sent, anew for each try.

    ``told`` is called with the place in the file up to which they were handed on.
    """

    def __init__(self, path: Path, start: int, end: int, told: Callable[[int], None]) -> None:
        self._path = path
        self._start = start
        self._end = end
        self._told = told

    def __len__(self) -> int:
        return self._end - self._start

    def __iter__(self) -> Iterator[bytes]:
        with self._path.open("rb", buffering=0) as file:
            file.seek(self._start)
            at = self._start
            while at < self._end and (piece := file.read(min(_PIECE, self._end - at))):
                yield piece
                at += len(piece)
                self._told(at)


class _SystemTrust(HTTPAdapter):
    """Trusts the system's authorities besides those of ``certifi``."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, ssl_context=ssl.create_default_context(), **kwargs)


class _NotFollowing(requests.Session):
    """Leaves redirects to its user: otherwise it reads their bodies whole, however long, and trips over addresses."""

    def get_redirect_target(self, resp: requests.Response) -> None:  # noqa: ARG002 - as requests calls it
        return None


class Session:
    """Connections to the registry that users call ``host``. Threads share it.

    ``endpoint`` is the host that answers for it, where that is another; ``plain`` overrides whether TLS is used.
    """

    def __init__(
        self,
        host: str,
        patience: Patience | None = None,
        *,
        endpoint: str | None = None,
        plain: bool | None = None,
    ) -> None:
        self.host = host
        self.patience = patience or Patience()
        self.plain = is_plain(host) if plain is None else plain
        self.base = f"{'http' if self.plain else 'https'}://{endpoint or host}"
        self.authorization = Authorization(host, self._fetch, self.patience.clock)
        self._requests = _NotFollowing()
        self._requests.headers["User-Agent"] = f"workbench/{workbench.__version__}"
        self._requests.mount("http://", HTTPAdapter(pool_maxsize=8))
        self._tls = threading.Lock()
        self._tls_ready = False

    def ask(
        self,
        method: str,
        url: str,
        place: str,
        *,
        expect: tuple[int, ...] = (200,),
        headers: Mapping[str, str] | None = None,
        body: bytes | Slice = b"",
    ) -> Answer:
        """The answer to a request about ``place`` (the repository, for messages). Passing faults are tried again.

        ``url`` may be relative to the registry. Raises MachineLacks or StepFailed for any status but those in
        ``expect``.
        """
        return self.patience.borne(lambda: self.once(method, url, place, expect=expect, headers=headers, body=body))

    def once(
        self,
        method: str,
        url: str,
        place: str,
        *,
        expect: tuple[int, ...],
        headers: Mapping[str, str] | None = None,
        body: bytes | Slice = b"",
    ) -> Answer:
        """As :meth:`ask`, without further tries: raises Passing for a fault that another try may not meet."""
        response = self._authorized(method, url, place, headers or {}, body)
        try:
            answer = self._read(response)
        except _FAULTS as error:
            raise unreachable(error, self.host) from error
        if answer.status not in expect:
            raise refused(answer, place)
        return answer

    @contextlib.contextmanager
    def open(
        self, url: str, place: str, *, expect: tuple[int, ...], headers: Mapping[str, str]
    ) -> Iterator[requests.Response]:
        """The answer to a GET whose body is read by the caller. Raises as :meth:`once`."""
        response = self._authorized("GET", url, place, headers, b"")
        try:
            if response.status_code not in expect:
                raise refused(self._read(response), place)
            yield response
        except _FAULTS as error:
            raise unreachable(error, self.host) from error
        finally:
            response.close()

    def _authorized(
        self, method: str, url: str, place: str, headers: Mapping[str, str], body: bytes | Slice
    ) -> requests.Response:
        """The answer, after telling the registry who asks if it wants to know."""
        renewed = False
        while True:
            who = self.authorization.header()
            response = self._followed(method, self._joined(f"{self.base}/", url), {**headers}, body, who)
            if response.status_code != 401 or renewed:
                return response
            asked = response.headers.get("WWW-Authenticate", "")
            self._read(response)
            renewed = self.authorization.renew(who, asked, place)

    def _followed(
        self, method: str, url: str, headers: dict[str, str], body: bytes | Slice, who: str | None
    ) -> requests.Response:
        """The answer, after following where the registry points: storage elsewhere, which gets no credentials."""
        for _ in range(5):
            url = self._checked(url)
            own = {"Authorization": who} if who and _origin(url) == _origin(self.base) else {}
            response = self._send(method, url, {**headers, **own}, body)
            if method not in ("GET", "HEAD") or response.status_code not in _REDIRECTS:
                return response
            response.close()
            url = self._joined(url, response.headers.get("Location", ""))
        raise StepFailed(f"{self.host} points from one address to the next without end.", "Look at that registry.")

    def _checked(self, url: str) -> str:
        """``url`` with the scheme that its host is to be spoken to with. Raises StepFailed where TLS would be lost."""
        parts = self._split(url)
        if parts.netloc == urlsplit(self.base).netloc:
            # Behind a proxy that ends TLS a registry may take itself for one without.
            return parts._replace(scheme=urlsplit(self.base).scheme).geturl()
        if parts.scheme != "https" and not (parts.scheme == "http" and self.plain and is_plain(parts.netloc)):
            raise StepFailed(f"{self.host} points to an address without TLS, which is not followed.", "Look at it.")
        return url

    def _joined(self, base: str, url: str) -> str:
        try:
            return urljoin(base, url)
        except ValueError:
            raise self._no_address() from None

    def _split(self, url: str) -> SplitResult:
        """The parts of an address that the registry gave. Raises StepFailed where it is none."""
        try:
            parts = urlsplit(url)
            parts.port  # noqa: B018 - read for what it raises
        except ValueError:
            raise self._no_address() from None
        return parts

    def _no_address(self) -> StepFailed:
        return StepFailed(f"{self.host} points to what is no address.", "Look at that registry.")

    def _send(self, method: str, url: str, headers: Mapping[str, str], body: bytes | Slice) -> requests.Response:
        loopback = _is_loopback(urlsplit(url).hostname or "")
        if url.startswith("https:"):
            self._trust()
        try:
            return self._requests.request(
                method,
                url,
                headers={"Accept-Encoding": "identity", **headers},
                data=body,
                # Says that the headers are complete: otherwise ~/.netrc replaces them.
                auth=lambda request: request,
                timeout=(self.patience.connect_s, self.patience.answer_s),
                allow_redirects=False,
                proxies={"no_proxy": "*"} if loopback else None,
                stream=True,
            )
        except _FAULTS as error:
            raise unreachable(error, _host(url)) from error

    def _trust(self) -> None:
        """Loads the authorities when the first request needs them: they take some 20 ms."""
        with self._tls:
            if not self._tls_ready:
                self._requests.mount("https://", _SystemTrust(pool_maxsize=8))
                self._tls_ready = True

    def _read(self, response: requests.Response) -> Answer:
        """The answer with its body, which ends the response: its connection is free for the next request."""
        body = response.raw.read(SMALL + 1)
        response.close()
        if len(body) > SMALL:
            raise StepFailed(f"{self.host} answered with more than {SMALL >> 20} MiB.", "Look at that registry.")
        headers = {name.lower(): value for name, value in response.headers.items()}
        return Answer(response.status_code, headers, body)

    def _fetch(self, method: str, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Asks a token server. Raises MachineLacks where that would send an account without TLS."""
        parts = self._split(url)
        if parts.scheme != "https" and not (parts.scheme == "http" and self.plain and is_plain(parts.netloc)):
            raise MachineLacks(
                f"{self.host} wants its account sent without TLS to {_host(url)}.",
                f"If that network is yours, list both in {INSECURE}.",
            )
        response = self._send(method, url, headers, body)
        try:
            return self._read(response)
        except _FAULTS as error:
            raise unreachable(error, self.host) from error


def _host(url: str) -> str:
    """The host in an address, with its port where it says one."""
    return urlsplit(url).netloc.rpartition("@")[2]


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)
