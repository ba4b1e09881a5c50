"""Under what conditions figures were taken, and whether something else was at work on the machine meanwhile."""

from __future__ import annotations

import os
import resource
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

FOREIGN_LIMIT = 0.15
"""Cores used by others from which a measurement counts as disturbed."""

STEAL_LIMIT = 0.01
"""Share of the machine's time that a hypervisor may take before a measurement counts as disturbed."""


@dataclass(frozen=True)
class _Clock:
    """Seconds: on the wall, busy and stolen over all cores, used by this process and its ended children."""

    wall: float
    busy: float
    stolen: float
    own: float


class Watch:
    """Conditions from entering to leaving. Children must have ended, and been waited for, when it is left:
    only then does the kernel count their time as ours and not as somebody else's."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._start = self._end = _Clock(0, 0, 0, 0)

    def __enter__(self) -> Watch:
        self._start = _now()
        return self

    def __exit__(self, *_: object) -> None:
        self._end = _now()

    def values(self) -> dict[str, Any]:
        """The conditions: threads, spinning, cpus (the set), governor, steal (share), foreign_load (cores),
        duration_s, disturbed, and a sentence where it is."""
        wall = max(self._end.wall - self._start.wall, 1e-9)
        cores = os.cpu_count() or 1
        foreign = max(0.0, self._end.busy - self._start.busy - (self._end.own - self._start.own)) / wall
        steal = max(0.0, self._end.stolen - self._start.stolen) / (wall * cores)
        return {
            "threads": self._threads,
            "spinning": False,
            "cpus": sorted(os.sched_getaffinity(0)),
            "governor": governor(),
            "duration_s": round(wall, 3),
            "steal": round(steal, 4),
            "foreign_load": round(foreign, 3),
            **verdict(foreign, steal),
        }


def verdict(foreign: float, steal: float) -> dict[str, Any]:
    """``disturbed`` and, where so, ``sentence``: ``foreign`` in cores, ``steal`` as a share of all time."""
    causes = []
    if foreign > FOREIGN_LIMIT:
        causes.append(f"other processes used {foreign:.1f} cores")
    if steal > STEAL_LIMIT:
        causes.append(f"the hypervisor took {steal:.1%} of the time")
    if not causes:
        return {"disturbed": False}
    return {"disturbed": True, "sentence": f"Disturbed: {' and '.join(causes)} while this was measured."}


def governor() -> str | None:
    """The frequency governor of the first core of ours; None where there is none to see, as on virtual machines."""
    core = min(os.sched_getaffinity(0))
    try:
        return Path(f"/sys/devices/system/cpu/cpu{core}/cpufreq/scaling_governor").read_text(encoding="ascii").strip()
    except OSError:
        return None


def _now() -> _Clock:
    times = psutil.cpu_times()
    stolen = getattr(times, "steal", 0.0)
    idle = times.idle + getattr(times, "iowait", 0.0)
    guests = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)  # part of user and nice already
    own = sum(
        usage.ru_utime + usage.ru_stime
        for usage in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )
    return _Clock(time.monotonic(), sum(times) - idle - stolen - guests, stolen, own)
