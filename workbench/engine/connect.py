"""The connection to the container engine of this machine, and what engine it is."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
from docker.tls import TLSConfig
from docker.transport import unixconn
from docker.utils import kwargs_from_env

from workbench.engine.errors import ENGINE_ERRORS, told

DOCKER_SOCKET = Path("/var/run/docker.sock")

_UNIX = "unix://"


@dataclass(frozen=True)
class EngineFacts:
    """What an engine says of itself. ``rootless``: it is an ordinary user's, with networks out of this machine's sight.
    ``nvidia`` says how it gives out GPUs (``runtime``, ``CDI``, ``hook``), or ""."""

    name: str
    version: str
    storage_driver: str
    cgroup_version: str
    cpus: int
    rootless: bool
    nvidia: str


def address() -> str:
    """Where the engine listens: DOCKER_HOST, Docker's current context, Docker's socket, Podman's sockets.

    Where none of them is there it is Docker's socket, for the error.
    """
    return _address()[0]


def _address() -> tuple[str, TLSConfig | bool]:
    if host := os.environ.get("DOCKER_HOST"):
        return host, _tls_of_environment()
    host, tls = _context()
    if host:
        return host, tls
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    podman = [Path(runtime, "podman/podman.sock")] if runtime else []
    sockets = [DOCKER_SOCKET, *podman, Path("/run/podman/podman.sock")]
    # Not is_socket: a folder that may not be entered hides a socket, and then the error is to say so.
    return f"{_UNIX}{next((path for path in sockets if _may_be_there(path)), DOCKER_SOCKET)}", False


def _may_be_there(path: Path) -> bool:
    try:
        return path.is_socket()
    except PermissionError:
        return True


def _tls_of_environment() -> TLSConfig | bool:
    tls = kwargs_from_env().get("tls", False)
    return tls if isinstance(tls, TLSConfig) else False


def _context() -> tuple[str, TLSConfig | bool]:
    """The endpoint of the context that ``docker context use`` chose; "" where that is the default one."""
    from docker.context import ContextAPI

    try:
        context = ContextAPI.get_current_context()
    except (docker.errors.DockerException, OSError, ValueError, KeyError):
        return "", False
    if context is None or context.Name == "default":
        return "", False
    return str(context.Host or ""), context.TLSConfig or False


@contextlib.contextmanager
def connect() -> Iterator[docker.DockerClient]:
    """A client of this machine's engine, whose connections are closed at the end.

    Raises MachineLacks where no engine answers or this user may not ask it.
    """
    where, tls = _address()
    try:
        _knock(where)
        client = docker.DockerClient(base_url=where, tls=tls)
    except ENGINE_ERRORS as error:
        raise told(error, f"connecting to {where}") from error
    with contextlib.closing(client):
        if where.startswith(_UNIX):
            client.api.mount("http+docker://", _Adapter(f"http+{where}"))
        yield client


def _knock(where: str) -> None:
    """Raises OSError where nothing listens on a Unix socket: the docker package leaves its own socket open then."""
    if not where.startswith(_UNIX):
        return
    path = where.removeprefix(_UNIX)
    # A machine without an engine is asked nothing: a run there makes no connection at all.
    with contextlib.suppress(PermissionError):
        if not Path(path).exists():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    with socket.socket(socket.AF_UNIX) as asked:
        asked.connect(path)


class _Connection(unixconn.UnixHTTPConnection):
    """As the docker package's, but a socket that finds nobody is closed."""

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        try:
            self.sock.settimeout(self.timeout)
            self.sock.connect(self.unix_socket)
        except OSError:
            self.sock.close()
            raise


class _Pool(unixconn.UnixHTTPConnectionPool):
    def _new_conn(self) -> Any:
        timeout: Any = self.timeout
        return _Connection(self.base_url, self.socket_path, timeout)


class _Adapter(unixconn.UnixHTTPAdapter):
    def get_connection(self, url: Any, proxies: Any = None) -> _Pool:  # noqa: ARG002 - as requests calls it
        with self.pools.lock:
            pool = self.pools.get(url)
            if pool is None:
                pool = self.pools[url] = _Pool(url, self.socket_path, self.timeout, maxsize=self.max_pool_size)
            return pool


def engine_facts(client: docker.DockerClient) -> EngineFacts:
    """What engine ``client`` is connected to."""
    try:
        version, info = client.version(), client.info()
    except ENGINE_ERRORS as error:
        raise told(error, "asking what engine it is") from error
    return EngineFacts(
        name="Podman" if is_podman(version) else "Docker",
        version=str(version.get("Version", "")),
        storage_driver=str(info.get("Driver", "")),
        cgroup_version=str(info.get("CgroupVersion", "")),
        cpus=int(info.get("NCPU") or 0),
        rootless=any("rootless" in str(option) for option in info.get("SecurityOptions") or ()),
        nvidia=_nvidia(info),
    )


def is_podman(version: dict[str, Any]) -> bool:
    """Whether the answer to a question for the version comes from Podman."""
    return any("podman" in str(part.get("Name", "")).lower() for part in version.get("Components") or ())


def _nvidia(info: dict[str, Any]) -> str:
    if "nvidia" in (info.get("Runtimes") or {}):
        return "runtime"
    if any("nvidia" in str(device) for device in info.get("DiscoveredDevices") or ()):
        return "CDI"
    # An engine says nothing of the hook: it looks for it on its PATH when a GPU is asked for.
    return "hook" if shutil.which("nvidia-container-runtime-hook") else ""
