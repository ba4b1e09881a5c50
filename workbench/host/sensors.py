"""What the machine does now: CPU, steal, memory, disk, load, a tree of processes, its cgroup, GPUs.

A reading is a frozen :class:`Snapshot`; a sensor that is not there reads NA. :class:`Sampler` takes readings at a rate
on one thread of its own.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from workbench.host import cgroup, nvidia
from workbench.host.na import NA, NaType, as_json, known

HERTZ = 4.0


@dataclass(frozen=True)
class Tree:
    """A process and its descendants: how many, CPU in percent of one core, resident memory in bytes."""

    processes: int
    cpu: float
    memory: int


@dataclass(frozen=True)
class Snapshot:
    """One reading. CPU figures are percent since the reading before (NA in the first); memory and disk are bytes.

    ``cgroup_cpu`` is percent of one core; disk rates are bytes a second over all disks.
    """

    time: float
    cpu: float
    cpu_each: tuple[float, ...]
    steal: float
    load: float
    memory_used: int
    memory_total: int
    disk_free: int
    disk_read: float
    disk_written: float
    tree: Tree | NaType
    cgroup_cpu: float
    cgroup_memory: int | NaType
    cgroup_memory_limit: int | NaType
    gpus: tuple[nvidia.GpuReading, ...]

    def as_record(self) -> dict[str, Any]:
        """The reading as plain JSON; NA becomes null."""
        record: dict[str, Any] = as_json(asdict(self))
        return record


class Sensors:
    """Takes readings. Rates need the reading before, so one object belongs to one reader."""

    def __init__(self, root_pid: int | None = None, disk: Path = Path()) -> None:
        """Watch the machine, the file system of ``disk`` and, where given, the processes from ``root_pid`` down."""
        self.root_pid = root_pid
        self._disk = str(disk)
        self._then = 0.0
        self._cpus: list[Any] = []
        self._io: Any = None
        self._cgroup_cpu: float | None = None
        self._processes: dict[int, psutil.Process] = {}
        self._tree_cpu: dict[int, float] = {}

    def read(self) -> Snapshot:
        """A reading now."""
        now = time.monotonic()
        elapsed = now - self._then if self._then else 0.0
        self._then = now
        cores = self._cpu()
        memory = psutil.virtual_memory()
        read, written = self._disk_rates(elapsed)
        group_cpu, group = self._cgroup(elapsed)
        return Snapshot(
            time=time.time(),
            cpu=_mean([busy for busy, _ in cores]),
            cpu_each=tuple(busy for busy, _ in cores),
            steal=_mean([steal for _, steal in cores]),
            load=os.getloadavg()[0],
            memory_used=memory.total - memory.available,
            memory_total=memory.total,
            disk_free=psutil.disk_usage(self._disk).free,
            disk_read=read,
            disk_written=written,
            tree=self._tree(elapsed),
            cgroup_cpu=group_cpu,
            cgroup_memory=known(group.memory) if group.own else NA,
            cgroup_memory_limit=known(group.memory_limit) if group.own else NA,
            gpus=tuple(nvidia.gpu_readings()),
        )

    def _cpu(self) -> list[tuple[float, float]]:
        """Busy and stolen percent of each core since the last reading."""
        now = psutil.cpu_times(percpu=True)
        then, self._cpus = self._cpus, now
        if len(then) != len(now):
            return [(NA, NA)] * len(now)
        return [_busy_and_steal(before, after) for before, after in zip(then, now, strict=True)]

    def _disk_rates(self, elapsed: float) -> tuple[float, float]:
        now = psutil.disk_io_counters()
        then, self._io = self._io, now
        if now is None or then is None or not elapsed:
            return NA, NA
        return (now.read_bytes - then.read_bytes) / elapsed, (now.write_bytes - then.write_bytes) / elapsed

    def _cgroup(self, elapsed: float) -> tuple[float, cgroup.Cgroup]:
        group = cgroup.read(self.root_pid or os.getpid())
        then, self._cgroup_cpu = self._cgroup_cpu, group.cpu_seconds
        if not group.own or then is None or group.cpu_seconds is None or not elapsed:
            return NA, group
        return 100 * (group.cpu_seconds - then) / elapsed, group

    def _tree(self, elapsed: float) -> Tree | NaType:
        if self.root_pid is None:
            return NA
        try:
            root = self._processes.get(self.root_pid) or psutil.Process(self.root_pid)
            members = {each.pid: each for each in (root, *root.children(recursive=True))}
        except psutil.NoSuchProcess:
            return NA
        # The objects are kept: psutil caches what does not change in them.
        self._processes = {pid: self._processes.get(pid, process) for pid, process in members.items()}
        cpu, memory = {}, 0
        for pid, process in self._processes.items():
            try:
                with process.oneshot():
                    times = process.cpu_times()
                    memory += process.memory_info().rss
            except psutil.Error:
                continue  # it has ended between the two looks
            cpu[pid] = times.user + times.system
        before, self._tree_cpu = self._tree_cpu, cpu
        spent = sum(seconds - before.get(pid, 0.0) for pid, seconds in cpu.items())
        return Tree(len(cpu), 100 * spent / elapsed if elapsed else NA, memory)


class Sampler:
    """Reads the sensors at a rate on a thread of its own and hands each reading, as plain JSON, to ``callback``.

    The thread waits on an event, so it ends at once; a reading that takes longer than the interval drops the ones it
    has missed. Use as a context manager. An exception of ``callback`` ends the sampling and is raised on leaving.
    """

    def __init__(
        self, callback: Callable[[dict[str, Any]], None], root_pid: int | None = None, hertz: float = HERTZ
    ) -> None:
        self._callback = callback
        self._sensors = Sensors(root_pid)
        self._interval = 1 / hertz
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sensors", daemon=True)
        self._failure: Exception | None = None

    def __enter__(self) -> Sampler:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        if self._failure is not None and kind is None:
            raise self._failure

    def _run(self) -> None:
        due = time.monotonic()
        while not self._stop.wait(max(0.0, due - time.monotonic())):
            try:
                self._callback(self._sensors.read().as_record())
            except Exception as failure:
                self._failure = failure
                return
            due = max(due + self._interval, time.monotonic())


def _busy_and_steal(then: Any, now: Any) -> tuple[float, float]:
    # Guest time is part of user time already.
    names = [name for name in now._fields if not name.startswith("guest")]
    spent = {name: max(0.0, getattr(now, name) - getattr(then, name)) for name in names}
    total = sum(spent.values())
    if not total:
        return NA, NA
    idle = spent["idle"] + spent.get("iowait", 0.0)
    steal = spent.get("steal", 0.0)
    return 100 * (total - idle - steal) / total, 100 * steal / total


def _mean(values: list[float]) -> float:
    if not values or any(isinstance(value, NaType) for value in values):
        return NA
    return sum(values) / len(values)
