"""Where there are API keys, all but probes need one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import requests
from server_models import affine, asker, load_models
from server_process import Process, running

from workbench.server.address import detect
from workbench.server.api_keys import ApiKeys, read_keys
from workbench.server.app import App, Response, Route
from workbench.server.errors import RequestError, ServerError
from workbench.server.platforms import install

ONE = "0123456789abcdef-one"
TWO = "TWOtwo+/._~-0123456789=="
INFER = "/v2/models/affine/infer"
BODY = {"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}]}


@pytest.fixture
def models(tmp_path: Path) -> Path:
    affine(tmp_path / "models" / "affine" / "1" / "model.onnx")
    return tmp_path / "models"


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    path = tmp_path / "keys"
    path.write_text(f"{ONE}\n\n  {TWO}  \n")
    return path


def bearer(key: str, scheme: str = "Bearer") -> dict[str, str]:
    return {"Authorization": f"{scheme} {key}"}


def test_each_key_lets_in_and_nothing_else_does(models: Path, keys: Path) -> None:
    with running(models, WORKBENCH_API_KEY_FILE=str(keys)) as server, requests.Session() as session:
        for given in (bearer(ONE), bearer(TWO), bearer(TWO, "bearer")):
            answer = session.post(server.url + INFER, json=BODY, headers=given)
            assert (answer.status_code, answer.json()["outputs"][1]["data"]) == (200, [6])
        for given in (
            {},
            bearer(ONE[:-1]),
            bearer(""),
            bearer(ONE + TWO),
            bearer(f"{ONE},{TWO}"),
            bearer(ONE, "Basic"),
        ):
            answer = session.post(server.url + INFER, json=BODY, headers=given)
            assert answer.status_code == 401
            assert answer.headers["WWW-Authenticate"] == 'Bearer realm="workbench"'
            assert "key" in answer.json()["error"]


def test_probes_need_no_key_and_all_other_addresses_do(models: Path, keys: Path) -> None:
    opened = {"/v2/health/live": 200, "/v2/health/ready": 200}
    closed = ["/v2", "/v2/models/affine", "/v2/models/affine/ready", "/metrics", "/v2/models/stats", "/nothing"]
    with running(models, WORKBENCH_API_KEY_FILE=str(keys)) as server, requests.Session() as session:
        assert {path: session.get(server.url + path).status_code for path in opened} == opened
        assert [session.get(server.url + path).status_code for path in closed] == [401] * len(closed)
        assert session.post(server.url + "/v2/repository/index", json={}).status_code == 401
        assert session.get(server.url + "/metrics", headers=bearer(ONE)).status_code == 200
        # It is refused whatever it is: what there is, and what is allowed, is for those with a key.
        assert session.delete(server.url + "/v2").status_code == 401


def test_routes_of_their_own_need_a_key_unless_they_tell_of_health(tmp_path: Path) -> None:
    async def answer(_scope: Any, _body: bytes) -> Response:
        return Response(b"{}")

    app = App(load_models({"affine": {"1": affine(tmp_path / "m.onnx")}}), 10_000)
    app.keys = ApiKeys([ONE])
    app.routes |= {"/ping": Route("GET", answer, open="GET"), "/invocations": Route("POST", answer)}
    ask = asker(app)
    assert ask("/ping")[0] == 200
    assert ask("/invocations", {})[0] == 401
    assert ask("/invocations", {}, headers=[(b"authorization", b"Bearer " + ONE.encode())])[0] == 200


def test_a_platforms_probe_needs_no_key_where_predictions_have_the_same_address(tmp_path: Path) -> None:
    app = App(load_models({"affine": {"1": affine(tmp_path / "m.onnx")}}), 10_000)
    app.keys = ApiKeys([ONE])
    install(app, detect({"AIP_HEALTH_ROUTE": "/m", "AIP_PREDICT_ROUTE": "/m"}, ()))
    ask = asker(app)
    assert ask("/m")[0] == ask("/m", method="HEAD")[0] == 200
    assert ask("/m", {"instances": [[1, 2, 3]]})[0] == ask("/m", method="PUT")[0] == 401


def test_the_check_serves_other_transports() -> None:
    keys = ApiKeys([ONE, TWO])
    keys.check(f"Bearer {TWO}".encode())
    for value in (None, b"", b"Bearer", ONE.encode(), b"Bearer " + ONE.encode() + b"\xff"):
        with pytest.raises(RequestError) as caught:
            keys.check(value)
        assert caught.value.status == 401
        assert ONE not in caught.value.message


def test_no_key_is_told(models: Path, keys: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    settings = {"WORKBENCH_API_KEY_FILE": str(keys), "WORKBENCH_ACCESS_LOG": "1", "WORKBENCH_ACCESS_LOG_FILE": str(log)}
    server = Process(models, **settings)
    try:
        for key in (ONE, "a-wrong-key-of-somebody"):
            requests.post(server.url + INFER, json=BODY, headers=bearer(key), timeout=30)
        server.process.terminate()
        _, out, err = server.end()
    finally:
        server.kill()
    for said in (out, err, log.read_text()):
        assert ONE not in said
        assert "a-wrong-key" not in said
    assert '"status":401' in log.read_text()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no API key in"),
        (b"\n \n", "no API key in"),
        (f"{ONE}\nshort\n".encode(), "Line 2 of"),
        (b"one with spaces in it\n", "Line 1 of"),
        (b"\xff" * 20, "not UTF-8"),
        (None, "No such file"),
    ],
)
def test_a_file_of_keys_that_is_not_usable_is_named(tmp_path: Path, content: bytes | None, words: str) -> None:
    path = tmp_path / "keys"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ServerError, match=words) as caught:
        read_keys(path)
    assert "short" not in str(caught.value)


def test_a_server_without_usable_keys_does_not_start(models: Path, tmp_path: Path) -> None:
    code, _, err = Process(models, WORKBENCH_API_KEY_FILE=str(tmp_path / "none")).end()
    assert code == 2
    assert "WORKBENCH_API_KEY_FILE" in err
    assert err.count("\n") == 1
