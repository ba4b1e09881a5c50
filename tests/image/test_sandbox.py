"""The image at work without an engine: under bubblewrap, and by its own loader."""

from __future__ import annotations

import http.client
import http.server
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from image_helpers import Image

from workbench.errors import StepFailed
from workbench.image import limits
from workbench.image.sandbox import Container, Method, method_here
from workbench.image.v2 import Client

pytestmark = pytest.mark.integration


@pytest.fixture(params=["bubblewrap", "loader"])
def container(request: pytest.FixtureRequest, root: Path, image: Image) -> Iterator[Container]:
    """A fresh one, on one CPU."""
    with Container(root, image.files["config"], cpus=limits.some_cpus(1), method=request.param) as running:
        yield running


@pytest.fixture(scope="module")
def running(root: Path, image: Image) -> Iterator[Container]:
    """One for all tests that only ask it."""
    with Container(root, image.files["config"]) as container:
        yield container


def get(port: int, path: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    finally:
        connection.close()


def inside(root: Path, image: Image, code: str) -> str:
    """What a Python program prints inside the image, under bubblewrap."""
    done = run_inside(root, image, ["/usr/bin/python3.11", "-c", code])
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def run_inside(root: Path, image: Image, words: list[str], **env: str) -> subprocess.CompletedProcess[str]:
    """A command inside the image, under bubblewrap, at its end."""
    container = Container(root, image.files["config"], method="bubblewrap", env=env)
    container.image = {**container.image, "Entrypoint": words}
    read, write = os.pipe()
    try:
        command = container._under_bubblewrap(container._env, write)
        return subprocess.run(command, pass_fds=(write,), capture_output=True, text=True, check=False)
    finally:
        os.close(read)
        os.close(write)


def test_bubblewrap_works_on_the_machine_that_judges_this() -> None:
    assert method_here() == "bubblewrap"


def test_it_answers_on_a_port_of_its_own_keeps_to_its_cpus_and_is_gone_after(container: Container) -> None:
    assert get(container.port, "/v2/health/ready") == 200
    assert container.alive
    assert container.start_s > 0
    assert os.sched_getaffinity(container.pid) == set(limits.some_cpus(1))
    process = psutil.Process(container.pid)
    assert container.stop() == 0
    assert not process.is_running()
    with pytest.raises(ConnectionRefusedError):
        get(container.port, "/v2/health/ready")


def test_it_is_fenced(root: Path, image: Image) -> None:
    code = (
        "import os\n"
        "def refused(path):\n"
        "    try: open(path, 'w').close()\n"
        "    except OSError as error: return error.strerror\n"
        "caps = [l.split()[1] for l in open('/proc/self/status') if l.startswith('Cap')]\n"
        "print(os.getuid(), os.getgid(), os.getpid(), refused('/app/x'), refused('/tmp/x'), set(caps))\n"
    )
    zeros = "0" * 16
    assert inside(root, image, code) == f"65532 65532 1 Read-only file system None {{{zeros!r}}}"


def test_nothing_of_the_machine_is_in_its_environment(
    root: Path, image: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_OF_THIS_MACHINE", "x")
    names = set(inside(root, image, "import os; print(*os.environ)").split())
    assert "SECRET_OF_THIS_MACHINE" not in names
    assert {"WORKBENCH_MODELS", "PYTHONPATH", "ORT_DISABLE_TELEMETRY"} <= names


def test_the_authorities_are_there_by_default(root: Path, image: Image) -> None:
    code = (
        "import os, ssl; given = len(ssl.create_default_context().get_ca_certs())\n"
        "del os.environ['SSL_CERT_FILE']; default = len(ssl.create_default_context().get_ca_certs())\n"
        "print(given == default > 100)"
    )
    assert inside(root, image, code) == "True"


@pytest.fixture
def authority(tmp_path: Path) -> tuple[Path, Path]:
    """The certificate of an authority of our own, and (with its key) that of a server on loopback, signed by it."""
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    own = ["-subj", "/CN=Test authority", "-keyout", "ca.key", "-out", "ca.pem"]
    server = ["-subj", "/CN=server", "-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=CA:FALSE"]
    server += ["-CA", "ca.pem", "-CAkey", "ca.key", "-keyout", "server.pem", "-out", "server.crt"]
    for words in (own, server):
        subprocess.run([*make, *words], cwd=tmp_path, check=True, capture_output=True)
    with (tmp_path / "server.pem").open("ab") as file:
        file.write((tmp_path / "server.crt").read_bytes())
    return tmp_path / "ca.pem", tmp_path / "server.pem"


@pytest.fixture
def https_port(authority: tuple[Path, Path]) -> Iterator[int]:
    """A server on loopback that says hello to who trusts that authority."""

    class Hello(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"hello")

        def log_message(self, *_: object) -> None: ...

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority[1])
    with http.server.HTTPServer(("127.0.0.1", 0), Hello) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


_ASK = """
import os, ssl, sys, urllib.error, urllib.request
def asked():
    try:
        return urllib.request.urlopen(f"https://127.0.0.1:{PORT}/", timeout=30).read().decode()
    except urllib.error.URLError as error:
        return error.reason.verify_message
refused = asked()
with open(os.environ["SSL_CERT_FILE"]) as bundle, open("/tmp/bundle.pem", "w") as more:
    more.write(bundle.read() + AUTHORITY)
os.environ["SSL_CERT_FILE"] = "/tmp/bundle.pem"
print(refused, "|", asked())
"""


def test_the_bundle_decides_which_servers_are_trusted(
    root: Path, image: Image, authority: tuple[Path, Path], https_port: int
) -> None:
    code = f"PORT = {https_port}; AUTHORITY = {authority[0].read_text()!r}\n{_ASK}"
    assert inside(root, image, code) == "unable to get local issuer certificate | hello"


def test_what_the_server_needs_of_python_and_its_wheels_can_be_imported(root: Path, image: Image) -> None:
    modules = "asyncio, bz2, ctypes, decimal, hashlib, json, lzma, ssl, uuid, zlib, zoneinfo, "
    modules += "httptools, msgspec, numpy, numpy.random, onnxruntime, uvloop"
    code = f"import {modules}; print(zoneinfo.ZoneInfo('Asia/Tokyo'), onnxruntime.__version__)"
    import onnxruntime

    assert inside(root, image, code) == f"Asia/Tokyo {onnxruntime.__version__}"


def test_the_health_check_tells_a_server_from_none(root: Path, image: Image, running: Container) -> None:
    _, *command = running.image["Healthcheck"]["Test"]
    with socket.create_server(("127.0.0.1", 0)) as unused:
        free = unused.getsockname()[1]
    for port, said in ((running.port, ""), (free, f"127.0.0.1:{free} does not answer")):
        done = run_inside(root, image, command, WORKBENCH_PORT=str(port))
        assert (done.returncode, said in done.stderr) == (1 if said else 0, True), done.stderr


def test_its_last_words_are_told_when_it_ends_before_it_is_ready(root: Path, image: Image) -> None:
    with pytest.raises(StepFailed, match=r"exit status 2.*no model below /nowhere"):
        Container(root, image.files["config"], env={"WORKBENCH_MODELS": "/nowhere"}).__enter__()


def test_an_end_in_the_middle_is_a_failure(container: Container) -> None:
    os.kill(container.pid, signal.SIGKILL)
    assert container._process is not None
    container._process.wait(30)
    with pytest.raises(StepFailed, match="ended while it was in use"):
        container.stop()


def test_a_refusal_of_the_server_is_told_in_its_words(running: Container) -> None:
    with Client(running.port, "letters") as client, pytest.raises(StepFailed, match=r"404.*letters"):
        client.infer({"x": np.zeros(1, np.float32)})


_PARENT = """
import sys, time
from pathlib import Path
from workbench.image import limits
from workbench.image.sandbox import Container
container = Container(Path(sys.argv[1]), Path(sys.argv[2]), method=sys.argv[3])
container.start()
print(container.pid, flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("method", ["bubblewrap", "loader"])
def test_it_dies_with_a_parent_that_is_killed(root: Path, image: Image, method: Method) -> None:
    command = [sys.executable, "-c", _PARENT, str(root), str(image.files["config"]), method]
    with subprocess.Popen(command, stdin=-1, stdout=-1, stderr=subprocess.DEVNULL, text=True) as parent:
        assert parent.stdout is not None
        server = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    _, alive = psutil.wait_procs([server], timeout=30)
    assert alive == []
