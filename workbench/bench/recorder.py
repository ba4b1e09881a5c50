"""Latencies in memory that a measuring process writes and its parent reads while it runs.

The measuring process does nothing but store a number: histograms are made in the parent, on another core.
"""

from __future__ import annotations

import mmap
import os
from typing import Any

import numpy as np

_WORD = 8


class Recorder:
    """A growing list of latencies in ns, in memory shared through ``descriptor``: a count, then the values."""

    def __init__(self, descriptor: int, capacity: int) -> None:
        """Map the memory of ``descriptor``, room for ``capacity`` values; more are counted and not kept."""
        self.descriptor = descriptor
        self.capacity = capacity
        self._map = mmap.mmap(descriptor, (capacity + 1) * _WORD)
        self._words = memoryview(self._map).cast("Q")

    @classmethod
    def create(cls, capacity: int) -> Recorder:
        """A new one. The memory is taken from the system as it is written."""
        descriptor = os.memfd_create("latencies")
        os.ftruncate(descriptor, (capacity + 1) * _WORD)
        return cls(descriptor, capacity)

    def record(self, latency: int) -> None:
        """Add one latency. One writer at a time."""
        words = self._words
        count = words[0]
        if count < self.capacity:
            words[count + 1] = latency
        # The count last: a reader never sees a value that is not there yet.
        words[0] = count + 1

    def clear(self) -> None:
        """Start again from nothing."""
        self._words[0] = 0

    def values(self, start: int = 0) -> np.ndarray[Any, np.dtype[np.uint64]]:
        """A copy of the latencies from ``start`` on."""
        count = min(self._words[0], self.capacity)
        return np.array(self._words[1 + start : 1 + count], dtype=np.uint64)

    def close(self) -> None:
        """Give the memory back."""
        self._words.release()
        self._map.close()
        os.close(self.descriptor)
