"""The server as tritonclient finds it, over HTTP and over gRPC: a client that nobody here wrote."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.grpc.aio
import tritonclient.http
import tritonclient.http.aio
from google.protobuf.json_format import ParseDict
from server_models import TYPES, affine, identity, lookup, slow
from server_process import Process, running
from tritonclient.grpc.service_pb2 import ModelStatisticsResponse
from tritonclient.utils import InferenceServerException, triton_to_np_dtype

import workbench

# Every client is closed here. Its __del__ would close it again, in whichever thread collects it, which gevent refuses;
# gRPC has threads of its own.
tritonclient.http.InferenceServerClient.__del__ = lambda _: None

ROW = np.array([[1, 2, 3]], np.float32)


@dataclass
class Transport:
    """One of the two ways to the server: tritonclient's module for it, a client, and how inputs and outputs go."""

    module: Any
    client: Any
    aio: Any
    url: str
    binary: bool | None

    def tensor(self, name: str, array: np.ndarray[Any, Any], datatype: str) -> Any:
        """An input."""
        tensor = self.module.InferInput(name, list(array.shape), datatype)
        if self.binary is None:
            tensor.set_data_from_numpy(array)
        else:
            tensor.set_data_from_numpy(array, binary_data=self.binary)
        return tensor

    def wanted(self, name: str) -> Any:
        """An output that is asked for."""
        if self.binary is None:
            return self.module.InferRequestedOutput(name)
        return self.module.InferRequestedOutput(name, binary_data=self.binary)

    def infer(self, array: np.ndarray[Any, Any] = ROW, model: str = "affine", **more: Any) -> Any:
        """The result of a request with ``array`` as x."""
        return self.client.infer(model, [self.tensor("x", array, "FP32")], **more)

    def told(self, question: str, *arguments: Any) -> Any:
        """The answer of a method that answers with JSON or a message, as plain data."""
        more = {"as_json": True} if self.module is tritonclient.grpc else {}
        return getattr(self.client, question)(*arguments, **more)


WAYS = {"http-json": False, "http-binary": True, "grpc": None}


def transport(server: Process, way: str) -> Transport:
    """A way to a server."""
    if way == "grpc":
        url = f"127.0.0.1:{server.ready['grpc_port']}"
        module: Any = tritonclient.grpc
    else:
        url = f"127.0.0.1:{server.ready['port']}"
        module = tritonclient.http
    return Transport(module, module.InferenceServerClient(url), module.aio, url, WAYS[way])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """A server over identity, lookup and affine in versions 1, 2 and 10."""
    folder = tmp_path_factory.mktemp("models")
    identity(folder / "identity" / "1" / "model.onnx")
    lookup(folder / "lookup" / "1" / "model.onnx")
    slow(folder / "slow" / "1" / "model.onnx")
    for version in ("1", "2", "10"):
        affine(folder / "affine" / version / "model.onnx", float(version))
    with running(folder, WORKBENCH_GRPC_PORT="0") as started:
        yield started


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, server: Process) -> Iterator[Transport]:
    """Each way to the server."""
    found = transport(server, request.param)
    yield found
    found.client.close()


def test_the_server_says_who_and_how_it_is(way: Transport) -> None:
    assert way.client.is_server_live()
    assert way.client.is_server_ready()
    about = way.told("get_server_metadata")
    assert (about["name"], about["version"]) == ("workbench", workbench.__version__)
    assert "model_repository" in about["extensions"]


def test_models_and_versions_that_are_there_are_ready(way: Transport) -> None:
    assert way.client.is_model_ready("affine")
    assert way.client.is_model_ready("affine", "2")
    assert not way.client.is_model_ready("affine", "3")
    assert not way.client.is_model_ready("none")


