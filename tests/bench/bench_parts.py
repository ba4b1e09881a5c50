"""Models, samples, a server that answers as it is told, and an emit that keeps what is said."""

from __future__ import annotations

import itertools
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FEATURES = 16


class Said:
    """An emit that keeps everything."""

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch
        self.samples: list[tuple[str, Mapping[str, Any]]] = []

    def progress(self, done: float, total: float, text: str = "") -> None:
        assert 0 <= done <= total

    def note(self, text: str) -> None:
        raise AssertionError(text)

    def sample(self, kind: str, values: Mapping[str, Any]) -> None:
        self.samples.append((kind, values))


def mlp(path: Path, layers: int = 1, width: int = FEATURES) -> Path:
    """x (n, 16) through ``layers`` square matrices of ``width``."""
    rng = np.random.default_rng(0)
    sizes = [FEATURES, *[width] * layers]
    weights = [rng.standard_normal(pair).astype(np.float32) for pair in itertools.pairwise(sizes)]
    nodes = [helper.make_node("MatMul", [f"h{i}" if i else "x", f"w{i}"], [f"h{i + 1}"]) for i in range(layers)]
    graph = helper.make_graph(
        nodes,
        "mlp",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", FEATURES])],
        [helper.make_tensor_value_info(f"h{layers}", TensorProto.FLOAT, ["n", width])],
        [numpy_helper.from_array(weight, f"w{i}") for i, weight in enumerate(weights)],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def evaluation(path: Path, samples: int = 8) -> Path:
    """Samples for :func:`mlp`. The name has no suffix, as in the object store."""
    with path.open("wb") as file:
        np.savez(file, x=np.ones((samples, FEATURES), np.float32), y=np.zeros(samples, np.int64))
    return path


def ok(body: bytes = b"{}") -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


@contextmanager
def scripted(answer: Callable[[int, bytes], list[bytes] | None]) -> Iterator[int]:
    """A server on a port of loopback. ``answer(n, request)`` gives the pieces to send for the n-th request, or None
    to close the connection."""
    listener = socket.create_server(("127.0.0.1", 0))
    count = iter(range(10**9))
    threads: list[threading.Thread] = []

    def serve(connection: socket.socket) -> None:
        with connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            data = b""
            while part := connection.recv(65536):
                data += part
                while (end := data.find(b"\r\n\r\n")) >= 0:
                    length = int(data[:end].lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
                    if len(data) < end + 4 + length:
                        break
                    request, data = data[: end + 4 + length], data[end + 4 + length :]
                    pieces = answer(next(count), request)
                    if pieces is None:
                        return
                    for piece in pieces:
                        connection.sendall(piece)

    def accept() -> None:
        while True:
            try:
                connection = listener.accept()[0]
            except OSError:
                return
            threads.append(threading.Thread(target=serve, args=(connection,), daemon=True))
            threads[-1].start()

    acceptor = threading.Thread(target=accept, daemon=True)
    acceptor.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        acceptor.join()
        for thread in threads:
            thread.join(30)
