"""Real engines, and the digits image in them: as it is, and with other programs on the same layers."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
import services
from digits_image import Image, cache, image, shared_folder
from engine_helpers import Program, podman_command
from own_engine import own_engine

from workbench.engine import load
from workbench.engine.connect import connect

__all__ = ["cache", "image", "own_engine", "shared_folder"]


@pytest.fixture(scope="session")
def podman(services_folder: Path) -> services.Service:
    """A real Podman, behind the socket that speaks Docker's protocol."""
    if os.geteuid() != 0 or shutil.which("podman") is None:
        pytest.skip("a Podman of its own needs root and podman (apt-get install podman)")
    controller = os.getppid() if "PYTEST_XDIST_WORKER" in os.environ else os.getpid()
    found = services.shared(services_folder, "podman", controller, podman_command)
    services.wait_for_engine(found)
    return found


@pytest.fixture(params=["docker", "podman"])
def any_client(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[docker.DockerClient]:
    """A client of each engine in turn."""
    found = request.getfixturevalue("engine" if request.param == "docker" else "podman")
    monkeypatch.setenv("DOCKER_HOST", found.address)
    with connect() as client:
        yield client


@pytest.fixture
def client(engine: services.Service, monkeypatch: pytest.MonkeyPatch) -> Iterator[docker.DockerClient]:
    """A client of Docker."""
    monkeypatch.setenv("DOCKER_HOST", engine.address)
    with connect() as client:
        yield client


@pytest.fixture
def program(image: Image, tmp_path: Path, request: pytest.FixtureRequest) -> Program:
    """Makes the config of an image that runs a Python program on the digits image's layers: one of this test only."""

    def made(code: str, **changes: Any) -> Path:
        code = f"# {request.node.nodeid}\n{code}"
        config = json.loads(image.files["config"].read_bytes())
        config["config"] |= {"Entrypoint": ["/usr/bin/python3.11", "-S", "-c", code], "Healthcheck": None} | changes
        data = json.dumps(config).encode()
        path = tmp_path / hashlib.sha256(data).hexdigest()[:12]
        path.write_bytes(data)
        return path

    return made


@pytest.fixture
def loaded(image: Image) -> Iterator[Callable[[docker.DockerClient, Path], str]]:
    """Loads a config on the digits image's layers; what the test loaded so is removed after it, but digits itself."""
    taken: list[tuple[docker.DockerClient, str]] = []

    def load_it(client: docker.DockerClient, config: Path) -> str:
        found = load.ensure_loaded(client, config, image.blobs, "digits" if config == image.files["config"] else "test")
        if config != image.files["config"]:
            taken.append((client, load.tag_of("test", found)))
        return found

    yield load_it
    for client, tag in taken:
        load.remove_images(client, [tag])
