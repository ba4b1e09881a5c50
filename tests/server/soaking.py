"""What a server does under more load than it can take, and while its versions are switched, over any length of time."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
import wrk
from onnx import TensorProto, helper, numpy_helper
from server_models import write_model
from server_process import Process
from wrk import Pace, Request, Taken

FEATURES = 30
NAME = "m"
LOOK_S = 0.1
"""Seconds from one look at health and memory to the next."""
_WIDTH = 1024


@dataclass
class Seen:
    """What was seen of a server while it was under load."""

    taken: Taken
    memory: list[tuple[float, int]] = field(default_factory=list)
    """Resident bytes by seconds since the begin; where versions are switched, after each switch."""
    health: list[tuple[int, float]] = field(default_factory=list)
    """Statuses of the health routes, and seconds that each took."""
    versions: list[str] = field(default_factory=list)
    """Which version answered after each switch."""

    def growth(self) -> float:
        """Resident bytes a second."""
        return _growth([time for time, _ in self.memory], [size for _, size in self.memory])

    def growth_by_switch(self) -> float:
        """Resident bytes a switch. Of time it says little: memory grows until each size of block has been free once,
        which takes some hundred switches, however long they take."""
        return _growth(range(len(self.memory)), [size for _, size in self.memory])


def _growth(by: Sequence[float], sizes: Sequence[float]) -> float:
    """Fitted to all but the first third: until then caches and pools fill."""
    first = len(sizes) // 3
    return float(np.polyfit(by[first:], sizes[first:], 1)[0])


def write_versions(folder: Path, layers: int, versions: int = 1) -> None:
    """Models of ``layers`` products of 1024 x 1024 over 30 features, about 0.1 ms each."""
    for version in range(1, versions + 1):
        source = np.random.default_rng(version)
        sizes = [FEATURES, *[_WIDTH] * layers, 2]
        weights = {
            f"w{index}": (source.standard_normal(pair) / pair[0] ** 0.5).astype(np.float32)
            for index, pair in enumerate(itertools.pairwise(sizes))
        }
        names = ["x", *[f"h{index}" for index in range(len(weights) - 1)], "y"]
        nodes = [
            helper.make_node("MatMul", [before, weight], [after])
            for (before, after), weight in zip(itertools.pairwise(names), weights, strict=True)
        ]
        write_model(
            folder / NAME / str(version) / "model.onnx",
            nodes,
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", FEATURES])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2])],
            [numpy_helper.from_array(array, name) for name, array in weights.items()],
        )


def inference() -> Request:
    """One row to the model."""
    tensor = {"name": "x", "shape": [1, FEATURES], "datatype": "FP32", "data": [0.5] * FEATURES}
    return Request(f"/v2/models/{NAME}/infer", json.dumps({"inputs": [tensor]}).encode())


@contextlib.contextmanager
def served(folder: Path, **settings: str) -> Iterator[Process]:
    """A server over the models of ``folder``, killed at the end where it still lives."""
    server = Process(folder, **settings)
    try:
        yield server
    finally:
        server.process.kill()
        server.process.communicate()


def under_load(server: Process, pace: Pace, seconds: int) -> Seen:
    """Asks for inferences at ``pace``, and looks at health and memory all the while."""
    connection = _connect(server)
    memory, health = [], []
    begun = time.perf_counter()
    with wrk.loading(server.ready["port"], inference(), pace, seconds, count=True) as client:
        while not client.ends(LOOK_S):
            memory.append((time.perf_counter() - begun, psutil.Process(server.process.pid).memory_info().rss))
            for route in ("live", "ready"):
                before = time.perf_counter()
                status, _ = _ask(connection, "GET", f"/v2/health/{route}")
                health.append((status, time.perf_counter() - before))
        taken = client.taken()
    connection.close()
    return Seen(taken, memory, health)


def while_switching(server: Process, pace: Pace, seconds: int) -> Seen:
    """Asks for inferences at ``pace``, while versions 1 and 2 are loaded in turns, the other dropped each time."""
    connection = _connect(server)
    versions, memory = [], []
    begun = time.perf_counter()
    with wrk.loading(server.ready["port"], inference(), pace, seconds, count=True) as client:
        for version in itertools.cycle("21"):
            if client.ends(0.01):
                break
            config = json.dumps({"versions": [version]})
            path = f"/v2/repository/models/{NAME}/load"
            status, answer = _ask(connection, "POST", path, {"parameters": {"config": config}})
            assert status == 200, answer
            versions.append(
                json.loads(_ask(connection, "POST", inference().path, inference().body)[1])["model_version"]
            )
            memory.append((time.perf_counter() - begun, psutil.Process(server.process.pid).memory_info().rss))
        taken = client.taken()
    connection.close()
    return Seen(taken, memory, [], versions)


def _connect(server: Process) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(server.ready["host"], server.ready["port"], timeout=60)


def _ask(
    connection: http.client.HTTPConnection, method: str, path: str, body: bytes | Mapping[str, object] | None = None
) -> tuple[int, bytes]:
    content = json.dumps(body).encode() if isinstance(body, Mapping) else body
    connection.request(method, path, content)
    answer = connection.getresponse()
    return answer.status, answer.read()
