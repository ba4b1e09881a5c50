"""Everything that goes wrong between here and a registry, as sentences for the user.

Status codes, error codes and the exceptions of the HTTP client are matched here and nowhere else. A message names the
host and the repository; it never holds what a registry said of its own, a query string or a credential.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from workbench.errors import MachineLacks, StepFailed, WorkbenchError

if TYPE_CHECKING:
    import ssl

# Of what a registry says, only these words are repeated.
_CODES = frozenset(
    """BLOB_UNKNOWN BLOB_UPLOAD_INVALID BLOB_UPLOAD_UNKNOWN DENIED DIGEST_INVALID MANIFEST_BLOB_UNKNOWN MANIFEST_INVALID
    MANIFEST_UNKNOWN NAME_INVALID NAME_UNKNOWN SIZE_INVALID TOOMANYREQUESTS UNAUTHORIZED UNSUPPORTED""".split()  # noqa: SIM905
)
_NO_BLOB = {"BLOB_UNKNOWN", "MANIFEST_BLOB_UNKNOWN"}
# What registries say when their disk is full: ENOSPC and EDQUOT as text, and as Go prints them; Harbor of its quota.
# It counts only where neither status nor code says what happened: a refusal may have such words in it, too.
_FULL = (
    b"no space left",
    b"disk quota exceeded",
    b'"err":28',
    b'"err":122',
    b"insufficient storage",
    b"quota exceeded",
    b"will exceed the configured upper limit",
)

# What OpenSSL calls an answer that is none of TLS.
_PLAIN = ("WRONG_VERSION_NUMBER", "UNKNOWN_PROTOCOL", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE")


class Passing(Exception):
    """A fault that another try may not meet. ``error`` is what is told when no try helps; ``after`` is how long the
    registry asks to wait, in seconds."""

    def __init__(self, error: WorkbenchError, after: float | None = None) -> None:
        super().__init__(str(error))
        self.error = error
        self.after = after


@dataclass(frozen=True)
class Answer:
    """What a registry answered: ``body`` is bounded. Names of headers are lower-case."""

    status: int
    headers: Mapping[str, str]
    body: bytes = b""

    @property
    def codes(self) -> list[str]:
        """The error codes of the OCI distribution specification in the body."""
        try:
            errors = json.loads(self.body)["errors"]
            return [error["code"] for error in errors if error["code"] in _CODES]
        except (RecursionError, ValueError, KeyError, TypeError):
            return []

    @property
    def speaks_of_room(self) -> bool:
        """Whether the text of the body is that of a disk or quota that is full."""
        return any(text in self.body.lower() for text in _FULL)


def refused(answer: Answer, place: str) -> WorkbenchError | Passing:
    """What an unexpected answer about ``place`` (a repository with its host) means."""
    host, status, codes = place.partition("/")[0], answer.status, set(answer.codes)
    wait = retry_after(answer.headers.get("retry-after", ""))
    if status == 401:
        return unauthorized(host, place, known=True)
    if status == 403:
        return _forbidden(host, place, full=answer.speaks_of_room)
    if status in (400, 404) and codes & _NO_BLOB:
        return StepFailed(f"{host} lacks a blob that is needed in {place} ({status}).", "Push it again.")
    if status == 404:
        return _lacks(f"{host} has no {place} (404).", "Create the repository there, or correct its name.")
    if status == 429 or "TOOMANYREQUESTS" in codes:
        said = f"{host} allows no more requests for now ({status})."
        return Passing(_lacks(said, "Wait some minutes, then run it again."), wait)
    if status in (413, 507) or not codes and answer.speaks_of_room:
        return _no_room(answer, host, place)
    if status >= 500 or status == 408:
        said = f"{host} fails ({status}) at {place}."
        return Passing(_lacks(said, "Look at that registry, or run the same command later."), wait)
    said = " ".join([str(status), *answer.codes])
    return StepFailed(f"{host} answered {said} to a request about {place}.", "Run the same command again.")


def no_blob(answer: Answer, digest: str, place: str) -> WorkbenchError | Passing:
    """What it means that ``place`` answered 404 to a request for the blob ``digest``."""
    if "NAME_UNKNOWN" in answer.codes:
        return refused(answer, place)
    return StepFailed(f"{place} has no blob {digest} (404).", "Push it again.")


def _forbidden(host: str, place: str, *, full: bool) -> MachineLacks:
    cure = f"Ask its owner for the right, or log in with another account: docker login {host}"
    room = " It speaks of a full disk or quota: ask for room there, too." if full else ""
    return _lacks(f"{host} does not allow this with {place} (403).", cure + room)


def _no_room(answer: Answer, host: str, place: str) -> MachineLacks:
    status = answer.status
    if status == 413 and not answer.speaks_of_room:
        return _lacks(f"{host} takes no blob of this size for {place} (413).", "Raise its limit for uploads.")
    return _lacks(
        f"{host} has no room for {place}: its disk or quota is full ({status}).",
        "Free space there, then run the same command again: blobs that arrived are not sent again.",
    )


def unauthorized(host: str, place: str, *, known: bool) -> MachineLacks:
    """``host`` wants an account for ``place``: ``known`` says that one was there and was refused."""
    said = "refuses the account that is configured for it" if known else "wants an account, and none is configured"
    return _lacks(f"{host} {said} ({place}, 401).", f"Log in: docker login {host}")


def retry_after(text: str) -> float | None:
    """The seconds that a ``Retry-After`` header asks for: a number or a date; None for neither."""
    if text.isascii() and text.isdigit():
        return float(text[:9])
    import email.utils

    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None


def unreachable(error: BaseException, host: str) -> WorkbenchError | Passing:
    """What an exception of the HTTP client on the way to ``host`` means."""
    # Not above: a layout's errors are here too, and a run that finds its image in place does not wait for TLS.
    import socket
    import ssl

    causes = list(_causes(error))
    kinds = {kind.__name__ for cause in causes for kind in type(cause).__mro__}
    tls = next((cause for cause in causes if isinstance(cause, ssl.SSLError)), None)
    if tls is not None and not isinstance(tls, ssl.SSLEOFError | ssl.SSLZeroReturnError | ssl.SSLSyscallError):
        return _no_tls(tls, host)
    if any("CA certificate bundle" in str(cause) for cause in causes):
        return _lacks("The file with trusted authorities is not there.", "Correct REQUESTS_CA_BUNDLE.")
    if "ProxyError" in kinds:
        return _lacks(f"The proxy on the way to {host} does not pass it on.", "Correct HTTPS_PROXY or NO_PROXY.")
    unknown = next((cause for cause in causes if isinstance(cause, socket.gaierror)), None)
    if unknown is not None:
        lacks = _lacks(f"The name {host} is not known here.", "Correct the name, or this machine's network.")
        return Passing(lacks) if unknown.errno == socket.EAI_AGAIN else lacks
    if kinds & {"InvalidURL", "InvalidHeader", "InvalidSchema", "LocationParseError"}:
        return StepFailed(f"{host} answered with an address or token that cannot be used.", "Look at that registry.")
    said = "broke off the connection"
    if "ConnectionRefusedError" in kinds:
        said = "refuses connections"
    elif kinds & {"Timeout", "TimeoutError"}:
        said = "does not answer in time"
    return Passing(_lacks(f"{host} {said}.", "See that it runs and can be reached, then run the same command again."))


def _no_tls(error: ssl.SSLError, host: str) -> MachineLacks:
    if error.reason == "CERTIFICATE_VERIFY_FAILED":
        why = getattr(error, "verify_message", "")
        return _lacks(
            f"The certificate of {host} is not trusted: {why}.",
            "Add its authority to the system's, or name a file with it in REQUESTS_CA_BUNDLE.",
        )
    if error.reason in _PLAIN:
        return _lacks(
            f"{host} does not answer with TLS.", "If it speaks plain HTTP, list it in WORKBENCH_INSECURE_REGISTRIES."
        )
    return _lacks(f"There is no TLS connection to {host}: {error.reason}.", "Look at that registry's TLS.")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The exception and all that it was made of: the client wraps them in one another."""
    left, seen = [error], set[int]()
    while left:
        one = left.pop(0)
        if isinstance(one, BaseException) and id(one) not in seen:
            seen.add(id(one))
            yield one
            left += [one.__cause__, one.__context__, getattr(one, "reason", None), *one.args]


def damaged(digest: str, place: str) -> StepFailed:
    """What came from, or arrived at, ``place`` is not what ``digest`` says."""
    return StepFailed(f"{digest} at {place} has other bytes than its digest says.", "Push it again.")


def _lacks(message: str, cure: str) -> MachineLacks:
    return MachineLacks(message, cure)
