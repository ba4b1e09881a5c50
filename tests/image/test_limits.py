"""Limits of a running image: asked of the kernel where this user may, never pretended."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import pytest
from image_helpers import Image

from workbench.image import limits
from workbench.image.sandbox import Container

USER = os.getuid() or 1000


@pytest.fixture
def hierarchy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """The files of a cgroup hierarchy, as systemd delegates it to an ordinary user, and of that user's process."""
    scope = tmp_path / "fs" / "user@1000.service" / "app.slice" / "terminal.scope"
    scope.mkdir(parents=True)
    (scope.parent / "cgroup.subtree_control").write_text("memory pids\n")
    (scope.parent / "cgroup.procs").write_text("")
    own = tmp_path / "proc" / "self"
    own.mkdir(parents=True)
    (own / "cgroup").write_text("0::/user@1000.service/app.slice/terminal.scope\n")
    if os.getuid() == 0:
        os.chown(scope.parent, USER, USER)
        monkeypatch.setattr(os, "getuid", lambda: USER)
    return tmp_path / "fs", tmp_path / "proc"


def test_a_delegated_cgroup_is_the_one_above_its_own(hierarchy: tuple[Path, Path]) -> None:
    mount, proc = hierarchy
    assert limits.delegated(mount, proc) == mount / "user@1000.service" / "app.slice"


def test_root_is_delegated_nothing(hierarchy: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 0)
    assert limits.delegated(*hierarchy) is None


def test_without_the_memory_controller_nothing_is_delegated(hierarchy: tuple[Path, Path]) -> None:
    mount, proc = hierarchy
    (mount / "user@1000.service" / "app.slice" / "cgroup.subtree_control").write_text("pids\n")
    assert limits.delegated(mount, proc) is None


@pytest.mark.parametrize("groups", ["0::/\n", "4:memory:/a\n", ""])
def test_a_process_without_a_cgroup_of_version_2_has_none_delegated(hierarchy: tuple[Path, Path], groups: str) -> None:
    mount, proc = hierarchy
    (proc / "self" / "cgroup").write_text(groups)
    assert limits.delegated(mount, proc) is None


@pytest.mark.integration
def test_the_image_joins_its_cgroup_and_a_limit_that_the_kernel_does_not_know_is_not_believed(
    image: Image, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "delegated", lambda: tmp_path)
    with Container(root, image.files["config"], memory=512 << 20) as running:
        [folder] = tmp_path.iterdir()
        assert (folder / "memory.max").read_text() == str(512 << 20)
        joined = int((folder / "cgroup.procs").read_text())
        assert joined in (running.pid, *(parent.pid for parent in psutil.Process(running.pid).parents()))
        assert not running.memory_held


def test_fewer_cpus_than_asked_for_are_all_of_them() -> None:
    mine = sorted(os.sched_getaffinity(0))
    assert limits.some_cpus(1) == mine[:1]
    assert limits.some_cpus(4096) == mine
