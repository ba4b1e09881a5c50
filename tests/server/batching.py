"""Models whose runs are watched, and what is asked of them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import numpy as np

from workbench.server.model import Model
from workbench.server.tensors import Array

Feed = dict[str, Array]


class Watched(Model):
    """A model that notes the rows of each run. Where ``hold`` is set, its runs wait for it in their thread."""

    def __init__(self, path: Path, joins: int) -> None:
        super().__init__("m", "1", path, 1)
        self.joins = joins
        self.rows: list[int] = []
        self.hold: threading.Event | None = None
        self.started = threading.Event()

    def run(self, feed: Any, outputs: list[str]) -> list[Array]:
        self.rows.append(len(next(iter(feed.values()))))
        self.started.set()
        if self.hold is not None:
            assert self.hold.wait(30)
        found = super().run(feed, outputs)
        self.slow = self.hold is not None
        return found


def row(value: float, rows: int = 1) -> Feed:
    return {"x": np.full((rows, 3), value, np.float32)}


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(asyncio.wait_for(work, 60))
