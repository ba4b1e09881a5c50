"""What is gRPC's own in time: deadlines, clients that wait, health, and the end of the server."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_talking import BARE, GOOD, INFER, Code, asking, connected, raw_call, refused
from server_models import affine, slow
from server_process import Process, running
from tritonclient.grpc import service_pb2_grpc


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    folder = tmp_path_factory.mktemp("models")
    affine(folder / "affine" / "1" / "model.onnx")
    with running(folder, WORKBENCH_GRPC_PORT="0") as started:
        yield started


@pytest.fixture
def lazy(tmp_path: Path) -> Iterator[Path]:
    """A folder with a slow model."""
    slow(tmp_path / "slow" / "1" / "model.onnx")
    return tmp_path


def counted(server: Process, name: str) -> float:
    """A number of the metrics, summed over all labels."""
    with urllib.request.urlopen(f"{server.url}/metrics", timeout=30) as answer:
        lines = answer.read().decode()
    return sum(float(value) for value in re.findall(rf"^{name}(?:{{.*}})? (\S+)$", lines, re.MULTILINE))


def test_who_has_given_up_by_the_deadline_is_not_computed(lazy: Path) -> None:
    patient = {"WORKBENCH_GRPC_PORT": "0", "WORKBENCH_QUEUE_WAIT": "600"}
    with running(lazy, **patient) as server, connected(server) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        request = asking(GOOD, model="slow")
        before = [stub.ModelInfer.future(request) for _ in range(3)]
        while counted(server, "inference_pending_requests") < 3:
            pass
        late = stub.ModelInfer.future(request, timeout=0.2)
        last = stub.ModelInfer.future(request)
        assert late.code() == Code.DEADLINE_EXCEEDED
        assert [call.code() for call in (*before, last)] == [Code.OK] * 4
        assert counted(server, "inference_compute_seconds_count") == 4
        assert counted(server, "inference_request_failure_total") == 1


def test_a_full_queue_refuses_and_says_when_to_come_again(lazy: Path) -> None:
    with running(lazy, WORKBENCH_GRPC_PORT="0", WORKBENCH_QUEUE="1") as server, connected(server) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        calls = [stub.ModelInfer.future(asking(GOOD, model="slow")) for _ in range(20)]
        codes = [call.code() for call in calls]
        assert set(codes) == {Code.OK, Code.RESOURCE_EXHAUSTED}
        trailing = dict(calls[codes.index(Code.RESOURCE_EXHAUSTED)].trailing_metadata())
        assert int(trailing["grpc-retry-pushback-ms"]) >= 1000


class Silent:
    """Requests whose messages never come."""

    def __init__(self, channel: grpc.Channel, count: int) -> None:
        self._over = threading.Event()
        self.calls = [channel.stream_unary(INFER).future(self._nothing(), timeout=60) for _ in range(count)]

    def _nothing(self) -> Iterator[bytes]:
        self._over.wait(60)
        yield from ()

    def end(self) -> None:
        self._over.set()


@pytest.fixture
def silent(request: pytest.FixtureRequest) -> Iterator[Callable[[grpc.Channel, int], Silent]]:
    """Makes such requests, and ends them after the test."""
    made: list[Silent] = []

    def make(channel: grpc.Channel, count: int) -> Silent:
        made.append(Silent(channel, count))
        return made[-1]

    yield make
    for each in made:
        each.end()


def test_a_message_that_never_comes_is_waited_for_no_longer_than_the_patience_says(tmp_path: Path, silent: Any) -> None:
    affine(tmp_path / "affine" / "1" / "model.onnx")
    settings = {"WORKBENCH_GRPC_PORT": "0", "WORKBENCH_CLIENT_PATIENCE": "1"}
    with running(tmp_path, **settings) as server, connected(server) as channel:
        (call,) = silent(channel, 1).calls
        assert call.code() == Code.DEADLINE_EXCEEDED
        assert "the message was not there after 1 s" in call.details()


def test_clients_that_send_nothing_do_not_keep_others_from_their_answers(server: Process, silent: Any) -> None:
    with connected(server) as channel:
        calls = silent(channel, 16).calls
        good = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer.future(asking(GOOD), timeout=25)
        assert good.code() == Code.OK
        assert any(call.done() and call.code() == Code.DEADLINE_EXCEEDED for call in calls)


def test_what_a_hundred_large_messages_at_once_take_is_bounded(tmp_path: Path) -> None:
    affine(tmp_path / "affine" / "1" / "model.onnx")
    limit = 4 << 20
    large = asking(BARE, raw_input_contents=[bytes(limit - 100)]).SerializeToString()
    settings = {"WORKBENCH_GRPC_PORT": "0", "WORKBENCH_MAX_BODY": str(limit)}
    with running(tmp_path, **settings) as server, connected(server) as channel:
        assert raw_call(channel, large) == Code.INVALID_ARGUMENT  # it has another size than its shape says
        server.forget_peak()
        before = server.memory("VmRSS")
        calls = [channel.unary_unary(INFER).future(large, timeout=60) for _ in range(100)]
        assert {each.code() for each in calls} <= {Code.INVALID_ARGUMENT, Code.RESOURCE_EXHAUSTED}
        assert server.memory("VmHWM") - before < 200 << 20


# --- health and life


def test_health_is_told_as_grpc_has_it(server: Process) -> None:
    with connected(server) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for service in ("", "inference.GRPCInferenceService"):
            asked = health_pb2.HealthCheckRequest(service=service)
            assert health.Check(asked).status == health_pb2.HealthCheckResponse.SERVING
        unknown = health_pb2.HealthCheckRequest(service="none")
        assert refused(lambda: health.Check(unknown)).code() == Code.NOT_FOUND
        watching = health.Watch(unknown, timeout=60)
        assert next(watching).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
        watching.cancel()


def test_sigterm_tells_who_watches_and_finishes_what_is_in_flight(lazy: Path) -> None:
    with running(lazy, WORKBENCH_GRPC_PORT="0") as server, connected(server) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        watching = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=60)
        assert next(watching).status == health_pb2.HealthCheckResponse.SERVING
        answers = [stub.ModelInfer.future(asking(GOOD, model="slow"), timeout=60) for _ in range(2)]
        while counted(server, "inference_pending_requests") < 2:
            pass
        server.process.terminate()
        assert next(watching).status == health_pb2.HealthCheckResponse.NOT_SERVING
        assert list(watching) == []
        late = stub.ModelInfer.future(asking(GOOD, model="slow"), timeout=60)
        assert [answer.code() for answer in answers] == [Code.OK, Code.OK]
        assert late.code() == Code.UNAVAILABLE
        assert server.process.wait(60) == 0


WATCHING = """
import sys, grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
with grpc.insecure_channel(sys.argv[1]) as channel:
    for each in health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest()):
        print(each.status, flush=True)
