"""A server process from its start to SIGTERM."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from server_models import affine, slow
from server_process import Process
from support import workbench

BODY = json.dumps({"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}]}).encode()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Process]:
    affine(tmp_path / "affine" / "1" / "model.onnx")
    running = Process(tmp_path)
    yield running
    running.kill()


def head(length: int, extra: str = "") -> bytes:
    return (f"POST /v2/models/affine/infer HTTP/1.1\r\nHost: here\r\nContent-Length: {length}\r\n{extra}\r\n").encode()


def until(connection: socket.socket, end: bytes) -> bytes:
    said = b""
    while not said.endswith(end):
        part = connection.recv(65536)
        assert part, said
        said += part
    return said


def until_closed(connection: socket.socket) -> bytes:
    parts = []
    while part := connection.recv(65536):
        parts.append(part)
    return b"".join(parts)


def test_the_ready_line_names_the_port_that_listens(server: Process) -> None:
    assert server.ready["pid"] == server.process.pid
    assert server.get("/v2/health/ready") == 200
    server.process.send_signal(signal.SIGTERM)
    code, out, err = server.end()
    assert code == 0
    assert out == ""
    loaded, serving = err.splitlines()
    assert loaded.startswith("workbench.server: loaded affine/1 in ")
    assert "on CPUExecutionProvider: cpu is what was asked for; joins up to " in loaded
    assert serving == f"workbench.server: serving affine/1 at http://127.0.0.1:{server.ready['port']}"


def test_sigterm_refuses_new_requests_and_finishes_those_in_flight(server: Process) -> None:
    with server.connect() as idle, server.connect() as busy:
        # The answer to a request on each shows that both are known to the server.
        for connection in (idle, busy):
            connection.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: here\r\n\r\n")
            assert until(connection, b'{"live":true}').startswith(b"HTTP/1.1 200")
        busy.sendall(head(len(BODY), "Expect: 100-continue\r\n"))
        assert until(busy, b"\r\n\r\n").startswith(b"HTTP/1.1 100")
        server.process.send_signal(signal.SIGTERM)
        assert until_closed(idle) == b""  # it stops
        with pytest.raises(ConnectionRefusedError):
            server.connect()
        busy.sendall(BODY)
        answer = until_closed(busy)
    assert answer.startswith(b"HTTP/1.1 200")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["outputs"][1]["data"] == [6]
    assert server.end()[0] == 0


@pytest.mark.parametrize("impatient", [False, True], ids=["the grace is over", "a second signal"])
def test_what_is_not_finished_then_is_cut_off_and_told(tmp_path: Path, impatient: bool) -> None:
    affine(tmp_path / "affine" / "1" / "model.onnx")
    server = Process(tmp_path, WORKBENCH_GRACE="600" if impatient else "1")
    with server.connect() as idle, server.connect() as busy:
        busy.sendall(head(len(BODY)) + BODY[:-1])
        idle.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: here\r\n\r\n")
        assert until(idle, b'{"live":true}').startswith(b"HTTP/1.1 200")
        server.process.send_signal(signal.SIGTERM)
        assert until_closed(idle) == b""  # it stops
        if impatient:
            server.process.send_signal(signal.SIGTERM)
        with contextlib.suppress(ConnectionResetError):
            assert until_closed(busy) == b""
    code, _, err = server.end()
    assert code == 0
    assert ("requests in flight after 1 s: 1" in err) == (not impatient)


def test_a_stop_while_a_slow_model_finds_out_how_many_rows_join_is_clean(tmp_path: Path) -> None:
    slow(tmp_path / "slow" / "1" / "model.onnx")
    server = Process(tmp_path, WORKBENCH_THREADS="1")
    with server.connect() as connection:
        connection.sendall(head(len(BODY)).replace(b"/affine/", b"/slow/") + BODY)
        assert until(connection, b"}]}").startswith(b"HTTP/1.1 200")
        server.process.send_signal(signal.SIGTERM)
    code, _, err = server.end()
    assert code == 0
    assert "how many rows it joins is found out in service" in err
    assert "Traceback" not in err


def test_a_body_announced_too_long_is_refused_unread(server: Process) -> None:
    with server.connect() as connection:
        connection.sendall(head(10**12))
        answer = until_closed(connection)
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"WORKBENCH_MAX_BODY" in answer


def test_a_client_that_goes_away_harms_nobody(server: Process) -> None:
    with server.connect() as connection:
        connection.sendall(head(1000) + b"{")
    assert server.get("/v2/health/live") == 200
    server.process.send_signal(signal.SIGTERM)
    code, _, err = server.end()
    assert code == 0
    assert "Traceback" not in err


def test_a_missing_model_ends_the_start_with_one_line(tmp_path: Path) -> None:
    code, _, err = Process(tmp_path).end()
    assert code == 2
    assert err.count("\n") == 1
    assert str(tmp_path) in err


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    affine(tmp_path / "affine" / "1" / "model.onnx")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, _, err = Process(tmp_path, WORKBENCH_PORT=str(port)).end()
    assert code == 2
    assert f"Cannot listen on 127.0.0.1:{port}: Address already in use. Free the port or set WORKBENCH_PORT." in err


def test_an_address_that_is_not_of_this_machine_is_named(tmp_path: Path) -> None:
    affine(tmp_path / "affine" / "1" / "model.onnx")
    code, _, err = Process(tmp_path, WORKBENCH_HOST="192.0.2.1").end()
    assert code == 2
    assert "Cannot listen on 192.0.2.1:0: Cannot assign requested address. Set WORKBENCH_HOST to an address" in err


def test_without_a_gpu_cuda_is_what_the_machine_lacks(tmp_path: Path) -> None:
    done = workbench(tmp_path, "serve", str(affine(tmp_path / "m.onnx")), "--port", "0", "--device", "cuda")
    assert done.returncode == 6
    assert "WORKBENCH_DEVICE_FALLBACK=1" in done.stderr


def test_a_client_that_takes_too_long_is_cut_off_and_others_are_not(tmp_path: Path) -> None:
    affine(tmp_path / "affine" / "1" / "model.onnx")
    server = Process(tmp_path, WORKBENCH_CLIENT_PATIENCE="1")
    with server.connect() as silent, server.connect() as headless, server.connect() as half, server.connect() as good:
        headless.sendall(b"POST /v2/models/aff")
        half.sendall(head(len(BODY)) + BODY[:10])
        good.sendall(head(len(BODY)) + BODY)
        assert until(good, b"}]}").startswith(b"HTTP/1.1 200")
        for connection in (silent, headless, half):
            with contextlib.suppress(ConnectionResetError):
                assert until_closed(connection) == b""
        good.sendall(head(len(BODY)) + BODY)  # it was idle for as long, between requests
        assert until(good, b"}]}").startswith(b"HTTP/1.1 200")
    server.process.send_signal(signal.SIGTERM)
    code, _, err = server.end()
    assert code == 0
    assert "Traceback" not in err


def test_headers_without_end_are_refused(server: Process) -> None:
    with server.connect() as connection:
        connection.sendall(b"GET /v2/health/live HTTP/1.1\r\n")
        answer = b""
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            for number in range(100):
                connection.sendall(b"X-%d: " % number + b"x" * 8000 + b"\r\n")
            answer = until_closed(connection)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 400")
    assert server.get("/v2/health/live") == 200


def test_what_is_no_http_is_answered_with_the_protocols_error(server: Process) -> None:
    with server.connect() as connection:
        connection.sendall(b"nonsense\r\n\r\n")
        answer = until_closed(connection)
    assert answer.startswith(b"HTTP/1.1 400")
    assert "error" in json.loads(answer.partition(b"\r\n\r\n")[2])


def test_what_came_before_nonsense_is_answered_first_and_alone(server: Process) -> None:
    with server.connect() as connection:
        connection.sendall(head(len(BODY)) + BODY + head(len(BODY)) + BODY + b"\0nonsense\r\n\r\n")
        answer = until_closed(connection)
    assert answer.startswith(b"HTTP/1.1 200")
    assert answer.count(b"HTTP/1.1 ") == 1
    with server.connect() as connection:
        connection.sendall(head(len(BODY), "").replace(b"Content-Length", b"Transfer-Encoding: chunked\r\nX"))
        connection.sendall(b"nonsense\r\n")
        answer = until_closed(connection)
    assert answer.startswith(b"HTTP/1.1 400")
    assert answer.count(b"HTTP/1.1 ") == 1
    server.process.send_signal(signal.SIGTERM)
    code, _, err = server.end()
    assert (code, "Traceback" in err) == (0, False), err


def test_an_error_leaves_the_connection_open_where_little_is_unread(server: Process) -> None:
    with server.connect() as connection:
        for path in ("none", "affine"):
            request = head(len(BODY)).replace(b"affine", path.encode()) + BODY
            connection.sendall(request)
            answer = until(connection, b"}" if path == "none" else b"}]}")
            assert answer.startswith(b"HTTP/1.1 404" if path == "none" else b"HTTP/1.1 200")
            assert b"connection: close" not in answer


def test_metrics_are_what_prometheus_reads(server: Process) -> None:
    from prometheus_client.parser import text_string_to_metric_families

    with server.connect() as connection:
        connection.sendall(head(len(BODY)) + BODY)
        until(connection, b"}]}")
        connection.sendall(head(2) + b"{}")
        assert until(connection, b"}").startswith(b"HTTP/1.1 400")
    with urllib.request.urlopen(f"http://127.0.0.1:{server.ready['port']}/metrics", timeout=30) as answer:
        families = {each.name: each for each in text_string_to_metric_families(answer.read().decode())}
    of = {"model": "affine", "version": "1"}
    values = {(s.name, frozenset(s.labels.items())): s.value for f in families.values() for s in f.samples}
    assert values["inference_request_success_total", frozenset(of.items())] == 1
    assert values["inference_request_failure_total", frozenset((of | {"reason": "invalid"}).items())] == 1
    assert values["inference_queue_seconds_count", frozenset(of.items())] == 1
    assert values["inference_batch_rows_sum", frozenset(of.items())] == 1
    assert values["inference_pending_requests", frozenset(of.items())] == 0
    assert values["process_resident_memory_bytes", frozenset()] > 1e6


@pytest.mark.parametrize("workers", ["1", "2"])
def test_garbage_is_collected_while_it_serves(tmp_path: Path, workers: str) -> None:
    """The start does without; a process that never collected again would grow."""
    affine(tmp_path / "affine" / "1" / "model.onnx")
    program = "import gc; from workbench.server.__main__ import main; print(main(), gc.isenabled())"
    server = Process(tmp_path, command=("-c", program), WORKBENCH_WORKERS=workers)
    try:
        server.process.send_signal(signal.SIGTERM)
        assert server.end()[1] == "0 True\n"
    finally:
        server.kill()
