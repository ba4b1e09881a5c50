"""What the kernel accounts for a cgroup, read from its files."""

from __future__ import annotations

from pathlib import Path

from workbench.host.cgroup import Cgroup, read


def put(root: Path, contents: dict[str, str]) -> None:
    for name, content in contents.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


def test_version_2(tmp_path: Path) -> None:
    put(
        tmp_path,
        {
            "proc/7/cgroup": "0::/app/one\n",
            "fs/app/one/cpu.stat": "usage_usec 2500000\nuser_usec 1\n",
            "fs/app/one/cpu.max": "150000 100000\n",
            "fs/app/one/memory.current": "1048576\n",
            "fs/app/one/memory.max": "max\n",
        },
    )
    assert read(7, tmp_path / "fs", tmp_path / "proc") == Cgroup(True, 2.5, 1.5, 1048576, None)


def test_version_2_is_held_by_the_tightest_limit_of_the_groups_above(tmp_path: Path) -> None:
    put(
        tmp_path,
        {
            "memory.max": "1\n",  # above the mount: none of its business
            "proc/7/cgroup": "0::/pod/app\n",
            "fs/pod/cpu.max": "50000 100000\n",
            "fs/pod/memory.max": "536870912\n",
            "fs/pod/app/cpu.max": "max 100000\n",
            "fs/pod/app/memory.max": "1073741824\n",
        },
    )
    reading = read(7, tmp_path / "fs", tmp_path / "proc")
    assert (reading.cpu_limit, reading.memory_limit) == (0.5, 536870912)


def test_version_2_without_a_cgroup_of_its_own(tmp_path: Path) -> None:
    put(tmp_path, {"proc/7/cgroup": "0::/\n", "fs/cpu.stat": "usage_usec 1000000\n"})
    reading = read(7, tmp_path / "fs", tmp_path / "proc")
    assert not reading.own
    assert reading.cpu_seconds == 1.0


def test_version_1(tmp_path: Path) -> None:
    put(
        tmp_path,
        {
            "proc/7/cgroup": "4:memory:/app\n3:cpu,cpuacct:/app\n1:name=systemd:/\n",
            "fs/cpuacct/app/cpuacct.usage": "2500000000\n",
            "fs/cpu/app/cpu.cfs_quota_us": "-1\n",
            "fs/cpu/app/cpu.cfs_period_us": "100000\n",
            "fs/memory/app/memory.usage_in_bytes": "4096\n",
            "fs/memory/app/memory.limit_in_bytes": "536870912\n",
        },
    )
    assert read(7, tmp_path / "fs", tmp_path / "proc") == Cgroup(True, 2.5, None, 4096, 536870912)


def test_version_1_is_held_by_the_tightest_limit_of_the_groups_above(tmp_path: Path) -> None:
    put(
        tmp_path,
        {
            "proc/7/cgroup": "4:memory:/pod/app\n3:cpu,cpuacct:/pod/app\n",
            "fs/cpu/pod/cpu.cfs_quota_us": "50000\n",
            "fs/cpu/pod/cpu.cfs_period_us": "100000\n",
            "fs/cpu/pod/app/cpu.cfs_quota_us": "-1\n",
            "fs/cpu/pod/app/cpu.cfs_period_us": "100000\n",
            "fs/memory/pod/memory.limit_in_bytes": "536870912\n",
            "fs/memory/pod/app/memory.limit_in_bytes": "1073741824\n",
            "fs/memory/pod/app/memory.stat": "cache 1\nhierarchical_memory_limit 536870912\n",
        },
    )
    reading = read(7, tmp_path / "fs", tmp_path / "proc")
    assert (reading.cpu_limit, reading.memory_limit) == (0.5, 536870912)


def test_version_1_inside_a_container_knows_the_memory_limit_above_what_is_mounted(tmp_path: Path) -> None:
    put(
        tmp_path,
        {
            "proc/7/cgroup": "4:memory:/pod/app\n",
            "fs/memory/memory.limit_in_bytes": "9223372036854771712\n",
            "fs/memory/memory.stat": "cache 1\nhierarchical_memory_limit 268435456\ntotal_cache 1\n",
        },
    )
    assert read(7, tmp_path / "fs", tmp_path / "proc").memory_limit == 268435456


def test_version_1_writes_no_limit_as_a_huge_number(tmp_path: Path) -> None:
    put(
        tmp_path,
        {
            "proc/7/cgroup": "4:memory:/app\n",
            "fs/memory/app/memory.usage_in_bytes": "4096\n",
            "fs/memory/app/memory.limit_in_bytes": "9223372036854771712\n",
        },
    )
    assert read(7, tmp_path / "fs", tmp_path / "proc").memory_limit is None


def test_version_1_inside_a_container_reads_what_is_mounted(tmp_path: Path) -> None:
    put(tmp_path, {"proc/7/cgroup": "4:memory:/docker/abc\n", "fs/memory/memory.usage_in_bytes": "4096\n"})
    assert read(7, tmp_path / "fs", tmp_path / "proc").memory == 4096


def test_nothing_to_see_is_an_empty_reading(tmp_path: Path) -> None:
    assert read(7, tmp_path / "fs", tmp_path / "proc") == Cgroup()
