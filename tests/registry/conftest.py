"""Registries for tests: behind a proxy that injects faults, and with an account."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

import proxy
import pytest
import services

ACCOUNT = "ali:open sesame"
_BCRYPT = "$2b$05$abcdefghijklmnopqrstuupx2xBUC4954936wVIjyyPHmUBFu0wCW"


@pytest.fixture(autouse=True)
def _nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Docker's configuration of this machine does not count."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))


@pytest.fixture
def faulty(registry: services.Service) -> Iterator[proxy.Proxy]:
    """The registry, behind a proxy that does what a test asks it to."""
    with proxy.running(registry.address) as running:
        yield running


@pytest.fixture
def repository() -> str:
    """A repository that no other test uses."""
    return f"team/{uuid.uuid4().hex}"


@pytest.fixture(scope="session")
def guarded(services_folder: Path) -> services.Service:
    """A real registry that wants :data:`ACCOUNT`, by HTTP's Basic scheme."""
    if shutil.which("docker-registry") is None:
        pytest.skip("needs docker-registry (apt-get install docker-registry)")
    controller = os.getppid() if "PYTEST_XDIST_WORKER" in os.environ else os.getpid()
    found = services.shared(services_folder, "guarded", controller, _guarded_command)
    services.wait_for_registry(found)
    return found


def _guarded_command(folder: Path) -> tuple[str, list[str]]:
    address, command = services.registry_command(folder)
    (folder / "users").write_text(f"ali:{_BCRYPT}\n")
    with (folder / "config.yml").open("a") as config:
        config.write(f"auth: {{htpasswd: {{realm: here, path: {folder}/users}}}}\n")
    return address, command
