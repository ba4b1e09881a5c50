"""The services that tests use are real, and are gone after the tests."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import urllib.request
from pathlib import Path

import docker
import pytest
import services


@pytest.mark.integration
def test_the_engine_is_real(engine: services.Service) -> None:
    with contextlib.closing(docker.DockerClient(base_url=engine.address)) as client:
        assert client.version()["Os"] == "linux"


@pytest.mark.integration
def test_the_registry_is_real(registry: services.Service) -> None:
    with urllib.request.urlopen(f"http://{registry.address}/v2/_catalog", timeout=5) as response:
        assert "repositories" in json.loads(response.read())


def test_a_service_ends_with_the_process_it_is_for(tmp_path: Path) -> None:
    controller = subprocess.Popen(["sleep", "60"])
    service = services.shared(tmp_path, "sleeper", controller.pid, lambda folder: (str(folder), ["sleep", "60"]))
    guardian = os.pidfd_open(service.guardian)
    controller.kill()
    controller.wait()
    assert select.select([guardian], [], [], 30)[0]
    os.close(guardian)
    assert not service.folder.exists()


def test_services_are_stopped_at_the_end(tmp_path: Path) -> None:
    service = services.shared(tmp_path, "other", os.getpid(), lambda folder: (str(folder), ["sleep", "60"]))
    services.stop_all(tmp_path)
    assert not service.folder.exists()
    assert list(tmp_path.glob("*.json")) == []
