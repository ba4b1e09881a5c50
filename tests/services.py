"""Real services for tests: a Docker engine and an image registry, started by the first test that asks.

All workers of a test run share them. Each runs under a guardian process (:func:`_guard`) that ends it, and removes its
folder, when the test run's controlling process is gone, however that came.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

READY_WITHIN_S = 60.0


@dataclass(frozen=True)
class Service:
    """A running service: where it is reached, its folder, and the process that guards it."""

    address: str
    folder: Path
    guardian: int

    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")


def shared(folder: Path, name: str, controller: int, start: Callable[[Path], tuple[str, list[str]]]) -> Service:
    """The service ``name`` of this test run, started now if it is not running yet.

    ``start`` prepares a folder and returns the address and the command. Raises OSError where it cannot be started.
    """
    with (folder / f"{name}.service.lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        record = folder / f"{name}.service.json"
        if not record.exists():
            # A socket's path may have 107 bytes: the test run's own folder can be too deep.
            own = Path(f"/tmp/workbench-test-{name}-{controller}")
            own.mkdir(mode=0o700)
            address, command = start(own)
            guardian = _spawn([sys.executable, __file__, str(controller), str(own), *command])
            record.write_text(json.dumps({"address": address, "folder": str(own), "guardian": guardian}))
    known = json.loads(record.read_text())
    return Service(known["address"], Path(known["folder"]), known["guardian"])


def _spawn(command: list[str]) -> int:
    """Starts a guardian in a session of its own; its process id. When this returns it clears up, whatever happens.

    It outlives this process, so there is no Popen to wait for it.
    """
    reader, writer = os.pipe()
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_DUP2, writer, 1),
        (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
    ]
    pid = os.posix_spawn(command[0], command, os.environ, file_actions=actions, setsid=True)
    os.close(writer)
    with os.fdopen(reader) as said:
        said.readline()
    return pid


def stop_all(folder: Path) -> None:
    """Ends the services of this test run and waits until they are gone."""
    for record in folder.glob("*.service.json"):
        known = json.loads(record.read_text())
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            descriptor = os.pidfd_open(known["guardian"])
            signal.pidfd_send_signal(descriptor, signal.SIGTERM)
            select.select([descriptor], [], [], READY_WITHIN_S)
            os.close(descriptor)
        record.unlink()


# --- the engine


def engine_command(folder: Path) -> tuple[str, list[str]]:
    """A Docker engine on paths of its own below ``folder``, with a network of its own.

    Engines that share a bridge give the same address to several containers, and each clears the rules of the others.
    So each has a bridge, and makes no rules: ports are published on loopback by its proxy.
    """
    sock = f"unix://{folder}/docker.sock"
    roots = ["--data-root", f"{folder}/data", "--exec-root", f"{folder}/exec", "--pidfile", f"{folder}/pid"]
    number = int.from_bytes(hashlib.sha256(str(folder).encode()).digest()[:2])
    bridge = f"wbtest{number}"
    (folder / "bridge").write_text(bridge)
    address = f"10.{200 + number // 256 % 50}.{number % 256}.1/24"
    for words in (["add", bridge, "type", "bridge"], ["set", bridge, "up"]):
        subprocess.run(["ip", "link", *words], check=True)
    subprocess.run(["ip", "address", "add", address, "dev", bridge], check=True)
    return sock, ["dockerd", *roots, "-H", sock, "--bridge", bridge, "--iptables=false"]


def wait_for_engine(service: Service) -> None:
    """Returns when the engine answers. Raises OSError with its log where it does not."""

    def answers() -> bool:
        with socket.socket(socket.AF_UNIX) as asked:
            asked.settimeout(5)
            asked.connect(service.address.removeprefix("unix://"))
            asked.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
            return b" 200 " in asked.recv(64)

    _wait(service, answers)


# --- the registry


def registry_command(folder: Path) -> tuple[str, list[str]]:
    """Debian's image registry on a free loopback port, over plain HTTP, without accounts; deleting is allowed."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    config = folder / "config.yml"
    config.write_text(
        "version: 0.1\n"
        f"storage: {{filesystem: {{rootdirectory: {folder}/data}}, delete: {{enabled: true}}}}\n"
        f"http: {{addr: {address}}}\n"
        "log: {level: info}\n"
    )
    return address, ["docker-registry", "serve", str(config)]


def wait_for_registry(service: Service) -> None:
    """Returns when the registry answers. Raises OSError with its log where it does not."""

    def answers() -> bool:
        try:
            with urllib.request.urlopen(f"http://{service.address}/v2/", timeout=5) as response:
                return bool(response.status == 200)
        except urllib.error.HTTPError as error:
            with error:
                return error.code == 401  # it wants an account: it is up

    _wait(service, answers)


# --- the guardian


def _wait(service: Service, answers: Callable[[], bool]) -> None:
    until = time.monotonic() + READY_WITHIN_S
    guardian = os.pidfd_open(service.guardian)
    try:
        while time.monotonic() < until:
            with contextlib.suppress(OSError):
                if answers():
                    return
            if select.select([guardian], [], [], 0.05)[0]:
                break
    finally:
        os.close(guardian)
    log = service.log() if (service.folder / "log").exists() else ""
    raise OSError(f"{service.folder.name} does not answer:\n{log[-2000:]}")


@contextlib.contextmanager
def _stop_asked() -> Iterator[int]:
    """A descriptor that is readable once SIGTERM or SIGINT came."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    yield reader


def _guard(controller: int, folder: Path, command: list[str]) -> None:
    """Runs the service until it ends, a signal comes or the process ``controller`` is gone; then clears up."""
    with _stop_asked() as asked, (folder / "log").open("wb") as log:
        watched = [asked]
        with contextlib.suppress(ProcessLookupError):
            watched.append(os.pidfd_open(controller))
        print("guarding", flush=True)
        # In its folder: Podman leaves a file "oom" where it was started when a container runs out of memory.
        service = subprocess.Popen(
            command, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
        own = os.pidfd_open(service.pid)
        if len(watched) == 2:
            select.select([*watched, own], [], [])
        service.terminate()
        if not select.select([own], [], [], 30)[0]:
            os.killpg(service.pid, signal.SIGKILL)
        service.wait()
    if (folder / "bridge").exists():
        subprocess.run(["ip", "link", "delete", (folder / "bridge").read_text()], check=False)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    _guard(int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
