"""Calls of gRPC are observed as requests over HTTP are: in the access log, in traces and in the metrics."""

from __future__ import annotations

import asyncio
import contextlib
import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.grpc.aio
import tritonclient.http
import tritonclient.http.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client.parser import text_string_to_metric_families
from server_models import affine, lookup, slow
from server_process import Process, running
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc
from tritonclient.utils import InferenceServerException

SERVICE = "/inference.GRPCInferenceService"
TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
KEY = "0123456789abcdef-one"
MAX_BODY = 100_000


@pytest.fixture
def models(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    affine(folder / "affine" / "1" / "model.onnx")
    lookup(folder / "lookup" / "1" / "model.onnx")
    slow(folder / "slow" / "1" / "model.onnx")
    return folder


@contextlib.contextmanager
def serving(models: Path, **settings: str) -> Iterator[tuple[Process, grpc.Channel]]:
    """A server, and a channel to it."""
    with (
        running(models, WORKBENCH_GRPC_PORT="0", **settings) as server,
        grpc.insecure_channel(f"127.0.0.1:{server.ready['grpc_port']}") as channel,
    ):
        yield server, channel


@contextlib.contextmanager
def logging(models: Path, log: Path, **settings: str) -> Iterator[tuple[Any, grpc.Channel]]:
    """A server that logs to a file: a stub for it, and the channel."""
    settings |= {"WORKBENCH_ACCESS_LOG": "1", "WORKBENCH_ACCESS_LOG_FILE": str(log)}
    with serving(models, **settings) as (_, channel):
        yield service_pb2_grpc.GRPCInferenceServiceStub(channel), channel


def asking(model: str = "affine") -> Any:
    tensor = pb.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=[1, 3])
    return pb.ModelInferRequest(model_name=model, inputs=[tensor], raw_input_contents=[bytes(12)])


def refused(call: Any) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as error:
        call()
    return error.value


def lines_of(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text().splitlines()]


def told(metadata: Any) -> str:
    """The one traceparent of metadata."""
    (found,) = [value for name, value in metadata if name == "traceparent"]
    return str(found)


