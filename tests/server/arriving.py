"""Bytes that arrive at a connection."""

from __future__ import annotations

from workbench.server.connection import Connection


def arrive(end: Connection, data: bytes) -> None:
    """``data`` comes, as the loop hands it over."""
    while data:
        room = end.get_buffer(-1)
        size = min(len(room), len(data))
        room[:size] = data[:size]
        end.buffer_updated(size)
        data = data[size:]
