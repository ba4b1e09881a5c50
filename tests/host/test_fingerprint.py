"""A machine is known by its class and its instruction set."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from workbench.host import cgroup, fingerprint

V2 = {"cx16", "lahf_lm", "popcnt", "pni", "sse4_1", "sse4_2", "ssse3"}
V3 = V2 | {"avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe"}
V4 = V3 | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}


@pytest.mark.parametrize(
    ("flags", "name"),
    [
        (set(), "x86-64-v1"),
        (V2, "x86-64-v2"),
        (V3 - {"fma"}, "x86-64-v2"),
        (V3, "x86-64-v3"),
        (V3 | {"avx_vnni"}, "x86-64-v3+avxvnni"),
        (V4, "x86-64-v4"),
        (V4 | {"avx512_vnni"}, "x86-64-v4+vnni"),
        (V4 | {"avx512_vnni", "amx_int8"}, "x86-64-v4+vnni+amx"),
        (V4 - V3, "x86-64-v1"),
    ],
)
def test_the_class_is_the_level_and_what_int8_kernels_choose_by(flags: set[str], name: str) -> None:
    assert fingerprint.x86_class(flags) == name


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="needs /proc")
def test_the_cpu_says_what_the_kernel_says_where_nothing_is_emulated() -> None:
    flags = fingerprint._cpuinfo_words("flags")
    if not flags:
        pytest.skip("no x86")
    assert fingerprint.isa_class() == fingerprint.x86_class(flags)


def test_the_class_of_this_machine_is_whole() -> None:
    host = fingerprint.host_class()
    assert set(host) == {"cpu", "cores", "memory_gib", "gpus"}
    assert host["cpu"]
    assert 1 <= host["cores"] <= (os.cpu_count() or 1)
    assert set(fingerprint.host_facts()) == {"kernel", "os", "machine", "isa"}


def test_a_quota_limits_the_cores_and_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroup, "read", lambda pid: cgroup.Cgroup(True, 0.0, 0.5, 0, 512 * 2**20))
    assert fingerprint.usable_cores() == 1
    assert fingerprint.usable_memory() == 512 * 2**20


def test_asking_is_light() -> None:
    program = (
        "import sys\nfrom workbench.host.fingerprint import host_class, isa_class\nhost_class(), isa_class()\n"
        "print(*sys.modules)"
    )
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert not {"numpy", "psutil", "onnxruntime"} & set(shown.split())


@pytest.mark.integration
@pytest.mark.skipif(shutil.which("qemu-x86_64") is None, reason="needs qemu-user")
@pytest.mark.parametrize(("cpu", "name"), [("Nehalem", "x86-64-v2"), ("Haswell", "x86-64-v3")])
def test_an_emulated_cpu_is_seen_though_the_kernel_shows_the_hosts(cpu: str, name: str) -> None:
    program = "from workbench.host.fingerprint import isa_class, cpu_model; print(isa_class(), cpu_model())"
    # The interpreter itself: the emulator does not follow a virtual environment's link to its libraries.
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = ["qemu-x86_64", "-cpu", cpu, os.path.realpath(sys.executable), "-c", program]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
    assert shown.split()[0] == name
    assert cpu in shown
