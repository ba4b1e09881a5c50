"""API keys: who may ask, where WORKBENCH_API_KEY_FILE is set. ``Authorization: Bearer KEY`` (RFC 6750).

Keys are compared by their digests, each time with all of them, so that the time of a comparison says nothing about
how much of a key was right.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable
from pathlib import Path

from workbench.server.errors import RequestError, ServerError

SHORTEST = 16
"""Characters of a key; a shorter one can be guessed."""

_KEY = re.compile(r"[A-Za-z0-9._~+/-]+=*")


class ApiKeys:
    """The keys, of which one is enough."""

    def __init__(self, keys: Iterable[str]) -> None:
        self._digests = [_digest(key.encode()) for key in keys]

    def check(self, authorization: bytes | None) -> None:
        """RequestError 401 unless ``authorization`` (the header's value; gRPC: of the metadata) has one of them."""
        scheme, _, key = (authorization or b"").partition(b" ")
        if scheme.lower() == b"bearer":
            given = _digest(key.strip())
            if sum([hmac.compare_digest(given, each) for each in self._digests]):
                return
            raise RequestError(401, "the API key is not one of those that this server takes")
        raise RequestError(401, "an API key is needed: send the header (gRPC: metadata) 'authorization: Bearer KEY'")


def read_keys(path: Path) -> ApiKeys:
    """The keys in a file, a line each; ServerError, which names no key, where there is none or one is not usable."""
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ServerError(f"WORKBENCH_API_KEY_FILE={str(path)!r} cannot be read: {_why(error)}.") from None
    keys = []
    for number, line in enumerate(lines, 1):
        key = line.strip()
        if not key:
            continue
        if len(key) < SHORTEST or not _KEY.fullmatch(key):
            raise ServerError(
                f"Line {number} of {path} is no API key.",
                f"A key has {SHORTEST} or more letters, digits and -._~+/ (= at its end), such as `openssl rand "
                "-base64 32` makes.",
            )
        keys.append(key)
    if not keys:
        raise ServerError(f"There is no API key in {path}.", "Put one on a line, or unset WORKBENCH_API_KEY_FILE.")
    return ApiKeys(keys)


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def _why(error: OSError | UnicodeDecodeError) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else "it is not UTF-8"
