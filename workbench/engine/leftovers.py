"""Whose a container is, and what killed runs have left behind in the engine.

Everything made for a run bears labels that name its owner: a process, by machine, boot, process namespace, number and
start time. So a number that was given to another process later is not taken for the owner, and what belongs to
another machine (an engine behind a forwarded socket) or namespace is never judged.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import docker

from workbench.engine.errors import ENGINE_ERRORS, told

RUN = "workbench.run"
OWNER = "workbench.owner"

_REMOVAL_S = 10


@dataclass(frozen=True)
class Leftover:
    """A thing in the engine whose owner is gone."""

    kind: Literal["container", "network"]
    id: str
    name: str


def labels(run: str = "") -> dict[str, str]:
    """The labels of what this process makes, for the run ``run`` (its id; else the number of this process)."""
    return {RUN: run or str(os.getpid()), OWNER: owner()}


def owner(pid: int | None = None) -> str:
    """The name of process ``pid`` (this one) among all processes there were and will be, for :func:`is_gone`."""
    pid = os.getpid() if pid is None else pid
    return "/".join((*_here(), str(pid), _start_time(pid)))


def is_gone(name: str) -> bool:
    """Whether the process that :func:`owner` named so has surely ended."""
    machine, boot, namespace, pid, start = ("", "", "", "", "") if name.count("/") != 4 else name.split("/")
    here = _here()
    if machine != here[0] or not pid.isdecimal() or not start:
        return False
    if boot != here[1]:
        return True
    return namespace == here[2] and _start_time(int(pid)) != start and not _is_hidden(int(pid))


def find(client: docker.DockerClient) -> list[Leftover]:
    """The containers and networks of processes that are gone. Raises the errors of :mod:`workbench.engine.errors`."""
    filters = {"label": [OWNER]}
    try:
        containers = client.api.containers(all=True, filters=filters)
        networks = client.api.networks(filters=filters)
    except ENGINE_ERRORS as error:
        raise told(error, "looking for what killed runs left") from error
    found = [Leftover("container", each["Id"], _name(each.get("Names"))) for each in containers if _is_left(each)]
    return found + [Leftover("network", each["Id"], str(each["Name"])) for each in networks if _is_left(each)]


def remove(client: docker.DockerClient, found: Sequence[Leftover]) -> None:
    """Removes what :func:`find` found; what somebody else has removed meanwhile, or is removing, is no error.

    Afterwards it is gone, unless an engine takes over 10 s for a removal that it has begun before.
    """
    for each in found:
        try:
            if each.kind == "container":
                client.api.remove_container(each.id, force=True, v=True)
            else:
                client.api.remove_network(each.id)
        except docker.errors.NotFound:
            continue
        except docker.errors.APIError as error:
            if error.status_code != 409:
                raise told(error, f"removing the {each.kind} {each.name}") from error
            if each.kind == "container":
                _wait_until_gone(client, each.id)
        except ENGINE_ERRORS as error:
            raise told(error, f"removing the {each.kind} {each.name}") from error


def _wait_until_gone(client: docker.DockerClient, container: str) -> None:
    """Waits for a removal that the engine has begun already, on its own or for another process."""
    with contextlib.suppress(*ENGINE_ERRORS):
        client.api.wait(container, timeout=_REMOVAL_S, condition="removed")


def sweep() -> list[Leftover]:
    """Finds and removes leftovers in this machine's engine; what was removed. Nothing where no engine answers."""
    from workbench.engine.connect import connect
    from workbench.errors import MachineLacks

    try:
        with connect() as client:
            found = find(client)
            remove(client, found)
    except MachineLacks:
        return []
    return found


def _is_left(thing: Mapping[str, Any]) -> bool:
    return is_gone(str((thing.get("Labels") or {}).get(OWNER, "")))


def _name(names: Sequence[str] | None) -> str:
    return names[0].lstrip("/") if names else ""


def _here() -> tuple[str, str, str]:
    """This machine, this boot of it, and the namespace that this process's number belongs to."""
    # Virtual machines made from one picture may have one id, so the name goes with it.
    machine = f"{_text(Path('/etc/machine-id'))}@{socket.gethostname()}".replace("/", "")
    boot = _text(Path("/proc/sys/kernel/random/boot_id"))
    return machine, boot, str(Path("/proc/self/ns/pid").stat().st_ino)


def _start_time(pid: int) -> str:
    """When the process started, in the kernel's ticks since boot (proc(5)); "" where there is none."""
    stat = _text(Path(f"/proc/{pid}/stat"))
    # The program's name, in parentheses, may hold anything.
    fields = stat.rpartition(")")[2].split()
    return fields[19] if len(fields) > 19 and fields[0] not in ("Z", "X") else ""


def _is_hidden(pid: int) -> bool:
    """Whether there is such a process of another user that this one may not see (``hidepid`` of proc(5))."""
    if _text(Path(f"/proc/{pid}/stat")):
        return False
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return False


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
