"""The access log: a line of JSON for each request, written by a thread of its own.

=================  ==============================================================================================
field              meaning
=================  ==============================================================================================
time               when the request's head had arrived (UTC)
method, path       as they were sent, without the query string; a path is cut after 1024 characters. Of a call of
                   gRPC: POST and the method's full name
status             of the response; 499 where the client went away before there was one. Of a call of gRPC: 200 for
                   OK, else what HTTP has for the same refusal; 499 also where gRPC itself refused the message for
                   its length, for nothing tells the one from the other
duration_us        from the head's arrival until the response was handed to the system; microseconds
request_bytes      of the body; of gRPC, the message
response_bytes     of the body; of gRPC, the messages
model, version     which answered, where it came that far
queue_us           before the run that computed it
compute_us         of that run
batch_rows         of that run: its own rows and those that joined
cached             true where the answer was in the cache
trace_id, span_id  of W3C trace context; the span is this request, and the response tells it
parent_id          the span of the client, where it sent one
=================  ==============================================================================================

Bodies, query strings and headers are never in it. Lines are written within 50 ms, and what does not fit into the
queue of 10,000 is counted (``access_log_lost_total``), not waited for.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from workbench.server.background import Background
from workbench.server.errors import ServerError
from workbench.server.exchange import Exchange

CLIENT_GONE = 499
"""What nginx calls a client that closed its connection before it was answered."""

_STDERR = 2
_LONGEST_PATH = 1024


class Line(msgspec.Struct, omit_defaults=True):
    """A line. See the table of this module."""

    time: datetime
    method: str
    path: str
    status: int
    duration_us: int
    request_bytes: int
    response_bytes: int
    model: str = ""
    version: str = ""
    queue_us: int = -1
    compute_us: int = -1
    batch_rows: int = 0
    cached: bool = False
    trace_id: str = ""
    span_id: str = ""
    parent_id: str = ""


class AccessLog:
    """Writes the lines of exchanges to ``path``, to stderr where it is None."""

    def __init__(self, path: Path | None = None) -> None:
        """Open the file, to go on at its end; ServerError where that is not possible."""
        try:
            self._file = (
                _STDERR if path is None else os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
            )
        except OSError as error:
            raise ServerError(
                f"WORKBENCH_ACCESS_LOG_FILE={str(path)!r} cannot be written: {error.strerror}.",
                "Name a file in a folder that the server may write to; without it the log goes to stderr.",
            ) from None
        self._lines: Background[Exchange] = Background("access-log", self._write)

    @property
    def lost(self) -> int:
        """Lines that were not written."""
        return self._lines.lost

    def add(self, exchange: Exchange) -> None:
        """Has the line of a finished exchange written."""
        self._lines.put(exchange)

    def close(self) -> None:
        """Writes what is left."""
        self._lines.close()
        if self._file != _STDERR:
            os.close(self._file)

    def _write(self, exchanges: Sequence[Exchange]) -> None:
        lines = memoryview(_encoder.encode_lines([_line(each) for each in exchanges]))
        while lines:
            lines = lines[os.write(self._file, lines) :]


_encoder = msgspec.json.Encoder()


def _line(exchange: Exchange) -> Line:
    line = Line(
        datetime.fromtimestamp(exchange.begun_ns / 1e9, UTC),
        exchange.method,
        exchange.path[:_LONGEST_PATH],
        exchange.status or CLIENT_GONE,
        int(exchange.seconds * 1e6),
        exchange.received,
        exchange.sent,
        exchange.model,
        exchange.version,
        cached=exchange.cached,
        trace_id=exchange.trace_id,
        span_id=exchange.span_id,
        parent_id=exchange.parent_id,
    )
    if exchange.queue >= 0:
        line.queue_us = int(exchange.queue * 1e6)
        line.compute_us = int(exchange.compute * 1e6)
        line.batch_rows = exchange.rows
    return line
