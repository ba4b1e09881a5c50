"""How an image runs here for those who ask it: in the engine that built it, else unpacked in the sandbox."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.image.layers import layer_files
from workbench.image.limits import some_cpus
from workbench.image.sandbox import Container, unpacked_for_now

if TYPE_CHECKING:
    from workbench.engine.container import EngineContainer

Start = Callable[[], "Container | EngineContainer"]
"""Makes a container that is not started yet; it is a context manager, and runs inside its block."""


@contextlib.contextmanager
def prepared(inputs: Mapping[str, Path], params: Mapping[str, Any], scratch: Path) -> Iterator[Start]:
    """Makes the image ready to be started, any number of times one after the other; what that took goes at the end.

    ``inputs``: ``config`` and the layers' blobs ``layer-…``. ``params``: ``name``, ``builder`` (an image of ``docker``
    runs in the engine, one of ``oci`` in the sandbox), ``threads``, ``limits`` (``cpus``, ``memory`` in bytes or None,
    and for the engine ``pids`` and ``gpus``). Raises MachineLacks where there is no engine.
    """
    env = {"WORKBENCH_THREADS": str(params["threads"])}
    limits = params["limits"]
    if params.get("builder") == "docker":
        from workbench.engine.connect import connect
        from workbench.engine.container import EngineContainer
        from workbench.engine.load import ensure_loaded

        with connect() as client:
            image = ensure_loaded(client, inputs["config"], layer_files(inputs), params["name"])
            held = {name: limits.get(name) for name in ("cpus", "memory", "pids", "gpus")}
            yield lambda: EngineContainer(client, image, env=env, **held)
        return
    cpus = some_cpus(limits["cpus"]) if limits.get("cpus") else None
    with unpacked_for_now(inputs["config"], layer_files(inputs), scratch) as root:
        yield lambda: Container(root, inputs["config"], env=env, cpus=cpus, memory=limits.get("memory"))
