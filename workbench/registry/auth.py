"""How a registry is told who asks: it refuses once, names what it wants, and gets it from then on.

Basic wants the account itself; Bearer wants a token for a *scope* (``repository:team/x:pull,push``), which another
server gives for the account, or for nobody. Tokens end: a new one is fetched shortly before, and once more whenever a
registry refuses the one it gets.
"""

from __future__ import annotations

import base64
import json
import re
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlencode

from workbench.errors import MachineLacks, StepFailed
from workbench.registry.credentials import Account, account_for
from workbench.registry.errors import Answer, Passing, refused, unauthorized

Fetch = Callable[[str, str, Mapping[str, str], bytes], Answer]
"""Sends a method, a URL, headers and a body to a token server, without following where it points."""

_PARAMETER = re.compile(r'([a-z_]+)=(?:"([^"]*)"|([^\s,"]+))', re.IGNORECASE)
_TOKEN = re.compile(r"[\x21-\x7e]{1,65536}")
_ENDS_S = 60  # the token specification's default
_CLIENT = "workbench"


def challenge(text: str) -> tuple[str, dict[str, str]]:
    """The scheme (``bearer``, ``basic`` or empty) and the parameters of a ``WWW-Authenticate`` header."""
    for scheme in ("bearer", "basic"):
        if found := re.search(rf"(?:^|,)\s*{scheme}(?:\s+|$)", text, re.IGNORECASE):
            matches = _PARAMETER.finditer(text, found.end())
            return scheme, {match[1].lower(): match[2] or match[3] or "" for match in matches}
    return "", {}


class Authorization:
    """What a registry is told about who asks. Threads share it."""

    def __init__(self, host: str, fetch: Fetch, clock: Callable[[], float] = time.monotonic) -> None:
        self._host = host
        self._fetch = fetch
        self._clock = clock
        self._lock = threading.Lock()
        self._account: Account | None = None
        self._asked_for_account = False
        self._header: str | None = None
        self._wanted: dict[str, str] = {}
        self._scopes: set[str] = set()
        self._until = float("inf")

    def also(self, scope: str) -> None:
        """Wants tokens for ``scope`` too from now on."""
        with self._lock:
            if self._wanted and scope not in self._scopes:
                self._until = 0
            self._scopes.add(scope)

    def header(self) -> str | None:
        """The ``Authorization`` header to send, None as long as none was asked for."""
        with self._lock:
            if self._wanted and self._clock() >= self._until:
                self._header = self._token(self._host)
            return self._header

    def renew(self, used: str | None, asked: str, place: str) -> bool:
        """Answers a refusal (``asked`` is its ``WWW-Authenticate``) of a request about ``place`` that sent ``used``.

        False where another thread has been faster and there is nothing new. Raises MachineLacks where nobody here is
        known to the registry.
        """
        scheme, wanted = challenge(asked)
        with self._lock:
            if self._header != used:
                return False
            account = self._known()
            if scheme == "bearer":
                self._wanted = wanted
                self._scopes |= set(filter(None, wanted.get("scope", "").split(" ")))
                self._header = self._token(place)
                return True
            basic = _basic(account) if scheme == "basic" and account and account.user else None
            if basic is None or basic == used:
                raise unauthorized(self._host, place, known=account is not None)
            self._header = basic
            return True

    def _known(self) -> Account | None:
        if not self._asked_for_account:
            self._account = account_for(self._host)
            self._asked_for_account = True
        return self._account

    def _token(self, place: str) -> str:
        """A header with a fresh token for all scopes; for those of the last challenge where a server refuses more."""
        asked = set(filter(None, self._wanted.get("scope", "").split(" ")))
        answer = self._ask(self._scopes)
        if answer.status in (400, 401, 403) and asked < self._scopes:
            answer = self._ask(asked)
        if answer.status in (400, 401, 403):
            raise unauthorized(self._host, place, known=self._account is not None)
        if answer.status != 200:
            error = refused(answer, place)
            raise error if isinstance(error, Passing | MachineLacks) else _unusable(self._host)
        token, ends_s = _read_token(answer.body, self._host)
        # A tenth early: a request takes its time to arrive.
        self._until = self._clock() + 0.9 * ends_s
        return f"Bearer {token}"

    def _ask(self, scopes: set[str]) -> Answer:
        realm, account = self._wanted.get("realm", ""), self._account
        fields = [("service", self._wanted["service"])] if "service" in self._wanted else []
        if account is not None and not account.user:
            fields += [("scope", " ".join(sorted(scopes)))]
            fields += [("grant_type", "refresh_token"), ("client_id", _CLIENT), ("refresh_token", account.secret)]
            headers = {"Content-Type": "application/x-www-form-urlencoded"}
            return self._fetch("POST", realm, headers, urlencode(fields).encode())
        fields += [("scope", scope) for scope in sorted(scopes)]
        join = "&" if "?" in realm else "?"
        headers = {"Authorization": _basic(account)} if account else {}
        return self._fetch("GET", f"{realm}{join}{urlencode(fields)}", headers, b"")


def _basic(account: Account) -> str:
    return "Basic " + base64.b64encode(f"{account.user}:{account.secret}".encode()).decode()


def _read_token(body: bytes, host: str) -> tuple[str, float]:
    """The token and how many seconds it holds."""
    try:
        said: dict[str, Any] = json.loads(body)
        token, ends_s = said.get("token") or said["access_token"], float(said.get("expires_in") or _ENDS_S)
    except (RecursionError, ValueError, KeyError, TypeError, AttributeError, OverflowError):
        raise _unusable(host) from None
    if not isinstance(token, str) or not _TOKEN.fullmatch(token):
        raise _unusable(host)
    return token, ends_s


def _unusable(host: str) -> StepFailed:
    return StepFailed(f"The token server of {host} answered with no usable token.", "Look at that registry.")
