"""An image at work in the container engine, under the limits of the recipe.

A read-only root with an empty ``/tmp``, the image's own user, no capabilities and no way to new ones, a limit of
processes, and one port, published on loopback only. It takes no more memory than its limit: swap is no way out.
"""

from __future__ import annotations

import contextlib
import socket
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import docker
from docker.types import DeviceRequest, LogConfig, Ulimit

from workbench.engine import leftovers
from workbench.engine.connect import EngineFacts, engine_facts
from workbench.engine.errors import ENGINE_ERRORS, out_of_memory, told
from workbench.engine.watch import Watch
from workbench.errors import StepFailed, UsageError, WorkbenchError
from workbench.image import limits

Gpus = Literal["all"] | int | Sequence[str]
"""All GPUs, that many, or those with these UUIDs (of GPUs or MIG instances)."""

READY_LINE = "workbench.server: serving "
"""How the line of the server begins that says requests are taken."""

_KILLED = 128 + 9

PIDS = 512
OPEN_FILES = 16384
PROCESSES = 16384
_TMP = "rw,noexec,nosuid,nodev,size=64m"
_HOLD_ON_S = 1.0
"""How long the engine may take to tell of the end of a container that has just stopped answering."""


class EngineContainer:
    """A running image. Use it as a context manager: it is ready inside the block and gone after it.

    ``image`` is its id or name in the engine of ``client``; ``env`` overrides the image's environment, ``port`` is the
    one on this machine (0: the engine takes a free one). ``cpus`` is how many CPUs' time it may use, ``cpuset`` which
    CPUs, ``memory`` the bytes, ``pids`` how many processes and threads, ``gpus`` what it gets of them, ``run`` the id
    of the run it is for. After the start: ``url``, ``port``, ``pid`` (as this machine sees it; 0 where the engine is
    elsewhere), ``start_s`` (seconds from the start to readiness), ``memory_held`` (whether ``memory`` is), ``direct``
    (host and port of the server itself, past the engine's proxy, where this machine reaches it).

    What killed runs have left in the engine is removed first. The server's words go to stderr.
    """

    method: Literal["engine"] = "engine"

    def __init__(
        self,
        client: docker.DockerClient,
        image: str,
        *,
        env: Mapping[str, str] | None = None,
        port: int = 0,
        cpus: float | None = None,
        cpuset: Iterable[int] | None = None,
        memory: int | None = None,
        pids: int | None = None,
        gpus: Gpus | None = None,
        run: str = "",
        ready_within_s: float = 120.0,
        stop_within_s: float = 30.0,
    ) -> None:
        self.client = client
        self.image = image
        self.port = port
        self.pid = 0
        self.start_s = 0.0
        self.memory_held = False
        self.direct: tuple[str, int] | None = None
        self.id = ""
        self._env = dict(env or {})
        self._cpus = cpus
        self._cpuset = None if cpuset is None else sorted(cpuset)
        self._memory = memory
        self._pids = pids or PIDS
        self._gpus = gpus
        self._run = run
        self._ready_within_s = ready_within_s
        self._stop_within_s = stop_within_s
        self._inner_port = 0
        self._watch: Watch | None = None
        self._tells_of_memory = True

    @property
    def url(self) -> str:
        """Where the server answers."""
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> EngineContainer:
        try:
            self.start()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.stop()
            return
        cause = self._own_end() if isinstance(error, Exception) else None
        self.kill()
        if cause is not None:
            raise cause from error

    # --- start

    def start(self) -> None:
        """Starts the image and waits until it takes requests. Raises StepFailed with its last words where it ends
        first, MachineLacks where the engine cannot give what is asked."""
        leftovers.remove(self.client, leftovers.find(self.client))
        facts = engine_facts(self.client)
        # Podman 4.3 with cgroup v1 says nowhere that an end was for want of memory.
        self._tells_of_memory = facts.name == "Docker"
        started = time.monotonic()
        try:
            self._inner_port = self._exposed()
            made = self.client.api.create_container(self.image, **self._options(facts))
            self.id = made["Id"]
            self._watch = Watch(self.client, self.id, lambda line: line.startswith(READY_LINE))
            self.client.api.start(self.id)
            self._look(facts)
        except ENGINE_ERRORS as error:
            if self._watch is None or self._watch.exit_code is None:
                raise told(error, "starting the image") from error
        self._until_ready()
        self.start_s = time.monotonic() - started
        if self.direct is not None and not _answers(self.direct):
            self.direct = None

    def _exposed(self) -> int:
        config = self.client.images.get(self.image).attrs["Config"] or {}
        ports = [name.partition("/")[0] for name in config.get("ExposedPorts") or () if not name.endswith("/udp")]
        own = [port for port in ports if f"WORKBENCH_PORT={port}" in (config.get("Env") or ())]
        ports = own or ports  # of an image of ours the other one is gRPC's
        if len(ports) != 1 or not ports[0].isdecimal():
            raise UsageError(f"The image {self.image} exposes not one port but {len(ports)}.", "Expose the server's.")
        return int(ports[0])

    def _options(self, facts: EngineFacts) -> dict[str, Any]:
        port = f"{self._inner_port}/tcp"
        host = self.client.api.create_host_config(
            port_bindings={port: ("127.0.0.1", self.port or None)},
            nano_cpus=None if self._cpus is None else round(min(self._cpus, facts.cpus or self._cpus) * 1e9),
            cpuset_cpus=None if self._cpuset is None else ",".join(map(str, self._cpuset)),
            mem_limit=self._memory,
            memswap_limit=self._memory,
            pids_limit=self._pids,
            read_only=True,
            tmpfs={"/tmp": _TMP},  # noqa: S108
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
            # Podman's own defaults are more than an ordinary user, or root in a container, may set.
            ulimits=[
                Ulimit(name="nofile", soft=OPEN_FILES, hard=OPEN_FILES),
                Ulimit(name="nproc", soft=PROCESSES, hard=PROCESSES),
            ],
            init=False,
            # So Docker removes it also when it starts again after an end in the middle. Podman, where it tells of an
            # end for want of memory, does so in the ended container only.
            auto_remove=facts.name == "Docker",
            # The log is read as it comes; kept, it could fill the disk.
            log_config=LogConfig(type=LogConfig.types.NONE),
            device_requests=None if self._gpus is None else [device_request(self._gpus)],
        )
        return {
            "environment": self._env,
            "ports": [(str(self._inner_port), "tcp")],
            "labels": leftovers.labels(self._run),
            "host_config": host,
        }

    def _look(self, facts: EngineFacts) -> None:
        """Reads the running container's process and port, and whether its memory is held."""
        found = self.client.api.inspect_container(self.id)
        network = found["NetworkSettings"]
        bound = (network.get("Ports") or {}).get(f"{self._inner_port}/tcp")
        self.port = int(bound[0]["HostPort"]) if bound else self.port
        self.pid = _pid_here(int(found["State"]["Pid"]), self.id)
        if self._memory is not None:
            held = int(found["HostConfig"].get("Memory") or 0)
            # Podman's limit may be on the group above, where the kernel is not asked for it.
            self.memory_held = limits.is_held(self.pid, self._memory) or 0 < held <= self._memory
        if self.pid and not facts.rootless:
            self.direct = _direct(network, self._inner_port)

    def _until_ready(self) -> None:
        watch = self._watched
        watch.wait(lambda one: one.ready or one.exit_code is not None or one.lost, self._ready_within_s)
        if watch.lost or watch.exit_code is not None:
            raise self._ended("before it took requests")
        if not watch.ready:
            raise StepFailed(f"The image did not get ready within {self._ready_within_s:.0f} s.{self.last_words()}")

    # --- while it runs

    @property
    def _watched(self) -> Watch:
        assert self._watch is not None
        return self._watch

    def last_words(self) -> str:
        """What the image said last, for a message; empty if nothing."""
        said = [] if self._watch is None else list(self._watch.said)
        return "" if not said else " It said last: " + " | ".join(said[-5:])

    @property
    def alive(self) -> bool:
        """Whether the image still runs."""
        return self._watch is not None and self._watch.exit_code is None and not self._watch.lost

    # --- end

    def stop(self) -> int:
        """SIGTERM, and what is in flight may finish; SIGKILL where it takes too long. Returns the exit status; 0 where
        it was stopped before. Raises StepFailed where the image has ended by itself."""
        watch = self._watch
        if watch is None:
            return 0
        if not self.alive:
            error = self._ended("while it was in use")
            self.kill()
            raise error
        self._tell(lambda: self.client.api.kill(self.id, "SIGTERM"))
        watch.wait(lambda one: one.exit_code is not None or one.lost, self._stop_within_s)
        self.kill()
        return -1 if watch.exit_code is None else watch.exit_code

    def kill(self) -> None:
        """Ends the image at once, and removes the container."""
        watch, self._watch = self._watch, None
        if self.id and not (watch is not None and (watch.lost or watch.removed)):
            self._tell(lambda: self.client.api.remove_container(self.id, force=True, v=True))
            if watch is not None:
                watch.wait(lambda one: one.removed or one.lost, self._stop_within_s)
        if watch is not None:
            watch.close()
        self.id = ""

    def _tell(self, what: Callable[[], object]) -> None:
        """Asks something of the engine; that the container is gone, or going, by itself is no error."""
        try:
            what()
        except docker.errors.NotFound:
            return
        except docker.errors.APIError as error:
            if error.status_code != 409:
                sys.stderr.write(f"{told(error, 'ending the image')}\n")
        except ENGINE_ERRORS as error:
            sys.stderr.write(f"{told(error, 'ending the image')}\n")

    def _own_end(self) -> WorkbenchError | None:
        """Why a container ended that nobody asked to: what went wrong in the block is then its consequence."""
        if self._watch is None:
            return None
        self._watch.wait(lambda one: one.exit_code is not None or one.lost, _HOLD_ON_S)
        return None if self.alive else self._ended("while it was in use")

    def _ended(self, when: str) -> WorkbenchError:
        watch = self._watched
        if watch.signalled:
            # An engine that stops has its containers end first.
            watch.wait(lambda one: one.lost, _HOLD_ON_S)
        if watch.lost:
            return told("lost connection: the engine has ended its events", "the image ran")
        watch.drain(self._stop_within_s)
        if self._ran_out_of_memory():
            return out_of_memory(self._memory)
        if watch.exit_code == _KILLED and self._memory is not None and not self._tells_of_memory:
            return out_of_memory(self._memory, surely=False)
        if watch.signalled:
            return StepFailed(f"Somebody else ended the image {when}.", "Run the same command again.")
        return StepFailed(f"The image ended {when} (exit status {watch.exit_code}).{self.last_words()}")

    def _ran_out_of_memory(self) -> bool:
        """Whether the kernel killed it for its memory. The engine tells that before it removes the container, and not
        always before the end; where it is not removed, it says so itself."""
        watch = self._watched
        with contextlib.suppress(*ENGINE_ERRORS):
            state = self.client.api.inspect_container(self.id)["State"]
            if state.get("OOMKilled"):
                return True
            if state.get("Status") == "exited" and not watch.removed:
                return watch.out_of_memory
        watch.wait(lambda one: one.out_of_memory or one.removed or one.lost, _HOLD_ON_S)
        return watch.out_of_memory


