"""What tests of the container engine share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import docker

from workbench.engine import leftovers

Loaded = Callable[[docker.DockerClient, Path], str]

READY = "print('workbench.server: serving nothing', flush=True)\n"
"""What a program says to be taken for a server that is ready."""

ON_TERM = "import signal, sys\nsignal.signal(15, lambda *_: sys.exit(0))\n"
WAIT = ON_TERM + READY + "signal.pause()\n"
"""A program that is ready at once and ends when asked to."""


class Program(Protocol):
    """The config of an image that runs this code; ``changes`` to the config's ``config``."""

    def __call__(self, code: str, **changes: Any) -> Path: ...


def of_this_process(client: docker.DockerClient) -> list[dict[str, Any]]:
    """All containers, also ended ones, that this process has made."""
    mine = f"{leftovers.OWNER}={leftovers.owner()}"
    return list(client.api.containers(all=True, filters={"label": [mine]}))


def podman_command(folder: Path) -> tuple[str, list[str]]:
    """Podman's service on paths of its own below ``folder``, where its storage is unmounted at the end."""
    address = f"unix://{folder}/podman.sock"
    where = f"--root {folder}/root --runroot {folder}/run --tmpdir {folder}/tmp"
    podman = f"podman {where} --cgroup-manager cgroupfs --events-backend file"
    script = (
        f"{podman} system service --time 0 {address} & service=$!\n"
        f"trap '{podman} rm --all --force --time 0; kill $service' TERM\n"
        "wait $service; wait $service\n"
        f"umount {folder}/root/overlay\n"
    )
    return address, ["sh", "-c", script]