def test_a_line_says_what_was_called_and_what_became_of_it(models: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    sent = (("traceparent", f"00-{TRACE}-{PARENT}-01"), ("authorization", "secret"))
    with logging(models, log) as (stub, _):
        answer, call = stub.ModelInfer.with_call(asking(), metadata=sent)
        missing = refused(lambda: stub.ModelMetadata(pb.ModelMetadataRequest(name="none")))
        invalid = refused(lambda: stub.ModelInfer(pb.ModelInferRequest(model_name="affine", id="secret")))
    inferred, *others = lines_of(log)
    assert inferred.pop("time")
    assert 0 < inferred.pop("compute_us") < inferred["duration_us"]
    assert 0 <= inferred.pop("queue_us") < inferred.pop("duration_us")
    assert told(call.initial_metadata()) == f"00-{TRACE}-{inferred['span_id']}-01"
    assert inferred == {
        "method": "POST",
        "path": f"{SERVICE}/ModelInfer",
        "status": 200,
        "request_bytes": asking().ByteSize(),
        "response_bytes": answer.ByteSize(),
        "model": "affine",
        "version": "1",
        "batch_rows": 1,
        "trace_id": TRACE,
        "span_id": inferred["span_id"],
        "parent_id": PARENT,
    }
    assert [(each["path"], each["status"], each.get("model")) for each in others] == [
        (f"{SERVICE}/ModelMetadata", 404, None),
        (f"{SERVICE}/ModelInfer", 400, "affine"),
    ]
    for line, error in zip(others, (missing, invalid), strict=True):
        assert told(error.trailing_metadata())[3:52] == f"{line['trace_id']}-{line['span_id']}"
    assert "secret" not in log.read_text()


def test_what_grpcio_ends_leaves_a_line_too(models: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with logging(models, log, WORKBENCH_MAX_BODY=str(MAX_BODY)) as (stub, channel):
        too_long = refused(lambda: channel.unary_unary(f"{SERVICE}/ModelInfer")(bytes(MAX_BODY + 1)))
        unknown = refused(lambda: channel.unary_unary("/a.b/c")(b""))
        late = refused(lambda: stub.ModelInfer(asking("slow"), timeout=0.05))
    codes = grpc.StatusCode
    assert [each.code() for each in (too_long, unknown, late)] == [
        codes.RESOURCE_EXHAUSTED,
        codes.UNIMPLEMENTED,
        codes.DEADLINE_EXCEEDED,
    ]
    assert [(each["path"], each["status"], each["response_bytes"]) for each in lines_of(log)] == [
        (f"{SERVICE}/ModelInfer", 499, 0),
        ("/a.b/c", 501, 0),
        (f"{SERVICE}/ModelInfer", 504, 0),
    ]


def test_a_client_that_cancels_is_told_of(models: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with serving(models, WORKBENCH_ACCESS_LOG="1", WORKBENCH_ACCESS_LOG_FILE=str(log)) as (server, channel):
        call = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer.future(asking("slow"))
        while not numbers(server, "inference_pending_requests").get(("slow", ""), 0):
            pass
        call.cancel()
    (line,) = [each for each in lines_of(log) if each["path"].startswith(SERVICE)]
    assert (line["status"], line["model"]) == (499, "slow")


def test_who_watches_health_is_one_line_that_ends_with_the_watching(models: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with logging(models, log) as (_, channel):
        watching = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        answer = next(watching)
        trace = told(watching.initial_metadata())
        assert not log.read_text()
        watching.cancel()
        while not log.read_text():
            pass  # else the server would tell that it stops before it has heard of that
    (line,) = lines_of(log)
    assert (line["path"], line["status"], line["response_bytes"]) == (
        "/grpc.health.v1.Health/Watch",
        200,
        answer.ByteSize(),
    )
    assert trace[3:52] == f"{line['trace_id']}-{line['span_id']}"


def test_without_the_switch_there_is_no_trace(models: Path) -> None:
    with serving(models) as (_, channel):
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        _, call = stub.ModelInfer.with_call(asking(), metadata=[("traceparent", f"00-{TRACE}-{PARENT}-01")])
        error = refused(lambda: stub.ModelInfer(asking("none")))
    assert "traceparent" not in dict((*call.initial_metadata(), *call.trailing_metadata(), *error.trailing_metadata()))


def test_who_may_not_ask_is_logged_without_the_key(models: Path, tmp_path: Path) -> None:
    log, keys = tmp_path / "log", tmp_path / "keys"
    keys.write_text(KEY)
    with logging(models, log, WORKBENCH_API_KEY_FILE=str(keys)) as (stub, channel):
        for metadata in ((), (("authorization", "Bearer a-wrong-key-of-somebody"),)):
            error = refused(lambda metadata=metadata: stub.ModelInfer(asking(), metadata=metadata))
            assert error.code() == grpc.StatusCode.UNAUTHENTICATED
            assert "API key" in error.details()
        # What there is, is for those with a key.
        assert refused(lambda: channel.unary_unary("/a.b/c")(b"")).code() == grpc.StatusCode.UNAUTHENTICATED
        stub.ModelInfer(asking(), metadata=[("authorization", f"Bearer {KEY}")])
        stub.ServerReady(pb.ServerReadyRequest())
        health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
    assert [each["status"] for each in lines_of(log)] == [401, 401, 401, 200, 200, 200]
    assert KEY not in log.read_text()
    assert "a-wrong-key" not in log.read_text()


def numbers(server: Process, name: str) -> dict[tuple[str, str], float]:
    """A number of the metrics by model, and reason where it has one."""
    with urllib.request.urlopen(f"{server.url}/metrics", timeout=30) as answer:
        families = list(text_string_to_metric_families(answer.read().decode()))
    samples = [each for family in families for each in family.samples if each.name == name]
    return {(each.labels["model"], each.labels.get("reason", "")): each.value for each in samples}


@pytest.mark.parametrize(("module", "port"), [(tritonclient.http, "port"), (tritonclient.grpc, "grpc_port")])
def test_the_metrics_count_what_comes_over_each_transport(models: Path, module: Any, port: str) -> None:
    row = np.ones((1, 3), np.float32)

    async def work(server: Process) -> None:
        async def infer(model: str, array: Any, name: str = "x", datatype: str = "FP32", **more: Any) -> None:
            tensor = module.InferInput(name, list(array.shape), datatype)
            tensor.set_data_from_numpy(array)
            async with module.aio.InferenceServerClient(f"127.0.0.1:{server.ready[port]}") as client:
                await client.infer(model, [tensor], **more)

        async def pending(count: int) -> None:
            while (await asyncio.to_thread(numbers, server, "inference_pending_requests"))["slow", ""] != count:
                pass

        await infer("affine", np.ones((5, 3), np.float32))
        for model, array, more in (
            ("affine", np.ones((1, 4), np.float32), {}),
            ("lookup", np.array([9]), {"name": "index", "datatype": "INT64"}),
            ("slow", row, {"timeout": 1000}),
        ):
            with pytest.raises(InferenceServerException):
                await infer(model, array, **more)
        await pending(0)
        waiting = [asyncio.create_task(infer("slow", row)) for _ in range(2)]
        await pending(2)
        with pytest.raises(InferenceServerException, match="try again later"):
            await infer("slow", row)
        await asyncio.gather(*waiting)
        await pending(0)

    settings = {"WORKBENCH_GRPC_PORT": "0", "WORKBENCH_QUEUE": "2", "WORKBENCH_QUEUE_WAIT": "600"}
    with running(models, **settings) as server:
        asyncio.run(work(server))
        answered = numbers(server, "inference_request_success_total")
        assert answered == {("affine", ""): 1, ("lookup", ""): 0, ("slow", ""): 2}
        assert numbers(server, "inference_rows_total")["affine", ""] == 5
        assert numbers(server, "inference_request_failure_total") == {
            ("affine", "invalid"): 1,
            ("lookup", "model"): 1,
            ("slow", "deadline"): 1,
            ("slow", "full"): 1,
        }


def test_a_client_that_tries_again_is_answered_in_the_end(models: Path, tmp_path: Path) -> None:
    # It does so only where it has got no initial metadata, in which the access log has it told its trace.
    policy = {
        "maxAttempts": 5,
        "initialBackoff": "0.1s",
        "maxBackoff": "1s",
        "backoffMultiplier": 2,
        "retryableStatusCodes": ["RESOURCE_EXHAUSTED"],
    }
    config = {"methodConfig": [{"name": [{"service": SERVICE[1:]}], "retryPolicy": policy}]}
    log = tmp_path / "log"
    settings = {"WORKBENCH_ACCESS_LOG": "1", "WORKBENCH_ACCESS_LOG_FILE": str(log), "WORKBENCH_QUEUE": "1"}
    with serving(models, **settings) as (server, _):
        address = f"127.0.0.1:{server.ready['grpc_port']}"
        stub = service_pb2_grpc.GRPCInferenceServiceStub
        with grpc.insecure_channel(address, [("grpc.service_config", json.dumps(config))]) as channel:
            calls = [stub(channel).ModelInfer.future(asking("slow")) for _ in range(2)]
            assert [call.code() for call in calls] == [grpc.StatusCode.OK] * 2
    statuses = [each["status"] for each in lines_of(log)]
    assert statuses.count(200) == 2
    assert set(statuses) == {200, 429}