def test_the_metadata_of_a_model_is_its_signature(way: Transport) -> None:
    found = way.told("get_model_metadata", "affine")
    assert (found["name"], found["versions"]) == ("affine", ["1", "2", "10"])
    tensors = {each["name"]: (each["datatype"], list(map(int, each["shape"]))) for each in found["outputs"]}
    assert tensors == {"double": ("FP32", [-1, 3]), "total": ("FP32", [-1, 1])}
    assert way.told("get_model_metadata", "affine", "2")["inputs"][0]["name"] == "x"


def dims(tensors: Any) -> dict[str, tuple[str, list[int]]]:
    """The inputs or outputs of a configuration as plain data; gRPC's JSON has integers as text."""
    return {each["name"]: (each["data_type"], list(map(int, each["dims"]))) for each in tensors}


def test_the_configuration_of_a_model_says_how_to_make_batches(way: Transport) -> None:
    def config(*of: str) -> Any:
        found = way.told("get_model_config", *of)
        return found["config"] if way.module is tritonclient.grpc else found

    found = config("affine", "2")
    assert (found["name"], found["platform"], found["max_batch_size"]) == ("affine", "onnxruntime_onnx", 64)
    assert dims(found["input"]) == {"x": ("TYPE_FP32", [3])}
    assert dims(found["output"]) == {"double": ("TYPE_FP32", [3]), "total": ("TYPE_FP32", [1])}
    # The one has tensors of rows alone, the other an axis of a fixed extent: they keep all their axes.
    for name, tensors in (
        ("identity", {f"in_{each}": (f"TYPE_{each}".replace("BYTES", "STRING"), [-1]) for each in TYPES}),
        ("lookup", {"index": ("TYPE_INT64", [1])}),
    ):
        found = config(name)
        assert found.get("max_batch_size", 0) == 0
        assert dims(found["input"]) == tensors
    with pytest.raises(InferenceServerException, match="no version '9'"):
        config("affine", "9")


def test_what_was_answered_is_told_the_same_over_each_transport(tmp_path: Path) -> None:
    for name, version in (("affine", "1"), ("affine", "2"), ("other", "1")):
        affine(tmp_path / name / version / "model.onnx")
    with running(tmp_path, WORKBENCH_GRPC_PORT="0") as server:
        http, grpc = transport(server, "http-binary"), transport(server, "grpc")
        for way, rows in ((http, 1), (grpc, 300), (grpc, 1)):
            way.infer(np.ones((rows, 3), np.float32))
            with pytest.raises(InferenceServerException):
                way.infer(np.ones((rows, 4), np.float32))
        for of, count in ((), 3), (("affine",), 2), (("affine", "2"), 1):
            found = grpc.client.get_inference_statistics(*of)
            assert found == ParseDict(http.client.get_inference_statistics(*of), ModelStatisticsResponse())
            assert len(found.model_stats) == count
        (found,) = found.model_stats
        assert (found.inference_count, found.execution_count) == (302, 3)
        assert (found.inference_stats.success.count, found.inference_stats.fail.count) == (3, 3)
        assert [(each.batch_size, each.compute_infer.count) for each in found.batch_stats] == [(1, 2), (512, 1)]
        with pytest.raises(InferenceServerException, match="no model 'none'"):
            grpc.client.get_inference_statistics("none")
        for way in (http, grpc):
            way.client.close()


def example(datatype: str) -> np.ndarray[Any, Any]:
    """Three elements of a datatype, its extremes among them."""
    if datatype == "BYTES":
        return np.array(["", "ä\0", "x" * 300], object)
    dtype = np.dtype(triton_to_np_dtype(datatype))
    if dtype.kind == "b":
        return np.array([True, False, True])
    limits = np.iinfo(dtype) if dtype.kind in "iu" else np.finfo(dtype)
    return np.array([limits.min, 1, limits.max], dtype)


