"""Work that nobody waits for: a bounded queue and one thread that works it off."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

_PIECE = 256
"""Most items that are worked off at once: the event loop gets the interpreter in between."""


class Background(Generic[T]):
    """Calls ``work`` with what was put, some items at a time, in a thread of its own.

    The thread is awakened once for all that comes within ``pause`` seconds: an awakening for each item would cost
    more than the work. ``share``: the part of one processor's time that it takes at most, by pausing longer.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[list[T]], None],
        finish: Callable[[], None] = lambda: None,
        *,
        capacity: int = 10_000,
        pause: float = 0.05,
        share: float = 1.0,
    ) -> None:
        """Start the thread ``name``; of more than ``capacity`` items those that come last are lost. ``finish`` is
        called by the thread at its end."""
        self.lost = 0
        """Items that did not fit, and those that ``work`` failed on."""
        self._work = work
        self._finish = finish
        self._items: deque[T] = deque()
        self._capacity = capacity
        self._pause = pause
        self._share = share
        self._asleep = True
        self._called = threading.Event()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def put(self, item: T) -> None:
        """Has ``item`` worked off soon; never waits."""
        if len(self._items) >= self._capacity:
            self.lost += 1
            return
        self._items.append(item)
        if self._asleep:
            self._asleep = False
            self._called.set()

    def close(self, seconds: float = 2.0) -> None:
        """Works off what is there and ends the thread; gives up after ``seconds``."""
        self._ended.set()
        self._called.set()
        self._thread.join(seconds)

    def _run(self) -> None:
        pause = self._pause
        while not self._ended.is_set():
            self._called.wait()
            self._ended.wait(pause)
            self._called.clear()
            # Before the queue is emptied: what is put while it is being emptied calls again.
            self._asleep = True
            begun = time.thread_time()
            while self._items:
                self._work_off()
            pause = max(self._pause, (time.thread_time() - begun) * (1 / self._share - 1))
        with contextlib.suppress(Exception):
            self._finish()

    def _work_off(self) -> None:
        items = [self._items.popleft() for _ in range(min(_PIECE, len(self._items)))]
        try:
            self._work(items)
        except Exception:
            # The thread must live on, and the first failure be seen.
            if not self.lost:
                traceback.print_exc(file=sys.stderr)
            self.lost += len(items)
