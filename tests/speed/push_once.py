"""``push_once.py FOLDER REFERENCE``: the push step in a process of its own; prints the seconds that it took."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.registry.push import push


@dataclass
class _Silent:
    scratch: Path

    def progress(self, done: float, total: float, text: str = "") -> None: ...
    def note(self, text: str) -> None: ...
    def sample(self, kind: str, values: Mapping[str, Any]) -> None: ...


def main() -> None:
    folder = Path(sys.argv[1])
    start = time.perf_counter()
    push({part.name: part for part in folder.iterdir()}, {"to": sys.argv[2], "name": folder.name}, _Silent(folder))
    print(time.perf_counter() - start)


if __name__ == "__main__":
    main()
