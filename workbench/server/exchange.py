"""What is known of one request while it is answered: for its line in the access log and its span in a trace.

The parts that answer add what they know: which model, how long it waited and computed. They find the exchange in
:data:`current`, which is empty where nobody wants to know.

Traces are those of W3C trace context (https://www.w3.org/TR/trace-context/): a request's ``traceparent`` names the
trace it belongs to and the span that caused it.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Iterable
from contextvars import ContextVar

TRACE_HEADER = b"traceparent"

_TRACEPARENT = re.compile(rb"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
SAMPLED = 0b01
"""The flag of a trace that is recorded."""
_RANDOM = 0b10
"""The flag of a trace whose id is random. Other flags have no meaning yet and are not passed on."""

_NOT_ZERO = 1 << 191 | 1 << 127
"""Bits of a new span's and a new trace's id that are always set, for no id may be zero. Ids are told to the client
anyway: they have to be different, not secret."""


class Exchange:
    """One request and what became of it. Times are seconds of ``time.perf_counter``."""

    __slots__ = (
        *("begun", "begun_ns", "cached", "code", "compute", "flags", "method", "model", "parent_id", "path", "queue"),
        *("received", "rows", "seconds", "sent", "span_id", "status", "trace_id", "version"),
    )

    def __init__(self, method: str, path: str, traceparent: bytes | None) -> None:
        """A request that arrives now; in the trace that ``traceparent`` names, in a new one where that is not valid."""
        self.begun_ns = time.time_ns()
        self.begun = time.perf_counter()
        self.seconds = 0.0
        self.method = method
        self.path = path
        self.status = 0
        """0: the client went away before it was answered."""
        self.code = ""
        """Of gRPC, once it has ended: OK or what went wrong; empty over HTTP."""
        self.received = 0
        """Bytes of the request's body."""
        self.sent = 0
        """Bytes of the response's body."""
        self.model = ""
        self.version = ""
        self.queue = self.compute = -1.0
        """Seconds in the queue, and of the run that computed it; negative where it was not computed."""
        self.rows = 0
        """Rows of that run: its own and those of others that joined."""
        self.cached = False
        """Whether the answer was in the cache."""
        drawn = f"{random.getrandbits(192) | _NOT_ZERO:048x}"
        self.span_id = drawn[:16]
        found = traceparent and _TRACEPARENT.fullmatch(traceparent)
        if found and not (found[1] == b"00" and found[5]):
            self.trace_id = found[2].decode()
            self.parent_id = found[3].decode()
            self.flags = int(found[4], 16) & (SAMPLED | _RANDOM)
        else:
            self.trace_id = drawn[16:]
            self.parent_id = ""
            self.flags = _RANDOM

    @property
    def traceparent(self) -> bytes:
        """What the client is told: the trace, and this exchange's own span in it."""
        return f"00-{self.trace_id}-{self.span_id}-0{self.flags}".encode()

    @property
    def inference(self) -> bool:
        """Whether it is one: over HTTP what is posted to a model. Over gRPC all is posted, and the method says it."""
        return self.model != "" and self.method == "POST" and (not self.code or self.path.endswith("/ModelInfer"))

    def computed(self, queue: float, compute: float, rows: int) -> None:
        """Notes the run that computed the request: seconds before it, its own, and its rows."""
        self.queue = queue
        self.compute = compute
        self.rows = rows


current: ContextVar[Exchange | None] = ContextVar("exchange", default=None)
"""The exchange of the running task."""


def traceparent_of(headers: Iterable[tuple[bytes, bytes]]) -> bytes | None:
    """The one ``traceparent`` of a request; of several none is to be believed."""
    found = [value for name, value in headers if name == TRACE_HEADER]
    return found[0] if len(found) == 1 else None
