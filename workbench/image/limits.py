"""What a running image may use, as far as this machine lets it be held to that without an engine.

CPUs are held by affinity. Memory can be held only by a cgroup, and only below one that is *delegated* to this user
(the kernel's document on cgroup v2, "Delegation"), as systemd does for the sessions of ordinary users. To root every
cgroup is writable, which does not make it root's to divide: others manage it and count on what is in it.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import sys
from pathlib import Path

from workbench.host.cgroup import MOUNT, read

_JOIN = (
    "import os, sys\n"
    "with open(sys.argv[1], 'w') as procs: procs.write(str(os.getpid()))\n"
    "os.execvp(sys.argv[2], sys.argv[2:])\n"
)


def some_cpus(count: int) -> list[int]:
    """``count`` of the CPUs that this process may use; all of them where there are fewer."""
    return sorted(os.sched_getaffinity(0))[:count]


def delegated(mount: Path = MOUNT, proc: Path = Path("/proc")) -> Path | None:
    """The cgroup (version 2) below which this user may make others with limits of memory; None where there is none.

    It is the one above this process's own: a cgroup that holds processes can give its children no limits.
    """
    with contextlib.suppress(OSError):
        groups = (proc / "self" / "cgroup").read_text(encoding="ascii").splitlines()
        own = next((line.removeprefix("0::/") for line in groups if line.startswith("0::/")), "")
        above = (mount / own).parent
        mine = own != "" and above.stat().st_uid == os.getuid() != 0 and os.access(above / "cgroup.procs", os.W_OK)
        if mine and "memory" in (above / "cgroup.subtree_control").read_text(encoding="ascii").split():
            return above
    return None


def memory_cgroup(limit: int) -> Path | None:
    """A new cgroup whose processes may use ``limit`` bytes together, for :func:`remove`; None where none is allowed."""
    above = delegated()
    if above is None:
        return None
    folder = above / f"workbench-{os.getpid()}-{secrets.token_hex(4)}"
    try:
        folder.mkdir()
        (folder / "memory.max").write_text(str(limit), encoding="ascii")
        if (swap := folder / "memory.swap.max").exists():
            swap.write_text("0", encoding="ascii")
    except OSError as error:
        sys.stderr.write(f"no cgroup for the image: {error}\n")
        remove(folder)
        return None
    return folder


def joining(folder: Path) -> list[str]:
    """What goes in front of a command to run it in the cgroup ``folder``, with all processes that it will have."""
    return [sys.executable, "-I", "-S", "-c", _JOIN, str(folder / "cgroup.procs")]


def is_held(pid: int, limit: int) -> bool:
    """Whether the kernel says that process ``pid`` is in a cgroup of its own with that limit."""
    found = read(pid)
    return found.own and found.memory_limit is not None and found.memory_limit <= limit


def remove(folder: Path) -> None:
    """Removes the cgroup, whose processes have ended."""
    try:
        folder.rmdir()
    except FileNotFoundError:
        pass
    except OSError as error:
        sys.stderr.write(f"a cgroup of the image stays behind: {error}\n")
