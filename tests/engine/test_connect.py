"""Finding the engine, and what is said where there is none."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import docker
import pytest
import services

from workbench.engine import connect as connecting
from workbench.engine.connect import address, connect, engine_facts
from workbench.errors import MachineLacks


@pytest.fixture
def nothing_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No variable, no context and no socket says where an engine is."""
    for name in ("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.setattr(connecting, "DOCKER_SOCKET", tmp_path / "docker.sock")
    return tmp_path


def listen(path: Path) -> socket.socket:
    path.parent.mkdir(parents=True, exist_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    return listener


def choose_context(folder: Path, host: str) -> None:
    """What ``docker context create chosen`` and ``docker context use chosen`` write."""
    (folder / "docker").mkdir()
    (folder / "docker" / "config.json").write_text('{"currentContext": "chosen"}')
    meta = folder / "docker" / "contexts" / "meta" / hashlib.sha256(b"chosen").hexdigest()
    meta.mkdir(parents=True)
    endpoint = {"docker": {"Host": host, "SkipTLSVerify": False}}
    (meta / "meta.json").write_text(json.dumps({"Name": "chosen", "Metadata": {}, "Endpoints": endpoint}))


def test_the_variable_comes_before_the_context_and_that_before_the_sockets(
    nothing_set: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = f"unix://{nothing_set}/docker.sock"
    assert address() == usual
    with listen(nothing_set / "run" / "podman" / "podman.sock"):
        assert address() == f"unix://{nothing_set}/run/podman/podman.sock"
        with listen(nothing_set / "docker.sock"):
            assert address() == usual
            choose_context(nothing_set, "unix:///by/context.sock")
            assert address() == "unix:///by/context.sock"
            monkeypatch.setenv("DOCKER_HOST", "unix:///by/variable.sock")
            assert address() == "unix:///by/variable.sock"


@pytest.mark.parametrize("there", ["nothing", "a socket that nobody listens on", "a file"])
def test_an_engine_that_does_not_answer_is_told_with_how_to_start_it(there: str, nothing_set: Path) -> None:
    if there == "a file":
        (nothing_set / "docker.sock").touch()
    elif there != "nothing":
        listen(nothing_set / "docker.sock").close()
    with pytest.raises(MachineLacks, match=r"No container engine answers.*docker\.sock") as caught, connect():
        pass
    assert "systemctl start docker" in caught.value.cure


def test_what_is_no_engine_is_told(nothing_set: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    monkeypatch.setenv("DOCKER_HOST", f"tcp://127.0.0.1:{port}")
    with pytest.raises(MachineLacks, match="No container engine answers"), connect():
        pass


_ASK = """
import os
from workbench.engine.connect import connect
from workbench.errors import WorkbenchError
os.setgroups([])
os.setresgid(65534, 65534, 65534)
os.setresuid(65534, 65534, 65534)
try:
    with connect():
        pass
except WorkbenchError as error:
    print(type(error).__name__, error)
"""


@pytest.mark.integration
def test_a_user_who_may_not_use_the_socket_is_told_how_to(engine: services.Service) -> None:
    env = {**os.environ, "DOCKER_HOST": engine.address}
    done = subprocess.run([sys.executable, "-c", _ASK], env=env, capture_output=True, text=True, check=False)
    assert done.stdout.startswith("MachineLacks This user may not use the container engine's socket"), done.stderr
    assert "usermod -aG docker" in done.stdout


@pytest.mark.integration
def test_each_engine_says_what_it_is(any_client: docker.DockerClient) -> None:
    facts = engine_facts(any_client)
    assert facts.name == ("Podman" if "podman" in address() else "Docker")
    assert facts.version
    assert facts.storage_driver
    assert facts.cgroup_version in ("1", "2")
    assert facts.cpus == os.cpu_count()


def test_the_ways_to_a_gpu_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    assert connecting._nvidia({"Runtimes": {"nvidia": {}, "runc": {}}}) == "runtime"
    assert connecting._nvidia({"DiscoveredDevices": [{"Source": "cdi", "ID": "nvidia.com/gpu=0"}]}) == "CDI"
    assert connecting._nvidia({"Runtimes": {"runc": {}}}) == ""
