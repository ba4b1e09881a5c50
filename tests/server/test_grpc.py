"""What is gRPC's own: messages and codes, deadlines and limits, health, and the end of the server."""

from __future__ import annotations

import contextlib
import os
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
import numpy as np
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from hypothesis import given, settings
from hypothesis import strategies as st
from server_models import TYPES, affine, identity, slow
from server_process import Process, running
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

FIELDS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
MAX_BODY = 100_000
INFER = "/inference.GRPCInferenceService/ModelInfer"
Code = grpc.StatusCode


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    folder = tmp_path_factory.mktemp("models")
    affine(folder / "affine" / "1" / "model.onnx", 2.0)
    identity(folder / "identity" / "1" / "model.onnx")
    with running(folder, WORKBENCH_GRPC_PORT="0", WORKBENCH_MAX_BODY=str(MAX_BODY)) as started:
        yield started


@contextlib.contextmanager
def connected(server: Process, **options: Any) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(f"127.0.0.1:{server.ready['grpc_port']}", **options) as channel:
        yield channel


@pytest.fixture(scope="module")
def channel(server: Process) -> Iterator[grpc.Channel]:
    with connected(server) as found:
        yield found


@pytest.fixture(scope="module")
def stub(channel: grpc.Channel) -> Any:
    return service_pb2_grpc.GRPCInferenceServiceStub(channel)


def typed(
    values: Any, name: str = "x", datatype: str = "FP32", shape: tuple[int, ...] = (1, 3), field: str = ""
) -> Any:
    """An input with typed contents."""
    tensor = pb.ModelInferRequest.InferInputTensor(name=name, datatype=datatype, shape=shape)
    getattr(tensor.contents, field or FIELDS[datatype]).extend(values)
    return tensor


def asking(*inputs: Any, model: str = "affine", **more: Any) -> Any:
    return pb.ModelInferRequest(model_name=model, inputs=inputs, **more)


def refused(call: Any) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as error:
        call()
    return error.value


GOOD = typed([1, 2, 3])
BARE = pb.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=[1, 3])
RAW = np.array([1, 2, 3], "<f4").tobytes()


def test_typed_contents_are_answered_in_kind(stub: Any) -> None:
    response = stub.ModelInfer(asking(GOOD, id="a-1"))
    assert (response.model_name, response.model_version, response.id) == ("affine", "1", "a-1")
    assert not response.raw_output_contents
    outputs = {
        each.name: (each.datatype, list(each.shape), list(each.contents.fp32_contents)) for each in response.outputs
    }
    assert outputs == {"double": ("FP32", [1, 3], [2, 4, 6]), "total": ("FP32", [1, 1], [6])}


