"""What the kernel accounts for the cgroup of a process, version 1 and 2.

Read from the files themselves: a container engine's own stats stream gives one value a second.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

MOUNT = Path("/sys/fs/cgroup")

_Limit = TypeVar("_Limit", int, float)

_UNLIMITED = 2**60
"""Version 1 writes "no limit" as a number near 2**63."""


@dataclass(frozen=True)
class Cgroup:
    """One reading: CPU seconds used, memory in bytes, limits in cores and bytes. None: not accounted or not limited.
    The limits are the tightest of this group and those above it.

    ``own`` is false for the root cgroup, whose numbers are the machine's.
    """

    own: bool = False
    cpu_seconds: float | None = None
    cpu_limit: float | None = None
    memory: int | None = None
    memory_limit: int | None = None


def read(pid: int, mount: Path = MOUNT, proc: Path = Path("/proc")) -> Cgroup:
    """The cgroup of process ``pid``; an empty reading where there is none to see."""
    groups: dict[str, str] = {}
    for line in _text(proc / str(pid) / "cgroup").splitlines():
        _, controllers, group = line.split(":", 2)
        groups |= dict.fromkeys(controllers.split(","), group)
    if "memory" in groups or "cpuacct" in groups:
        return _version_1(groups, mount)
    group = groups.get("", "/")
    return _version_2(mount / group.lstrip("/"), group != "/", mount)


def _version_1(groups: dict[str, str], mount: Path) -> Cgroup:
    def folder(controller: str) -> Path:
        inside = mount / controller / groups.get(controller, "/").lstrip("/")
        # In a container the path is the host's while the mount shows the container's own part of the tree.
        return inside if inside.is_dir() else mount / controller

    used = _number(folder("cpuacct") / "cpuacct.usage")
    memory = folder("memory")
    # In a container the groups above are not to be seen, but the kernel says the tightest of them here.
    above = dict(line.split() for line in _text(memory / "memory.stat").splitlines() if line.count(" ") == 1)
    inherited = int(above.get("hierarchical_memory_limit", _UNLIMITED))
    limits = [inherited, *(_number(group / "memory.limit_in_bytes") for group in _up(memory, mount))]
    return Cgroup(
        own=groups.get("memory", groups.get("cpuacct", "/")) != "/",
        cpu_seconds=None if used is None else used / 1e9,
        cpu_limit=_tightest(_cfs_quota(group) for group in _up(folder("cpu"), mount)),
        memory=_number(memory / "memory.usage_in_bytes"),
        memory_limit=_tightest(limit for limit in limits if limit and limit < _UNLIMITED),
    )


def _version_2(folder: Path, own: bool, mount: Path) -> Cgroup:
    if not folder.is_dir():
        return Cgroup()
    stat = dict(line.split() for line in _text(folder / "cpu.stat").splitlines())
    groups = _up(folder, mount)
    return Cgroup(
        own=own,
        cpu_seconds=int(stat["usage_usec"]) / 1e6 if "usage_usec" in stat else None,
        cpu_limit=_tightest(_quota(group) for group in groups),
        memory=_number(folder / "memory.current"),
        memory_limit=_tightest(_number(group / "memory.max") for group in groups),
    )


def _up(folder: Path, mount: Path) -> list[Path]:
    """A group and those above it, which hold it, too: a service in a slice, a container in a pod."""
    return [folder, *(above for above in folder.parents if above.is_relative_to(mount))]


def _tightest(limits: Iterable[_Limit | None]) -> _Limit | None:
    return min((limit for limit in limits if limit is not None), default=None)


def _quota(group: Path) -> float | None:
    quota, _, period = _text(group / "cpu.max").strip().partition(" ")
    return int(quota) / int(period) if quota.isdecimal() and period.isdecimal() else None


def _cfs_quota(group: Path) -> float | None:
    quota, period = _number(group / "cpu.cfs_quota_us"), _number(group / "cpu.cfs_period_us")
    return quota / period if quota and period and quota > 0 else None


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if text.lstrip("-").isdecimal() else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except OSError:
        return ""
