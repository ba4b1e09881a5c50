"""The application over small models."""

from __future__ import annotations

import pytest
from server_models import Ask, affine, asker, identity, load_models, lookup

from workbench.server.app import App


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