def device_request(gpus: Gpus) -> DeviceRequest:
    """What is asked of an engine for ``gpus``. Raises UsageError where that is nothing or both all and some."""
    if gpus == "all" or isinstance(gpus, int):
        count = -1 if gpus == "all" else int(gpus)
        if count == 0 or count < -1:
            raise UsageError(f"{gpus} GPUs cannot be asked for.", 'Write "all", a number or a list of UUIDs.')
        return DeviceRequest(driver="nvidia", count=count, capabilities=[["gpu"]])
    ids = [str(one) for one in gpus]
    if not ids or isinstance(gpus, str) or any("," in one or not one for one in ids):
        raise UsageError(f"{gpus!r} names no GPUs.", 'Write "all", a number or a list of UUIDs.')
    return DeviceRequest(driver="nvidia", device_ids=ids, capabilities=[["gpu"]])


def ask_for_gpus(client: docker.DockerClient, image: str, interpreter: str, gpus: Gpus) -> None:
    """Has the engine start a container of ``image`` with ``gpus`` that does nothing. Raises MachineLacks where the
    engine cannot give them."""
    command = [interpreter, "-c", "pass"]
    host = client.api.create_host_config(device_requests=[device_request(gpus)], network_mode="none", cap_drop=["ALL"])
    container = ""
    try:
        made = client.api.create_container(
            image, entrypoint=command, labels=leftovers.labels(), host_config=host, user="65534"
        )
        container = made["Id"]
        client.api.start(container)
    except ENGINE_ERRORS as error:
        raise told(error, "asking the engine for GPUs") from error
    finally:
        if container:
            with contextlib.suppress(*ENGINE_ERRORS):  # an engine that is gone has said so above; labels name the rest
                client.api.remove_container(container, force=True, v=True)


def _direct(network: Mapping[str, Any], port: int) -> tuple[str, int] | None:
    """The server in the container's own network, if that network's gateway is this machine."""
    for each in (network, *(network.get("Networks") or {}).values()):
        address, gateway = each.get("IPAddress"), each.get("Gateway")
        if address and gateway:
            return (str(address), port) if _is_own(str(gateway)) else None
    return None


def _is_own(address: str) -> bool:
    """Whether this machine has the address: only then may it be listened on."""
    try:
        with socket.socket() as tried:
            tried.bind((address, 0))
    except OSError:
        return False
    return True


def _answers(where: tuple[str, int]) -> bool:
    try:
        socket.create_connection(where, timeout=_HOLD_ON_S).close()
    except OSError:
        return False
    return True


def _pid_here(pid: int, container: str) -> int:
    """``pid`` if this machine has that process in a cgroup of the container, else 0: an engine may be in a virtual
    machine or far away."""
    try:
        groups = Path(f"/proc/{pid}/cgroup").read_text(encoding="ascii")
    except OSError:
        return 0
    return pid if container in groups else 0