def test_raw_contents_are_answered_in_kind(stub: Any) -> None:
    response = stub.ModelInfer(asking(BARE, raw_input_contents=[RAW]))
    assert [each.HasField("contents") for each in response.outputs] == [False, False]
    assert list(response.raw_output_contents) == [(2 * np.frombuffer(RAW, "<f4")).tobytes(), np.float32(6).tobytes()]


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A server with a model for each datatype, and its stub."""
    from onnx import helper
    from server_models import write_model

    folder = tmp_path_factory.mktemp("single")
    for name, kind in TYPES.items():
        write_model(
            folder / name / "1" / "model.onnx",
            [helper.make_node("Identity", ["x"], ["y"])],
            [helper.make_tensor_value_info("x", kind, ["n"])],
            [helper.make_tensor_value_info("y", kind, ["n"])],
        )
    with running(folder, WORKBENCH_GRPC_PORT="0") as server, connected(server) as channel:
        yield service_pb2_grpc.GRPCInferenceServiceStub(channel)


@pytest.mark.parametrize("name", FIELDS)
def test_typed_contents_keep_every_value(single: Any, name: str) -> None:
    values: dict[str, list[Any]] = {
        "BOOL": [True, False],
        "BYTES": [b"", "ä\0".encode()],
        "FP32": [float("inf"), float(np.float32(0.1))],
        "FP64": [float("-inf"), 0.1],
    }
    if name not in values:
        limits = np.iinfo(name.lower())
        values[name] = [int(limits.min), int(limits.max)]
    (output,) = single.ModelInfer(asking(typed(values[name], "x", name, (2,)), model=name)).outputs
    assert (output.datatype, list(output.shape)) == (name, [2])
    assert list(getattr(output.contents, FIELDS[name])) == values[name]


@pytest.mark.parametrize(("name", "value"), [("INT8", 128), ("INT8", -129), ("UINT8", 256), ("UINT16", 65536)])
def test_a_value_out_of_range_is_refused(single: Any, name: str, value: int) -> None:
    error = refused(lambda: single.ModelInfer(asking(typed([value], "x", name, (1,)), model=name)))
    assert error.code() == Code.INVALID_ARGUMENT
    assert f"range of {name}" in error.details()


def test_halves_have_no_typed_form(single: Any) -> None:
    error = refused(lambda: single.ModelInfer(asking(typed([1], "x", "FP16", (1,), "fp32_contents"), model="FP16")))
    assert error.code() == Code.INVALID_ARGUMENT
    assert "send raw_input_contents" in error.details()


def parameters(**values: Any) -> dict[str, Any]:
    return {name: pb.InferParameter(**{f"{kind}_param": value}) for name, (kind, value) in values.items()}


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (asking(BARE), "holds 3 elements, the data has 0"),
        (asking(typed([1, 2])), "holds 3 elements, the data has 2"),
        (asking(typed([1, 2, 3], field="fp64_contents")), "has fp64_contents; FP32 goes into fp32_contents"),
        (asking(GOOD, raw_input_contents=[RAW]), "both contents and raw_input_contents"),
        (asking(BARE, raw_input_contents=[RAW[:-1]]), "takes 12 bytes, the data has 11"),
        (asking(BARE, raw_input_contents=[RAW, RAW]), "1 inputs and 2 raw_input_contents"),
        (asking(typed([], shape=(2**40, 0))), "does not fit"),
        (asking(typed([], shape=(0, 3)), GOOD), "given twice"),
        (asking(GOOD, parameters=parameters(timeout=("string", "x"))), "no whole number"),
        (asking(GOOD, parameters=parameters(timeout=("int64", -1))), "timeout is -1"),
        (asking(typed([b"\xff"], "in_BYTES", "BYTES", (1,)), model="identity"), "not UTF-8"),
        (asking(typed([b""] * 3, "in_BYTES", "BYTES", (2,)), model="identity"), "the data has 3"),
    ],
)
def test_a_bad_request_is_an_invalid_argument_and_says_what_is_wrong(stub: Any, request_: Any, words: str) -> None:
    error = refused(lambda: stub.ModelInfer(request_))
    assert error.code() == Code.INVALID_ARGUMENT
    assert words in error.details()


def test_codes_are_those_of_the_field(stub: Any) -> None:
    for call, code in (
        (lambda: stub.ModelInfer(asking(GOOD, model="none")), Code.NOT_FOUND),
        (lambda: stub.ModelInfer(asking(GOOD, model_version="9")), Code.NOT_FOUND),
        (lambda: stub.ModelMetadata(pb.ModelMetadataRequest(name="none")), Code.NOT_FOUND),
        (lambda: stub.RepositoryIndex(pb.RepositoryIndexRequest()), Code.PERMISSION_DENIED),
        (
            lambda: stub.RepositoryModelUnload(pb.RepositoryModelUnloadRequest(model_name="affine")),
            Code.PERMISSION_DENIED,
        ),
        (lambda: stub.ModelConfig(pb.ModelConfigRequest(name="none")), Code.NOT_FOUND),
        (lambda: stub.ModelStatistics(pb.ModelStatisticsRequest(name="affine", version="9")), Code.NOT_FOUND),
        (lambda: stub.ModelStatistics(pb.ModelStatisticsRequest(version="1")), Code.INVALID_ARGUMENT),
        (lambda: stub.TraceSetting(pb.TraceSettingRequest()), Code.UNIMPLEMENTED),
    ):
        assert refused(call).code() == code


def test_what_nobody_foresaw_is_told_to_the_log_and_not_to_the_client(tmp_path: Path) -> None:
    affine(tmp_path / "models" / "affine" / "1" / "model.onnx")
    fault = "from workbench.server.model import Model\ndef fail(*_):\n    raise ValueError('inner')\n"
    (tmp_path / "sitecustomize.py").write_text(f"{fault}Model.metadata = fail\n")
    path = f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"
    server = Process(tmp_path / "models", WORKBENCH_GRPC_PORT="0", PYTHONPATH=path)
    try:
        with connected(server) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            error = refused(lambda: stub.ModelMetadata(pb.ModelMetadataRequest(name="affine")))
            stub.ModelInfer(asking(GOOD))
        server.process.terminate()
        code, _, err = server.end()
    finally:
        server.kill()
    assert (error.code(), "inner" in error.details()) == (Code.INTERNAL, False)
    assert (code, "ValueError: inner" in err) == (0, True)


def test_a_long_name_is_not_told_back_whole(stub: Any) -> None:
    for name in ("x" * 50_000, "\U0001f600" * 10_000):
        error = refused(lambda name=name: stub.ModelInfer(asking(GOOD, model=name)))
        assert error.code() == Code.NOT_FOUND
        assert error.details().startswith("there is no model")


def raw_call(channel: grpc.Channel, message: bytes, path: str = INFER, **more: Any) -> Code:
    """The code that a message of any bytes is answered with."""
    call = channel.unary_unary(path)
    try:
        call(message, timeout=60, **more)
    except grpc.RpcError as error:
        return error.code()
    return Code.OK


@pytest.mark.parametrize("message", [b"\xff", b"\x0a\xff\xff", b"\x0a\x01\xff", asking(GOOD).SerializeToString()[:-1]])
def test_bytes_that_are_no_message_are_an_invalid_argument(channel: grpc.Channel, message: bytes) -> None:
    assert raw_call(channel, message) == Code.INVALID_ARGUMENT


def test_a_request_without_a_message_is_an_invalid_argument(channel: grpc.Channel) -> None:
    error = refused(lambda: channel.stream_unary(INFER)(iter(()), timeout=60))
    assert error.code() == Code.INVALID_ARGUMENT


def test_a_message_over_the_limit_is_refused(channel: grpc.Channel) -> None:
    name = MAX_BODY - len(asking(model="x" * (MAX_BODY - 100)).SerializeToString()) + MAX_BODY - 100
    for more, code in ((0, Code.NOT_FOUND), (1, Code.RESOURCE_EXHAUSTED)):
        message = asking(model="x" * (name + more)).SerializeToString()
        assert len(message) == MAX_BODY + more
        assert raw_call(channel, message) == code


def test_a_few_compressed_bytes_do_not_become_many(server: Process) -> None:
    server.forget_peak()
    before = server.memory("VmRSS")
    bomb = bytes(64 << 20)
    with connected(server, compression=grpc.Compression.Gzip) as channel:
        assert raw_call(channel, bomb) in (Code.UNIMPLEMENTED, Code.RESOURCE_EXHAUSTED, Code.INVALID_ARGUMENT)
    assert server.memory("VmHWM") - before < 32 << 20


def test_thousands_of_tiny_tensors_do_not_become_many_bytes(tmp_path: Path) -> None:
    affine(tmp_path / "affine" / "1" / "model.onnx")
    with running(tmp_path, WORKBENCH_GRPC_PORT="0") as server, connected(server) as channel:
        head = asking().SerializeToString()
        assert raw_call(channel, head) == Code.INVALID_ARGUMENT
        server.forget_peak()
        before = server.memory("VmRSS")
        for tiny in (b"\x2a\x00", b"\x32\x00", b"\x3a\x00"):  # inputs, outputs, raw contents
            assert raw_call(channel, head + tiny * (7 << 20)) == Code.INVALID_ARGUMENT
        assert (
            server.memory("VmHWM") - before < 160 << 20
        )  # a tensor of two bytes takes a hundred: 1 GiB and more without care


@pytest.mark.parametrize("of", ["inputs", "outputs"])
def test_thousands_of_parameters_of_a_tensor_are_seen_before_the_parser_makes_them(server: Process, of: str) -> None:
    def answered(count: int) -> tuple[Code, str]:
        request = asking(GOOD, raw_input_contents=[bytes(80_000 - 12 * count)])
        tensor = request.inputs[0] if of == "inputs" else request.outputs.add(name="double")
        for number in range(count):
            tensor.parameters[f"{number:04}"].SetInParent()
        with connected(server) as channel:
            error = refused(lambda: channel.unary_unary(INFER)(request.SerializeToString(), timeout=60))
        return error.code(), error.details()

    (code, details), (other, said) = answered(4000), answered(5000)
    assert code == other == Code.INVALID_ARGUMENT
    assert "has both contents and raw_input_contents" in details
    assert "more than 4096 tensors, contents and parameters" in said


def test_a_shape_of_millions_of_axes_costs_next_to_nothing(tmp_path: Path) -> None:
    """Each is a byte of the message, and eight in a list, and three in a text."""
    affine(tmp_path / "affine" / "1" / "model.onnx")
    shape = pb.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=[1] * (15 << 20))
    message = asking(shape).SerializeToString()
    with running(tmp_path, WORKBENCH_GRPC_PORT="0") as server, connected(server) as channel:
        assert raw_call(channel, asking(BARE).SerializeToString()) == Code.INVALID_ARGUMENT
        server.forget_peak()
        before = server.memory("VmRSS")
        error = refused(lambda: channel.unary_unary(INFER)(message, timeout=60))
        assert (error.code(), f"of {15 << 20} axes" in error.details()) == (Code.INVALID_ARGUMENT, True)
        assert server.memory("VmHWM") - before < 400 << 20  # the parser alone takes 300, a list and a text 200


@settings(max_examples=500, deadline=None)
@given(data=st.data())
def test_no_message_is_answered_with_an_error_of_the_server(channel: grpc.Channel, data: st.DataObject) -> None:
    message = data.draw(messages)
    assert raw_call(channel, message) in (Code.OK, Code.INVALID_ARGUMENT, Code.NOT_FOUND, Code.RESOURCE_EXHAUSTED)


contents = st.builds(
    pb.InferTensorContents,
    bool_contents=st.lists(st.booleans(), max_size=2),
    int_contents=st.lists(st.integers(-(2**31), 2**31 - 1), max_size=2),
    uint_contents=st.lists(st.integers(0, 2**32 - 1), max_size=2),
    fp32_contents=st.lists(st.floats(width=32), max_size=4),
    bytes_contents=st.lists(st.binary(max_size=3), max_size=2),
) | st.builds(pb.InferTensorContents, fp32_contents=st.lists(st.floats(width=32), min_size=3, max_size=3))
any_parameters = st.dictionaries(
    st.sampled_from(["timeout", "classification", "shared_memory_region", "x"]),
    st.builds(pb.InferParameter, int64_param=st.integers(-(2**63), 2**63 - 1))
    | st.builds(pb.InferParameter, string_param=st.text(max_size=3))
    | st.builds(pb.InferParameter),
    max_size=2,
)
input_tensors = st.builds(
    pb.ModelInferRequest.InferInputTensor,
    name=st.sampled_from(["x", "in_BYTES", "in_BOOL", ""]),
    datatype=st.sampled_from(["FP32", "BYTES", "BOOL", "FP16", "?"]),
    shape=st.just([1, 3]) | st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(0, 3), max_size=3),
    parameters=any_parameters,
    contents=contents | st.none(),
)
requests = st.builds(
    pb.ModelInferRequest,
    model_name=st.sampled_from(["affine", "affine", "identity", "", "\U0001f600"]),
    model_version=st.sampled_from(["", "1", "x"]),
    id=st.text(max_size=5),
    parameters=any_parameters,
    inputs=st.lists(input_tensors, max_size=2),
    outputs=st.lists(
        st.builds(
            pb.ModelInferRequest.InferRequestedOutputTensor,
            name=st.sampled_from(["double", "total", "y"]),
            parameters=any_parameters,
        ),
        max_size=2,
    ),
    raw_input_contents=st.lists(st.binary(max_size=16) | st.just(RAW), max_size=2),
)
messages = requests.map(lambda request: request.SerializeToString()) | st.binary(max_size=200)


# --- time


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


def test_health_is_told_as_grpc_has_it(channel: grpc.Channel) -> None:
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
