"""How many processors this process may use: what its control groups and its affinity allow, not what the host has."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")


def cpu_limit(root: Path = ROOT, membership: Path = MEMBERSHIP) -> float:
    """The processors that this process may keep busy, 0.5 for half of one.

    The tightest quota of its own group and those above counts, of cgroup v2 (``cpu.max``) and v1
    (``cpu.cfs_quota_us``), and the processors that it may be scheduled on.
    """
    quotas = [quota for folder in _folders(root, membership) if (quota := _quota(folder)) is not None]
    return min([*quotas, float(len(os.sched_getaffinity(0)))])


def default_threads(workers: int = 1) -> int:
    """A thread for each processor of those that each of ``workers`` has its share of; at least one."""
    return max(1, math.ceil(cpu_limit() / workers))


def default_workers() -> int:
    """A worker for each whole processor, at least one."""
    return max(1, math.floor(cpu_limit()))


def _folders(root: Path, membership: Path) -> Iterator[Path]:
    """The folders of the process's groups that bound processors, up to the root of what can be seen here."""
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        if controllers and "cpu" not in controllers.split(","):
            continue
        # In a container the host's path is not there: the mount shows the group itself as its root.
        top = root / controllers if controllers else root
        folder = top / path.strip("/")
        while folder != top and top in folder.parents:
            yield folder
            folder = folder.parent
        yield top


def _quota(folder: Path) -> float | None:
    try:
        quota, period = (folder / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota = (folder / "cpu.cfs_quota_us").read_text().strip()
            period = (folder / "cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    if not quota.isdigit() or not period.isdigit() or not int(period):
        return None  # "max", or -1: no bound
    return int(quota) / int(period)
