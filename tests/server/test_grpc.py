"""What is gRPC's own in messages: codes, and what bad ones take at most."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_talking import BARE, FIELDS, GOOD, INFER, MAX_BODY, RAW, Code, asking, connected, raw_call, refused, typed
from hypothesis import given, settings
from hypothesis import strategies as st
from server_models import TYPES, affine, identity
from server_process import Process, running
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    folder = tmp_path_factory.mktemp("models")
    affine(folder / "affine" / "1" / "model.onnx", 2.0)
    identity(folder / "identity" / "1" / "model.onnx")
    with running(folder, WORKBENCH_GRPC_PORT="0", WORKBENCH_MAX_BODY=str(MAX_BODY)) as started:
        yield started


@pytest.fixture(scope="module")
def channel(server: Process) -> Iterator[grpc.Channel]:
    with connected(server) as found:
        yield found


@pytest.fixture(scope="module")
def stub(channel: grpc.Channel) -> Any:
    return service_pb2_grpc.GRPCInferenceServiceStub(channel)


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
