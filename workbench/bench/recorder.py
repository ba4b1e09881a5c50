"""Latencies in memory that a measuring process writes and its parent reads while it runs; how many queries wait.

The measuring process does nothing but store a number: histograms are made in the parent, on another core.
"""

from __future__ import annotations

import mmap
import os
from typing import Any

import numpy as np

_WORD = 8
_HEAD = 2
"""Words before the latencies: how many there are, and how many queries were begun."""


class Recorder:
    """A growing list of latencies in ns, in memory shared through ``descriptor``."""

    def __init__(self, descriptor: int, capacity: int) -> None:
        """Map the memory of ``descriptor``, room for ``capacity`` values; more are counted and not kept."""
        self.descriptor = descriptor
        self.capacity = capacity
        self._map = mmap.mmap(descriptor, (capacity + _HEAD) * _WORD)
        self._words = memoryview(self._map).cast("Q")

    @classmethod
    def create(cls, capacity: int) -> Recorder:
        """A new one. The memory is taken from the system as it is written."""
        descriptor = os.memfd_create("latencies")
        os.ftruncate(descriptor, (capacity + _HEAD) * _WORD)
        return cls(descriptor, capacity)

    def record(self, latency: int) -> None:
        """Add one latency. One writer at a time."""
        words = self._words
        count = words[0]
        if count < self.capacity:
            words[count + _HEAD] = latency
        # The count last: a reader never sees a value that is not there yet.
        words[0] = count + 1

    def begin(self) -> None:
        """Counts a query that will be recorded when it is answered. One writer at a time."""
        self._words[1] += 1

    @property
    def waiting(self) -> int | None:
        """How many queries were begun and not answered; None where only answers are counted."""
        begun = self._words[1]
        return max(begun - self._words[0], 0) if begun else None

    def clear(self) -> None:
        """Start again from nothing."""
        self._words[0] = self._words[1] = 0

    def values(self, start: int = 0) -> np.ndarray[Any, np.dtype[np.uint64]]:
        """A copy of the latencies from ``start`` on."""
        count = min(self._words[0], self.capacity)
        return np.array(self._words[_HEAD + start : _HEAD + count], dtype=np.uint64)

    def close(self) -> None:
        """Give the memory back."""
        self._words.release()
        self._map.close()
        os.close(self.descriptor)