def test_every_datatype_goes_in_and_comes_out_in_one_request(way: Transport) -> None:
    # The client itself refuses to write FP16 as JSON; it goes as bytes there.
    binary = {name: True if name == "FP16" and way.binary is False else way.binary for name in TYPES}
    ways = {name: Transport(way.module, way.client, way.aio, way.url, binary[name]) for name in TYPES}
    result = way.client.infer(
        "identity",
        [ways[name].tensor(f"in_{name}", example(name), name) for name in TYPES],
        outputs=[ways[name].wanted(f"out_{name}") for name in TYPES],
    )
    for name in TYPES:
        found, sent = result.as_numpy(f"out_{name}"), example(name)
        if name == "BYTES":
            assert [each if isinstance(each, str) else each.decode() for each in found] == sent.tolist()
        else:
            assert (found.dtype, found.tobytes()) == (sent.dtype, sent.tobytes()), name


def test_every_output_comes_with_its_shape(way: Transport) -> None:
    result = way.infer(np.arange(6, dtype=np.float32).reshape(2, 3))
    assert result.as_numpy("double").tolist() == [[0, 10, 20], [30, 40, 50]]
    assert result.as_numpy("total").tolist() == [[3], [12]]


def test_only_the_outputs_that_are_asked_for_come(way: Transport) -> None:
    result = way.infer(outputs=[way.wanted("total")])
    assert result.as_numpy("total").tolist() == [[6]]
    assert result.as_numpy("double") is None


def test_a_request_keeps_its_id(way: Transport) -> None:
    response = way.infer(request_id="a-1").get_response()
    assert (response["id"] if isinstance(response, dict) else response.id) == "a-1"


def test_the_version_that_is_named_answers(way: Transport) -> None:
    for version, factor in (("2", 2), ("", 10)):
        assert way.infer(model_version=version).as_numpy("double").tolist() == (factor * ROW).tolist()


def test_requests_at_once_get_their_own_answers(way: Transport) -> None:
    async def work() -> list[Any]:
        async with way.aio.InferenceServerClient(way.url) as client:
            asked = [client.infer("affine", [way.tensor("x", value * ROW, "FP32")]) for value in range(64)]
            return await asyncio.gather(*asked)

    for value, result in enumerate(asyncio.run(work())):
        assert result.as_numpy("double").tolist() == (10 * value * ROW).tolist()


def test_a_request_that_takes_longer_than_it_may_fails(way: Transport) -> None:
    with pytest.raises(InferenceServerException, match=r"not there after 0\.001 s"):
        way.infer(np.zeros((1, 3), np.float32), "slow", timeout=1000)


def wrong(**changed: Any) -> Callable[[Transport], Any]:
    """A request that differs from a good one in something."""

    def asked(way: Transport) -> Any:
        tensor = way.tensor(changed.pop("name", "x"), changed.pop("array", ROW).copy(), changed.pop("datatype", "FP32"))
        if "shape" in changed:
            tensor.set_shape(changed.pop("shape"))
        return way.client.infer(changed.pop("model", "affine"), [tensor] * changed.pop("times", 1), **changed)

    return asked


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (lambda: wrong(model="none"), "no model 'none'"),
        (lambda: wrong(model_version="3"), "no version '3'"),
        (lambda: wrong(name="y"), "no input 'y'"),
        (lambda: wrong(array=np.ones((1, 4), np.float32)), r"shape \[1, 4\] does not fit"),
        (lambda: wrong(array=np.ones((1, 3)), datatype="FP64"), "datatype is 'FP64'; the model takes FP32"),
        (lambda: wrong(shape=[2, 3]), r"shape \[2, 3\]"),
        (lambda: wrong(times=2), "given twice"),
        (lambda: wrong(times=0), "inputs are missing: 'x'"),
        (lambda: wrong(timeout=-1), "timeout is -1"),
    ],
)
def test_what_is_wrong_with_a_request_is_said(way: Transport, request_: Any, words: str) -> None:
    with pytest.raises(InferenceServerException, match=words):
        request_()(way)


