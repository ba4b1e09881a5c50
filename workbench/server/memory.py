"""What becomes of memory that is freed."""

from __future__ import annotations

import ctypes

# malloc.h of glibc
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3

KEPT = 32 << 20
"""Bytes of freed memory that are not given back: the next request takes about as much as the last."""

MAPPED = 8 << 20
"""From so many bytes on a piece of memory is mapped by itself, and given back as soon as it is freed."""


def keep_freed_memory() -> None:
    """Has glibc's malloc keep what is freed for the next request. Nothing where there is another C library.

    By default it gives back all above 128 KiB, and the kernel fills each page with zeros when it is asked for again:
    half of what a request with an image of 110 KB costs beside its model.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return
    mallopt(_M_TRIM_THRESHOLD, KEPT)
    mallopt(_M_MMAP_THRESHOLD, MAPPED)
