"""The health check asks the server that runs, wherever its arguments and environment say that it listens."""

from __future__ import annotations

import http.server
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from authority import Authority
from server_models import affine
from server_process import running

from workbench.server import health


@pytest.fixture
def models(tmp_path: Path) -> Path:
    affine(tmp_path / "models" / "affine" / "1" / "model.onnx")
    return tmp_path / "models"


def test_a_platforms_port_is_asked(models: Path) -> None:
    with running(models, "serve", SAGEMAKER_BIND_TO_PORT="0") as server:
        port = str(server.ready["port"])
        environment = {"SAGEMAKER_BIND_TO_PORT": port, "WORKBENCH_PORT": "1"}
        assert health.ask(["serve"], environment) == ""
        assert health.ask([], {"WORKBENCH_PORT": port, "WORKBENCH_HOST": "0.0.0.0"}) == ""
        assert health.ask([], {"WORKBENCH_PORT": "1"}).startswith("127.0.0.1:1 does not answer: ")


def test_the_address_that_it_listens_on_is_asked(models: Path) -> None:
    if not socket.has_ipv6:
        pytest.skip("this machine has no IPv6")
    for host in ("::", "localhost"):
        with running(models, WORKBENCH_HOST=host) as server:
            assert health.ask([], {"WORKBENCH_HOST": host, "WORKBENCH_PORT": str(server.ready["port"])}) == ""


@pytest.mark.parametrize("mutual", [False, True], ids=["tls", "mutual-tls"])
def test_tls_and_keys_are_no_hindrance(models: Path, tmp_path: Path, mutual: bool) -> None:
    ours = Authority(tmp_path / "ours")
    certificate, key = ours.certificate("server")
    keys = tmp_path / "keys"
    keys.write_text("a-key-of-enough-letters\n")
    settings = {
        "WORKBENCH_TLS_CERT": str(certificate),
        "WORKBENCH_TLS_KEY": str(key),
        "WORKBENCH_API_KEY_FILE": str(keys),
        **({"WORKBENCH_TLS_CLIENT_CA": str(ours.path)} if mutual else {}),
    }
    with running(models, **settings) as server:
        there = {**settings, "WORKBENCH_PORT": str(server.ready["port"])}
        assert health.ask([], there) == ""
        assert health.ask([], {"WORKBENCH_PORT": there["WORKBENCH_PORT"]}) != ""


def test_one_that_is_not_ready_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    class Unready(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(503)

        def log_message(self, *_: object) -> None: ...

    Unready.protocol_version = "HTTP/1.1"
    with http.server.HTTPServer(("127.0.0.1", 0), Unready) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        there = {"WORKBENCH_PORT": str(server.server_port)}
        assert health.ask([], there) == "it answers 503"
        server.shutdown()
        thread.join()
        # Now it listens still, and is too busy to answer, as a server is whose event loop hangs.
        monkeypatch.setattr(health, "PATIENCE_S", 0.05)
        for more in ({}, {"WORKBENCH_TLS_CERT": "x"}, {"WORKBENCH_TLS_CERT": "x", "WORKBENCH_TLS_CLIENT_CA": "x"}):
            assert "timed out" in health.ask([], there | more)


def process(proc: Path, pid: str, namespace: str, words: list[str], **environment: str) -> None:
    """What the kernel tells of a process."""
    (proc / pid / "ns").mkdir(parents=True)
    (proc / pid / "ns" / "mnt").symlink_to(f"mnt:[{namespace}]")
    (proc / pid / "cmdline").write_text("".join(f"{word}\0" for word in words))
    (proc / pid / "environ").write_text("".join(f"{name}={value}\0" for name, value in environment.items()))


def test_the_running_server_says_what_it_was_started_with(tmp_path: Path) -> None:
    server = ["/usr/bin/python3.11", "-m", "workbench.server"]
    process(tmp_path, "self", "1", ["/usr/bin/python3.11", "-S", "/app/workbench/server/health.py"])
    assert health.running(str(tmp_path)) == ((), os.environ)
    # One of another container in the same pod, and a process of another user's.
    process(tmp_path, "2", "9", server, WORKBENCH_PORT="2")
    (tmp_path / "3").mkdir()
    assert health.running(str(tmp_path)) == ((), os.environ)
    process(tmp_path, "10", "1", [*server, "serve"], WORKBENCH_PORT="10", WORKBENCH_TRAFFIC="a=b")
    assert health.running(str(tmp_path)) == (["serve"], {"WORKBENCH_PORT": "10", "WORKBENCH_TRAFFIC": "a=b"})
    # As an engine's init process has it on its line.
    process(tmp_path, "1", "1", ["/sbin/docker-init", "--", *server], WORKBENCH_PORT="1")
    assert health.running(str(tmp_path)) == ([], {"WORKBENCH_PORT": "1"})


def test_a_check_loads_next_to_nothing(models: Path) -> None:
    """It runs every few seconds on the server's CPUs."""
    code = (
        "import sys; before = set(sys.modules)\n"
        "from workbench.server import health\n"
        "assert health.ask((), {'WORKBENCH_PORT': sys.argv[1]}) == ''\n"
        "new = {name: sys.modules[name].__spec__.origin for name in set(sys.modules) - before}\n"
        "print(*sorted(name for name, origin in new.items() if origin.endswith('.py')))"
    )
    with running(models) as server:
        command = [sys.executable, "-S", "-c", code, str(server.ready["port"])]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    ours = ("", ".server", ".server.address", ".server.errors", ".server.health")
    assert done.stdout.split() == ["__future__", *(f"workbench{name}" for name in ours)]
