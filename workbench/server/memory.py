"""What becomes of memory that is freed, where the C library is glibc (malloc.h there); elsewhere nothing is done."""

from __future__ import annotations

import ctypes
from typing import Any

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3

KEPT = 32 << 20
"""Bytes of freed memory that are not given back: the next request takes about as much as the last."""

MAPPED = 8 << 20
"""From so many bytes on a piece of memory is mapped by itself, and given back as soon as it is freed."""


def keep_freed_memory() -> None:
    """Has malloc keep what is freed for the next request.

    By default it gives back all above 128 KiB, and the kernel fills each page with zeros when it is asked for again:
    half of what a request with an image of 110 KB costs beside its model.
    """
    mallopt = _function("mallopt")
    if mallopt is not None:
        mallopt(_M_TRIM_THRESHOLD, KEPT)
        mallopt(_M_MMAP_THRESHOLD, MAPPED)


def give_back_freed_memory() -> None:
    """Has malloc give back whole pages that are free, of all threads' arenas.

    Threads that allocate meanwhile wait for it: some milliseconds for each 100 MB.
    """
    trim = _function("malloc_trim")
    if trim is not None:
        trim(0)


def _function(name: str) -> Any:
    try:
        return getattr(ctypes.CDLL(None), name)
    except (AttributeError, OSError):
        return None
