"""The response cache: a request that was answered before is answered again without computing it.

An entry is named by a digest of the outputs asked for and the inputs' bytes, and by the loading of the model that
computed it: what a version answered before its file changed is never given again. Only for models that answer the
same request the same way each time.
"""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from workbench.server.batcher import Batcher, Done, Outcome, Request
from workbench.server.errors import RequestError
from workbench.server.exchange import current
from workbench.server.protocol import Asked
from workbench.server.tensors import Array, TensorSpec, size_in_memory, to_bytes

Key = tuple[int, bytes]

_ENTRY = 600
"""Bytes that an entry takes beside its arrays' own: key, list, array objects."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What was answered, and the bytes that it takes."""

    results: list[Array]
    size: int


class ResponseCache:
    """At most ``limit`` bytes of answers; what was not asked for the longest goes first."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._entries: OrderedDict[Key, Entry] = OrderedDict()
        self.held = 0
        """Bytes that are taken."""
        self.evicted = 0
        """Entries that had to go for others."""

    def __len__(self) -> int:
        return len(self._entries)

    def submit(self, batcher: Batcher, asked: Asked, done: Done, in_flight: int = 0) -> Request | None:
        """Has the results of a request handed to ``done``: from here, at once, or from the model, as
        :meth:`Batcher.submit` does."""
        key = (batcher.serial, request_digest(asked, batcher.model.inputs))
        entry = self._entries.get(key)
        if entry is None:
            batcher.meter.cache_misses += 1

            def keep(outcome: Outcome) -> None:
                done(outcome)
                if not isinstance(outcome, RequestError):
                    self._keep(key, outcome)

            return batcher.submit(asked.feed, asked.outputs, keep, asked.timeout, in_flight)
        self._entries.move_to_end(key)
        meter = batcher.meter
        meter.cache_hits += 1
        meter.answered += 1
        meter.last_ns = time.time_ns()
        exchange = current.get()
        if exchange is not None:
            exchange.cached = True
        if batcher.statistics is not None:
            batcher.statistics.add(asked.feed, asked.outputs, entry.results)
        done(entry.results)
        return None

    def _keep(self, key: Key, results: Sequence[Array]) -> None:
        # Copies: what was computed for several requests at once is held as a whole by each one's part.
        kept = [np.array(each) for each in results]
        for each in kept:
            each.flags.writeable = False
        entry = Entry(kept, _ENTRY + sum(map(size_in_memory, kept)))
        if entry.size > self._limit or key in self._entries:
            return
        self._entries[key] = entry
        self.held += entry.size
        while self.held > self._limit:
            _, gone = self._entries.popitem(last=False)
            self.held -= gone.size
            self.evicted += 1


def request_digest(asked: Asked, inputs: Mapping[str, TensorSpec]) -> bytes:
    """What distinguishes a request from all others to a model with these inputs: 32 bytes of SHA-256.

    A shape says where its tensor's bytes end, so no two requests give the same bytes to digest.
    """
    digest = hashlib.sha256(repr(asked.outputs).encode())
    for name, spec in inputs.items():
        array = asked.feed[name]
        digest.update(repr(array.shape).encode())
        digest.update(to_bytes(array, spec.datatype) if array.dtype.hasobject else np.ascontiguousarray(array).data)
    return digest.digest()
