"""How memory of models goes back to the system, which glibc's malloc sees to only in part.

It gives a large block a mapping of its own, but only until the first such block is freed: from then on it takes blocks
of that size for short-lived ones and serves them from its heaps. So weights of each version that comes lie among what
lives longer, as small ones always do, and their place is kept when they go.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Iterator
from typing import Any

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""Of ``mallopt`` (malloc.h)."""
_WEIGHTS = 1 << 20
"""Bytes from which a block gets a mapping while a model is loaded. What malloc begins with, 128 KB, makes mappings of
so many short-lived blocks that a model of 12 MB is opened in 45 ms in place of 32."""
_REQUESTS = 32 << 20
"""The same while requests are answered: as far as malloc would go by itself. A mapping for each large tensor costs a
page fault for each 4 KB of it: a tenth of the throughput of a model that takes 4 MB, or much more."""


@contextlib.contextmanager
def loading_model() -> Iterator[None]:
    """Large blocks that are allocated inside go back when they are freed, others that were freed inside at the end.

    For one thread at a time.
    """
    mallopt = _function("mallopt")
    if mallopt is None:
        yield
        return
    mallopt(_M_MMAP_THRESHOLD, _WEIGHTS)
    try:
        yield
    finally:
        mallopt(_M_MMAP_THRESHOLD, _REQUESTS)
        mallopt(_M_TRIM_THRESHOLD, 2 * _REQUESTS)
        give_back()


def give_back() -> None:
    """Gives back all pages on which nothing is allocated. Takes a few milliseconds, without the interpreter's lock."""
    malloc_trim = _function("malloc_trim")
    if malloc_trim is not None:
        malloc_trim(0)


def _function(name: str) -> Any:
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
