"""Docker engines of one test's own, which it may stop, fill or kill."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest
import services


class StartEngine(Protocol):
    """Starts a Docker engine of the test's own; ``before`` are words in front of its command."""

    def __call__(self, *before: str) -> services.Service: ...


@pytest.fixture
def own_engine(tmp_path: Path, engine: services.Service) -> Iterator[StartEngine]:
    """Starts Docker engines for this test alone, on one data folder; they are gone after it."""
    names = (f"own{number}" for number in itertools.count())
    data = tmp_path / "docker-data"
    data.mkdir()

    def start(*before: str) -> services.Service:
        def command(folder: Path) -> tuple[str, list[str]]:
            address, words = services.engine_command(folder)
            return address, [*before, *words, "--data-root", str(data)]

        found = services.shared(tmp_path, next(names), os.getpid(), command)
        services.wait_for_engine(found)
        return found

    yield start
    services.stop_all(tmp_path)
