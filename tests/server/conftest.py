"""The application over small models, and what joins requests to one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from batching import Watched
from server_models import Ask, affine, asker, identity, load_models, lookup

from workbench.server.app import App
from workbench.server.batcher import Batcher, Limits
from workbench.server.meter import Meter


@pytest.fixture(scope="session")
def app(tmp_path_factory: pytest.TempPathFactory) -> App:
    """An application over identity, lookup and affine in versions 1, 2 and 10."""
    folder = tmp_path_factory.mktemp("models")
    files = {
        "identity": {"1": identity(folder / "identity.onnx")},
        "lookup": {"1": lookup(folder / "lookup.onnx")},
        "affine": {version: affine(folder / f"{version}.onnx", float(version)) for version in ("1", "2", "10")},
    }
    return App(load_models(files), max_body=100_000)


@pytest.fixture
def ask(app: App) -> Ask:
    """Asks that application."""
    return asker(app)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as one:
        yield one


@pytest.fixture
def make(tmp_path: Path, pool: ThreadPoolExecutor) -> Callable[..., tuple[Watched, Batcher]]:
    """Makes a model and what joins its requests."""

    def made(path: Path | None = None, joins: int = 64, slow: bool = False, **limits: Any) -> tuple[Watched, Batcher]:
        model = Watched(path or affine(tmp_path / "m.onnx"), joins)
        if slow:
            model.slow, model.hold = True, threading.Event()
        return model, Batcher(model, Limits(**limits), pool, Meter())

    return made