"""


def test_a_client_that_hangs_is_not_kept_for_hours(tmp_path: Path) -> None:
    """What it was answered and did not take would be held as long."""
    affine(tmp_path / "affine" / "1" / "model.onnx")
    with running(tmp_path, WORKBENCH_GRPC_PORT="0", WORKBENCH_CLIENT_PATIENCE="1") as server:
        port = server.ready["grpc_port"]
        command = [sys.executable, "-c", WATCHING, f"127.0.0.1:{port}"]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as client:
            assert client.stdout is not None
            try:
                assert client.stdout.readline() == b"1\n"
                client.send_signal(signal.SIGSTOP)
                end = time.monotonic() + 30
                while _connections(server, port) and time.monotonic() < end:
                    pass
                assert _connections(server, port) == []
            finally:
                client.kill()


def _connections(server: Process, port: int) -> list[Any]:
    open_ = psutil.Process(server.process.pid).net_connections("tcp")
    return [each for each in open_ if each.laddr.port == port and each.status == psutil.CONN_ESTABLISHED]


def test_the_longest_body_that_the_settings_allow_goes_with_grpc(tmp_path: Path) -> None:
    affine(tmp_path / "affine" / "1" / "model.onnx")
    settings = {"WORKBENCH_GRPC_PORT": "0", "WORKBENCH_MAX_BODY": str(2**31)}
    with running(tmp_path, **settings) as server, connected(server) as channel:
        assert service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(asking(GOOD)).outputs


def test_a_second_signal_ends_what_is_in_flight(tmp_path: Path) -> None:
    affine(tmp_path / "affine" / "1" / "model.onnx")
    never = threading.Event()

    def messages() -> Iterator[bytes]:
        never.wait(60)
        yield b""

    settings = {"WORKBENCH_GRACE": "600", "WORKBENCH_CLIENT_PATIENCE": "600"}
    with running(tmp_path, WORKBENCH_GRPC_PORT="0", **settings) as server, connected(server) as channel:
        call = channel.stream_unary(INFER).future(messages(), timeout=60)
        watching = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=60)
        assert next(watching).status == health_pb2.HealthCheckResponse.SERVING  # so the call before has arrived too
        server.process.terminate()
        assert next(watching).status == health_pb2.HealthCheckResponse.NOT_SERVING
        server.process.terminate()
        assert server.process.wait(30) == 0
        assert call.code() in (Code.CANCELLED, Code.UNAVAILABLE)
        never.set()


def test_a_taken_port_is_named_before_models_are_loaded(tmp_path: Path) -> None:
    affine(tmp_path / "affine" / "1" / "model.onnx")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, _, err = Process(tmp_path, WORKBENCH_GRPC_PORT=str(port)).end()
    assert code == 2
    assert err.startswith(f"workbench.server: Cannot listen on 127.0.0.1:{port}")
    assert "WORKBENCH_GRPC_PORT" in err


def test_a_server_without_grpc_loads_nothing_of_it(tmp_path: Path, server: Process) -> None:
    affine(tmp_path / "affine" / "1" / "model.onnx")
    with running(tmp_path) as without:
        assert "grpc_port" not in without.ready
        maps = [Path(f"/proc/{each.process.pid}/maps").read_text() for each in (without, server)]
    assert ["cygrpc" in each for each in maps] == [False, True]


def test_where_grpcio_is_missing_the_command_says_how_to_get_it(tmp_path: Path) -> None:
    model = affine(tmp_path / "m.onnx")
    program = (
        "import sys; sys.modules['grpc'] = None; from workbench.__main__ import main; "
        f"sys.argv = ['workbench', 'serve', {str(model)!r}, '--port', '0', '--grpc-port', '0']; sys.exit(main())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 6, done.stderr
    assert "gRPC needs grpc" in done.stderr
    assert "pip install 'workbench[grpc]'" in done.stderr