def test_outputs_that_are_not_there_or_not_so_are_refused(way: Transport) -> None:
    for output, words in (
        (way.wanted("none"), "no output 'none'"),
        (way.module.InferRequestedOutput("total", class_count=2), "not spoken here"),
    ):
        with pytest.raises(InferenceServerException, match=words):
            way.infer(outputs=[output])


def test_inputs_in_shared_memory_are_refused(way: Transport) -> None:
    tensor = way.tensor("x", ROW, "FP32")
    tensor.set_shared_memory("region", 12)
    with pytest.raises(InferenceServerException, match="shared memory extension is not spoken here"):
        way.client.infer("affine", [tensor])


def test_what_only_the_model_finds_wrong_is_said(way: Transport) -> None:
    with pytest.raises(InferenceServerException, match="does not take these values"):
        way.client.infer("lookup", [way.tensor("index", np.array([4]), "INT64")])


def test_models_are_changed_only_where_that_is_allowed(way: Transport) -> None:
    for change in (way.client.load_model, way.client.unload_model):
        with pytest.raises(InferenceServerException, match="WORKBENCH_REPOSITORY=1"):
            change("affine")
    with pytest.raises(InferenceServerException, match="WORKBENCH_REPOSITORY=1"):
        way.told("get_model_repository_index")


@pytest.mark.parametrize("name", ["http-json", "grpc"])
def test_models_are_listed_loaded_and_unloaded(tmp_path: Path, name: str) -> None:
    for version in ("1", "2"):
        affine(tmp_path / "affine" / version / "model.onnx", float(version))
    with running(tmp_path, WORKBENCH_GRPC_PORT="0", WORKBENCH_REPOSITORY="1") as server:
        way = transport(server, name)

        def states() -> dict[str, str]:
            listed = way.told("get_model_repository_index")
            return {each["version"]: each["state"] for each in (listed["models"] if name == "grpc" else listed)}

        assert states() == {"1": "READY", "2": "READY"}
        way.client.load_model("affine", config=json.dumps({"versions": ["1"]}))
        assert states() == {"1": "READY", "2": "UNAVAILABLE"}
        assert way.infer().as_numpy("double").tolist() == ROW.tolist()
        way.client.unload_model("affine")
        assert not way.client.is_model_ready("affine")
        for asked, words in (
            ({"config": json.dumps({"versions": ["7"]})}, "no version '7'"),
            ({"config": "nonsense"}, "cannot be read"),
            ({"config": "{}", "files": {"file:1/model.onnx": b"nonsense"}}, "file:1/model.onnx"),
        ):
            with pytest.raises(InferenceServerException, match=words):
                way.client.load_model("affine", **asked)
        with pytest.raises(InferenceServerException, match="'none'"):
            way.client.load_model("none")
        way.client.load_model("affine")
        assert way.client.is_model_ready("affine", "2")
        way.client.close()


@pytest.mark.parametrize("name", ["http-json", "grpc"])
def test_a_key_is_sent_as_a_header_in_small_letters_as_grpc_wants_them(tmp_path: Path, name: str) -> None:
    affine(tmp_path / "models" / "affine" / "1" / "model.onnx")
    (tmp_path / "keys").write_text("0123456789abcdef")
    settings = {"WORKBENCH_GRPC_PORT": "0", "WORKBENCH_API_KEY_FILE": str(tmp_path / "keys")}
    with running(tmp_path / "models", **settings) as server:
        way = transport(server, name)
        assert way.client.is_server_live()
        right = {"authorization": "Bearer 0123456789abcdef"}
        assert way.infer(headers=right).as_numpy("total").tolist() == [[6]]
        assert way.client.get_inference_statistics("affine", headers=right)
        for wrong_key in (None, {"authorization": "Bearer 0123456789abcdeX"}):
            for call in (way.infer, partial(way.client.get_model_config, "affine")):
                with pytest.raises(InferenceServerException, match="API key") as refused:
                    call(headers=wrong_key)
                assert refused.value.status() in ("401", "StatusCode.UNAUTHENTICATED")
        way.client.close()
