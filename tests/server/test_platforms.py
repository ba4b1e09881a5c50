"""What hosting platforms ask of a container: the addresses, ports, forms and errors of each."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from server_models import Ask, affine, asker, identity, load_models, lookup
from server_process import Process, running

from workbench.server.address import detect
from workbench.server.app import App
from workbench.server.errors import ServerError
from workbench.server.platforms import install
from workbench.server.settings import from_environment

ROW = {"instances": [[1, 2, 3]]}
PREDICTED = {"predictions": [{"double": [2, 4, 6], "total": [6]}]}
V2 = {"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}], "outputs": [{"name": "total"}]}
VERTEX = {"AIP_HTTP_PORT": "7080", "AIP_HEALTH_ROUTE": "/well", "AIP_PREDICT_ROUTE": "/v1/models/any:predict"}
JSON = (b"content-type", b"application/json")
CSV = (b"content-type", b"text/csv; charset=utf-8")
WANTS_CSV = (b"accept", b"text/csv")


@pytest.fixture
def on(tmp_path: Path) -> Callable[..., Ask]:
    """Asks an application as a platform starts it, over one model (or the given ones)."""

    def started(environment: dict[str, str], *arguments: str, models: Any = None, model: str = "") -> Ask:
        files = models or {"m": affine(tmp_path / "m.onnx")}
        app = App(load_models({name: {"1": path} for name, path in files.items()}), max_body=100_000)
        install(app, detect(environment, arguments), model)
        return asker(app)

    return started


def test_kubernetes_probes_are_always_there(tmp_path: Path) -> None:
    app = App(load_models({"m": {"1": affine(tmp_path / "m.onnx")}}), 1000)
    install(app, None)
    ask = asker(app)
    for path in ("/livez", "/readyz", "/healthz"):
        assert ask(path)[:2] == (200, b"ok")
    app.ready = False
    assert [ask(path)[0] for path in ("/livez", "/readyz", "/healthz")] == [200, 503, 503]
    assert ask("/ping")[0] == ask("/")[0] == 404


def test_what_a_platform_sets_decides_the_port() -> None:
    def port(*arguments: str, **environment: str) -> int:
        return from_environment({"WORKBENCH_PORT": "8000", **environment}, arguments).port

    assert port() == 8000
    assert port("serve") == 8080
    assert port("serve", SAGEMAKER_BIND_TO_PORT="9000") == port(SAGEMAKER_BIND_TO_PORT="9000") == 9000
    assert port(**VERTEX) == 7080
    assert port(**VERTEX | {"AIP_HTTP_PORT": ""}) == 8080
    assert port(AZUREML_MODEL_DIR="/var/azureml-app/azureml-models") == 8000
    assert port(AZUREML_ENTRY_SCRIPT="score.py", SERVER_PORT="5002") == 5002
    assert port(WORKBENCH_PLATFORM="azureml") == 5001
    assert port(WORKBENCH_PLATFORM="sagemaker") == 8080


@pytest.mark.parametrize(
    ("environment", "arguments", "words"),
    [
        ({}, ["train"], "'train'"),
        ({}, ["serve", "x"], "'serve x'"),
        ({"AIP_HTTP_PORT": "8080"}, [], "AIP_HEALTH_ROUTE"),
        ({"AIP_HEALTH_ROUTE": "/x", "AIP_PREDICT_ROUTE": "x"}, [], "AIP_PREDICT_ROUTE"),
        ({"SAGEMAKER_BIND_TO_PORT": "http"}, [], "SAGEMAKER_BIND_TO_PORT"),
        ({"WORKBENCH_PLATFORM": "heroku"}, [], "WORKBENCH_PLATFORM"),
    ],
)
def test_what_no_platform_says_ends_the_start(environment: dict[str, str], arguments: list[str], words: str) -> None:
    with pytest.raises(ServerError, match=words):
        from_environment(environment, arguments)


def test_sagemaker_pings_and_invokes(on: Callable[..., Ask]) -> None:
    ask = on({}, "serve")
    assert ask("/ping")[:2] == (200, b"")
    assert ask("/invocations", ROW) == (200, PREDICTED)
    assert ask("/invocations", V2, headers=[JSON])[1]["outputs"][0]["data"] == [6]
    assert ask("/invocations", {"inputs": [[1, 2, 3]]})[1] == {"outputs": {"double": [[2, 4, 6]], "total": [[6]]}}
    assert ask("/ping", ROW)[0] == ask("/invocations")[0] == 405


def test_vertex_asks_at_the_addresses_that_it_names(on: Callable[..., Ask]) -> None:
    ask = on(VERTEX)
    assert ask("/well")[0] == 200
    assert ask("/v1/models/any:predict", ROW | {"parameters": {"x": 1}}) == (200, PREDICTED)
    assert ask("/v1/models/m:predict", ROW) == (200, PREDICTED)


def test_vertex_may_name_one_address_for_both(on: Callable[..., Ask]) -> None:
    ask = on({"AIP_HEALTH_ROUTE": "/m", "AIP_PREDICT_ROUTE": "/m"})
    assert ask("/m")[0] == 200
    assert ask("/m", ROW) == (200, PREDICTED)
    assert ask("/m", method="PUT")[0] == 405


def test_azure_asks_at_score_and_has_errors_of_its_own_form(on: Callable[..., Ask]) -> None:
    ask = on({"AZUREML_MODEL_DIR": "/models"})
    assert ask("/")[0] == 200
    assert ask("/score", ROW) == (200, PREDICTED)
    for status, asked in ((400, {"instances": [[1, 2]]}), (413, b" " * 100_001), (405, None)):
        answered, answer = ask("/score", asked)
        assert answered == status
        assert list(answer) == ["message"]
    assert list(ask("/v1/models/m:predict", {})[1]) == ["error"]


@pytest.mark.parametrize("path", ["/invocations", "/well", "/score"])
def test_a_platforms_addresses_are_only_there_on_it(on: Callable[..., Ask], path: str) -> None:
    assert on({})(path, ROW)[0] == 404


def test_one_of_several_models_has_to_be_named(on: Callable[..., Ask], tmp_path: Path) -> None:
    models = {"m": affine(tmp_path / "m.onnx"), "n": lookup(tmp_path / "n.onnx")}
    with pytest.raises(ServerError, match="m, n") as caught:
        on({}, "serve", models=models)
    assert "WORKBENCH_PLATFORM_MODEL" in caught.value.cure
    with pytest.raises(ServerError, match="no model 'o'"):
        on({}, "serve", models=models, model="o")
    assert on({}, "serve", models=models, model="n")("/invocations", {"instances": [1]})[1] == {"predictions": [[2, 3]]}


def test_the_document_is_there_also_while_the_model_is_not(tmp_path: Path) -> None:
    affine(tmp_path / "m" / "1" / "model.onnx")
    with running(tmp_path, "serve", SAGEMAKER_BIND_TO_PORT="0", WORKBENCH_REPOSITORY="1") as server:
        assert requests.post(f"{server.url}/v2/repository/models/m/unload", timeout=30).status_code == 200
        assert requests.post(f"{server.url}/invocations", json=ROW, timeout=30).status_code == 404
        document = requests.get(f"{server.url}/openapi.json", timeout=30)
    assert document.status_code == 200
    assert "post" in document.json()["paths"]["/invocations"]


def test_rows_of_csv_are_instances(on: Callable[..., Ask]) -> None:
    ask = on({}, "serve")
    body = b'1,2,3\r\n\r\n"4", 5,6.5\n'
    expected = {"predictions": [{"double": [2, 4, 6], "total": [6]}, {"double": [8, 10, 13], "total": [15.5]}]}
    assert ask("/invocations", body, headers=[CSV]) == (200, expected)
    lines = b"2.0,4.0,6.0,6.0\n8.0,10.0,13.0,15.5\n"
    assert ask("/invocations", body, headers=[CSV, WANTS_CSV]) == (200, lines, "text/csv")
    as_json = {"instances": [[1, 2, 3], [4, 5, 6.5]]}
    assert ask("/invocations", as_json, headers=[JSON, WANTS_CSV]) == (200, lines, "text/csv")
    assert ask("/invocations", {"instances": []}, headers=[JSON, WANTS_CSV])[:2] == (200, b"")
    first = [CSV, (b"accept", b"application/json, text/csv")]
    assert ask("/invocations", body, headers=first) == (200, expected)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "no line"),
        (b"\n\n", "no line"),
        (b"a,b,c\n1,2,3", "line 1 has a value that is no FP32; a header"),
        (b"1,2,3\n4,5", "line 2 has 2 values, those before have 3"),
        (b"1,2\n3,4", "shape [2, 2]"),
        (b"1,,3", "line 1"),
        (b"1,nan,3", "range of FP32"),
        (b"1,-inf,3", "range of FP32"),
        (b"1,1e39,3", "range of FP32"),
        (b'1,"2,3', "line 1"),
        (b"\xff,2,3", "not CSV"),
        (b"1,2," + b"3" * 200_000, "longer"),
    ],
)
def test_bad_csv_is_said_by_line(on: Callable[..., Ask], body: bytes, words: str) -> None:
    status, answer = on({}, "serve")("/invocations", body, headers=[CSV])
    assert status == (413 if words == "longer" else 400)
    assert words in answer["error"]


def test_csv_is_for_one_numeric_input_of_two_axes(on: Callable[..., Ask], tmp_path: Path) -> None:
    for model in (identity(tmp_path / "i.onnx"), lookup(tmp_path / "l.onnx")):
        assert on({}, "serve", models={"m": model})("/invocations", b"1", headers=[CSV])[0] == 415
    ask = on({}, "serve", models={"m": lookup(tmp_path / "l.onnx")})
    assert ask("/invocations", {"instances": [1]}, headers=[JSON, WANTS_CSV]) == (200, b"2.0,3.0\n", "text/csv")


def test_what_is_read_nowhere_is_415(on: Callable[..., Ask]) -> None:
    status, answer = on({}, "serve")("/invocations", b"x", headers=[(b"content-type", b"application/x-npy")])
    assert status == 415
    assert "application/x-npy" in answer["error"]


def test_binary_sections_come_in_the_content_type_or_by_the_header(on: Callable[..., Ask]) -> None:
    data = np.array([1, 2, 3], "<f4").tobytes()
    tensor = {"name": "x", "shape": [1, 3], "datatype": "FP32", "parameters": {"binary_data_size": len(data)}}
    asked = {"inputs": [tensor], "parameters": {"binary_data_output": True}, "outputs": [{"name": "total"}]}
    head = json.dumps(asked).encode()
    triton = b"application/vnd.sagemaker-triton.binary+json"
    ask = on({}, "serve")
    status, body, kind = ask(
        "/invocations", head + data, headers=[(b"content-type", triton + b";json-header-size=%d" % len(head))]
    )
    assert status == 200
    assert kind.startswith(triton.decode() + ";json-header-size=")
    length = int(kind.partition("=")[2])
    assert json.loads(body[:length])["outputs"][0]["name"] == "total"
    assert struct.unpack("<f", body[length:]) == (6,)
    octets = [(b"content-type", b"application/octet-stream"), (b"inference-header-content-length", b"%d" % len(head))]
    status, body, length = ask("/invocations", head + data, headers=octets)
    assert status == 200
    assert struct.unpack("<f", body[length:]) == (6,)
    for wrong in (triton, triton + b";json-header-size=x", triton + b";json-header-size=99999"):
        assert ask("/invocations", head + data, headers=[(b"content-type", wrong)])[0] == 400


def test_head_is_get_without_a_body_and_405_says_what_is_taken(tmp_path: Path) -> None:
    affine(tmp_path / "m" / "1" / "model.onnx")
    with running(tmp_path, "serve", SAGEMAKER_BIND_TO_PORT="0") as server:
        for path in ("/ping", "/readyz", "/v2/health/ready", "/v1/models", "/metrics", "/openapi.json"):
            answer = requests.head(server.url + path, timeout=30)
            assert (answer.status_code, answer.content) == (200, b"")
            answer = requests.delete(server.url + path, timeout=30)
            assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")
        answer = requests.get(server.url + "/v2/models/m/infer", timeout=30)
        assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
        assert requests.post(server.url + "/invocations", json=ROW, timeout=30).json() == PREDICTED


def test_a_start_that_no_platform_makes_is_one_line(tmp_path: Path) -> None:
    code, _, err = Process(tmp_path, "train").end()
    assert code == 2
    assert err.count("\n") == 1
    assert "'train'" in err
