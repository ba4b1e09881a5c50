"""What a machine is: the class its figures belong to, facts for information, and its instruction set.

Figures are only compared within a class; the instruction set decides bytes of some artifacts (static int8 of a
transformer differs between AVX2 and AVX-512 VNNI).
"""

from __future__ import annotations

import functools
import os
import platform
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any

from workbench.host import cgroup, cpuid, nvidia

GIB = 2**30

# https://gitlab.com/x86-psABIs/x86-64-ABI, table "Micro-Architecture Levels", in the names of /proc/cpuinfo.
_LEVELS = (
    ("x86-64-v2", {"cx16", "lahf_lm", "popcnt", "pni", "sse4_1", "sse4_2", "ssse3"}),
    ("x86-64-v3", {"avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe"}),
    ("x86-64-v4", {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}),
)
# What int8 kernels choose by, beyond the level.
_EXTRAS = (("avx512_vnni", "vnni"), ("avx_vnni", "avxvnni"), ("amx_int8", "amx"))
_ARM_EXTRAS = (("asimddp", "dotprod"), ("i8mm", "i8mm"), ("sve", "sve"))


def host_class() -> dict[str, Any]:
    """What figures belong to: ``cpu`` (model), ``cores`` and ``memory_gib`` that may be used, ``gpus`` (names)."""
    return {
        "cpu": cpu_model(),
        "cores": usable_cores(),
        "memory_gib": round(usable_memory() / GIB),
        "gpus": nvidia.gpu_names(),
    }


def class_name(machine: Mapping[str, Any]) -> str:
    """The class of a machine as one line: figures of one class compare, others do not."""
    gpus = machine.get("gpus") or []
    return f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB" + "".join(
        f", {gpu}" for gpu in gpus
    )


def host_facts() -> dict[str, Any]:
    """Kernel, operating system, machine type and instruction set: information, no part of the class."""
    return {"kernel": platform.release(), "os": _os_name(), "machine": platform.machine(), "isa": isa_class()}


@functools.cache
def isa_class() -> str:
    """The instruction-set class, such as ``x86-64-v4+vnni`` or ``aarch64+dotprod``."""
    machine = platform.machine()
    if machine == "x86_64":
        cpu = cpuid.this_cpu()
        return x86_class(cpuid.features(cpu) if cpu else _cpuinfo_words("flags"))
    words = _cpuinfo_words("Features")
    return "+".join([machine, *(name for flag, name in _ARM_EXTRAS if flag in words)])


def x86_class(flags: Set[str]) -> str:
    """The class of an x86-64 CPU with ``flags`` (names of /proc/cpuinfo): its level and its int8 extensions."""
    name = "x86-64-v1"
    for level, needed in _LEVELS:
        if not needed <= flags:
            break
        name = level
    return "+".join([name, *(extra for flag, extra in _EXTRAS if flag in flags)])


@functools.cache
def cpu_model() -> str:
    """The CPU's name."""
    cpu = cpuid.this_cpu()
    named = cpuid.brand(cpu) if cpu else ""
    return named or next(iter(_cpuinfo("model name")), "") or platform.machine()


def usable_cores() -> int:
    """Cores this process may use: its affinity, and its cgroup's quota rounded up."""
    cores = len(os.sched_getaffinity(0))
    quota = cgroup.read(os.getpid()).cpu_limit
    return cores if quota is None else max(1, min(cores, -int(-quota // 1)))


def usable_memory() -> int:
    """Bytes of memory this process may use: the machine's, or its cgroup's limit."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min(total, cgroup.read(os.getpid()).memory_limit or total)


def _os_name() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return platform.system()


def _cpuinfo(key: str) -> list[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return []
    return [" ".join(line.partition(":")[2].split()) for line in lines if line.partition(":")[0].strip() == key]


def _cpuinfo_words(key: str) -> frozenset[str]:
    return frozenset(next(iter(_cpuinfo(key)), "").split())
