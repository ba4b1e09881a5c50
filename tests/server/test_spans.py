"""Inferences are spans of OpenTelemetry, received here over OTLP/HTTP by a server that keeps what it gets."""

from __future__ import annotations

import json
import os
import ssl
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
from authority import Authority
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from otlp_receiver import Receiver, receiver, receiving, values
from server_models import affine, lookup
from server_process import Process, running
from tritonclient.utils import InferenceServerException

__all__ = ["receiver"]

BODY = json.dumps({"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}]}).encode()
INFER = "/v2/models/affine/infer"
TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"


@pytest.fixture
def models(tmp_path: Path) -> Path:
    affine(tmp_path / "models" / "affine" / "1" / "model.onnx")
    lookup(tmp_path / "models" / "lookup" / "1" / "model.onnx")
    return tmp_path / "models"


def ask(server: Process, path: str, body: bytes | None = BODY, **headers: str) -> Any:
    try:
        with urllib.request.urlopen(urllib.request.Request(server.url + path, body, headers), timeout=30) as answer:
            return answer.headers
    except urllib.error.HTTPError as error:
        return error.headers


def test_an_inference_is_a_span_in_the_trace_of_its_client(models: Path, receiver: Receiver) -> None:
    with running(models, OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url) as server:
        told = ask(server, INFER, traceparent=f"00-{TRACE}-{PARENT}-01")["traceparent"]
        ask(server, "/v2/models/affine", None)
        ask(server, "/v2/health/live", None)
    ((service, span),) = receiver.everything()
    assert service == "workbench-server"
    assert span.trace_id.hex() == TRACE
    assert span.parent_span_id.hex() == PARENT
    assert told == f"00-{TRACE}-{span.span_id.hex()}-01"
    assert (span.name, span.kind) == ("infer affine", Span.SPAN_KIND_SERVER)
    assert span.status.code == Status.STATUS_CODE_UNSET
    found = values(span.attributes)
    compute, waited = found.pop("inference.compute.seconds"), found.pop("inference.queue.seconds")
    assert 0 < waited + compute <= (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9
    assert found.pop("http.response.body.size") > 0
    assert found == {
        "http.request.method": "POST",
        "url.path": INFER,
        "http.request.body.size": len(BODY),
        "http.response.status_code": 200,
        "inference.model.name": "affine",
        "inference.model.version": "1",
        "inference.batch.rows": 1,
        "inference.cached": False,
    }


def test_an_inference_over_grpc_is_a_span_and_no_other_call_is(models: Path, receiver: Receiver) -> None:
    header = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
    with (
        running(models, OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url, WORKBENCH_GRPC_PORT="0") as server,
        tritonclient.grpc.InferenceServerClient(f"127.0.0.1:{server.ready['grpc_port']}") as client,
    ):
        tensor = tritonclient.grpc.InferInput("x", [1, 3], "FP32").set_data_from_numpy(np.ones((1, 3), np.float32))
        client.infer("affine", [tensor], headers=header)
        client.get_model_metadata("affine", headers=header)
        client.get_model_config("affine", headers=header)
        with pytest.raises(InferenceServerException):
            client.infer("lookup", [tensor])
    (_, span), (_, failed) = receiver.everything()
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, PARENT)
    assert (span.name, span.kind) == ("infer affine", Span.SPAN_KIND_SERVER)
    found, of_failed = values(span.attributes), values(failed.attributes)
    for size in ("inference.request.size", "inference.response.size"):
        assert found.pop(size) > 0
    assert found.pop("inference.compute.seconds") > 0
    assert found.pop("inference.queue.seconds") >= 0
    assert found == {
        "rpc.system.name": "grpc",
        "rpc.method": "inference.GRPCInferenceService/ModelInfer",
        "rpc.response.status_code": "OK",
        "inference.model.name": "affine",
        "inference.model.version": "1",
        "inference.batch.rows": 1,
        "inference.cached": False,
    }
    assert (of_failed["rpc.response.status_code"], of_failed["inference.model.name"]) == ("INVALID_ARGUMENT", "lookup")
    assert failed.status.code == Status.STATUS_CODE_UNSET


def test_without_a_parent_a_trace_begins(models: Path, receiver: Receiver) -> None:
    with running(models, OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url, OTEL_SERVICE_NAME="mine") as server:
        told = ask(server, INFER)["traceparent"]
        refused = ask(server, "/v2/models/lookup/infer", b"{}")["traceparent"]
    (service, span), (_, failed) = receiver.everything()
    assert service == "mine"
    assert span.parent_span_id == b""
    assert told[:52] == f"00-{span.trace_id.hex()}-{span.span_id.hex()}"
    assert refused[:52] == f"00-{failed.trace_id.hex()}-{failed.span_id.hex()}"
    assert int(told[53:], 16) & 1
    found = values(failed.attributes)
    assert (found["http.response.status_code"], found["inference.model.name"]) == (400, "lookup")
    assert "inference.compute.seconds" not in found


def test_what_the_client_does_not_record_is_not_sent(models: Path, receiver: Receiver) -> None:
    with running(models, OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url) as server:
        assert ask(server, INFER, traceparent=f"00-{TRACE}-{PARENT}-00")["traceparent"].endswith("-00")
    assert receiver.everything() == []


@pytest.mark.parametrize("own", [False, True], ids=["as everywhere", "for spans"])
def test_a_receiver_is_trusted_as_the_environment_says(models: Path, tmp_path: Path, own: bool) -> None:
    ours, other = Authority(tmp_path / "ours"), Authority(tmp_path / "other")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*ours.certificate("receiver"))
    with receiving(context) as receiver:
        said = {
            **dict.fromkeys(("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"), ""),  # the client would take these first
            "SSL_CERT_FILE": str((other if own else ours).path),
            **({"OTEL_EXPORTER_OTLP_CERTIFICATE": str(ours.path)} if own else {}),
        }
        with running(models, OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url, **said) as server:
            ask(server, INFER)
        assert len(receiver.everything()) == 1


def test_a_receiver_that_is_away_disturbs_nobody(models: Path, receiver: Receiver) -> None:
    receiver.server.server_close()
    server = Process(models, OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url, OTEL_EXPORTER_OTLP_TIMEOUT="1")
    try:
        assert ask(server, INFER)["content-type"] == "application/json"
        server.process.terminate()
        code, _, _ = server.end()
    finally:
        server.kill()
    assert code == 0


def test_without_the_packages_the_start_says_so(models: Path, tmp_path: Path) -> None:
    # An environment without them, as far as an import can tell.
    (tmp_path / "without" / "opentelemetry").mkdir(parents=True)
    (tmp_path / "without" / "opentelemetry" / "__init__.py").touch()
    path = os.pathsep.join([str(tmp_path / "without"), os.environ.get("PYTHONPATH", "")])
    server = Process(models, OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:1", PYTHONPATH=path)
    try:
        assert "traceparent" not in ask(server, INFER)
        server.process.terminate()
        code, _, err = server.end()
    finally:
        server.kill()
    assert code == 0
    assert [line for line in err.splitlines() if "opentelemetry" in line] == [
        (
            "workbench.server: OTEL_EXPORTER_OTLP_ENDPOINT is set, and no spans are sent: opentelemetry-sdk and "
            "-exporter-otlp-proto-http are not installed (in an image: tracing: true in the recipe's image:)"
        )
    ]
