"""Each request leaves a line in the access log, in the trace of its client, and nothing secret in it."""

from __future__ import annotations

import json
import re
import threading
import urllib.error
import urllib.request
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from server_models import affine
from server_process import Process, running

from workbench.server.background import Background
from workbench.server.exchange import Exchange
from workbench.server.settings import from_environment

BODY = json.dumps({"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}]}).encode()
TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"


@pytest.fixture
def models(tmp_path: Path) -> Path:
    affine(tmp_path / "models" / "affine" / "1" / "model.onnx")
    return tmp_path / "models"


def ask(server: Process, path: str, body: bytes | None = None, **headers: str) -> tuple[int, Any]:
    request = urllib.request.Request(server.url + path, body, headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.headers
    except urllib.error.HTTPError as error:
        return error.code, error.headers


def test_a_line_says_what_was_asked_and_what_became_of_it(models: Path, tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    before = datetime.now(UTC)
    with running(models, WORKBENCH_ACCESS_LOG="1", WORKBENCH_ACCESS_LOG_FILE=str(log)) as server:
        status, headers = ask(server, "/v2/models/affine/infer?secret=1", BODY, traceparent=f"00-{TRACE}-{PARENT}-01")
        assert status == 200
        ask(server, "/v2/models/affine/infer", b'{"secret": 1}', Authorization="secret")
        ask(server, "/v2/models/none", Cookie="secret")
    inferred, invalid, missing = map(json.loads, log.read_text().splitlines())
    at = datetime.fromisoformat(inferred.pop("time"))
    assert before - timedelta(seconds=1) < at < datetime.now(UTC)
    assert 0 < inferred.pop("compute_ms") < inferred["duration_ms"]
    assert 0 < inferred.pop("queue_ms") < inferred.pop("duration_ms")
    assert headers["traceparent"] == f"00-{TRACE}-{inferred['span_id']}-01"
    assert inferred == {
        "method": "POST",
        "path": "/v2/models/affine/infer",
        "status": 200,
        "request_bytes": len(BODY),
        "response_bytes": int(headers["content-length"]),
        "model": "affine",
        "version": "1",
        "batch_rows": 1,
        "trace_id": TRACE,
        "span_id": inferred["span_id"],
        "parent_id": PARENT,
    }
    assert (invalid["status"], invalid["model"], invalid["request_bytes"]) == (400, "affine", 13)
    assert (missing["method"], missing["path"], missing["status"]) == ("GET", "/v2/models/none", 404)
    assert "compute_ms" not in missing
    assert len({each["trace_id"] for each in (inferred, invalid, missing)}) == 3
    assert "secret" not in log.read_text()


def test_without_a_file_it_goes_to_stderr(models: Path) -> None:
    server = Process(models, WORKBENCH_ACCESS_LOG="1")
    try:
        ask(server, "/v2/health/live")
        server.process.terminate()
        code, out, err = server.end()
    finally:
        server.kill()
    assert (code, out) == (0, "")
    assert [json.loads(line)["path"] for line in err.splitlines() if line.startswith("{")] == ["/v2/health/live"]


def test_a_path_cannot_forge_a_line_nor_fill_the_disk(models: Path, tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    with running(models, WORKBENCH_ACCESS_LOG="1", WORKBENCH_ACCESS_LOG_FILE=str(log)) as server:
        ask(server, "/a%0A%7B%22status%22:200%7D%1b%ff")
        ask(server, "/" + "b" * 20_000)
    forged, long = map(json.loads, log.read_text().splitlines())
    assert forged["path"] == '/a\n{"status":200}\x1b\ufffd'
    assert forged["status"] == 404
    assert len(long["path"]) == 1024


def test_a_client_that_goes_away_is_told_of(models: Path, tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    with running(models, WORKBENCH_ACCESS_LOG="1", WORKBENCH_ACCESS_LOG_FILE=str(log)) as server:
        with server.connect() as connection:
            connection.sendall(b"POST /v2/models/affine/infer HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\n{")
        ask(server, "/v2/health/live")
    lines = {line["path"]: line for line in map(json.loads, log.read_text().splitlines())}
    assert lines["/v2/models/affine/infer"]["status"] == 499


def test_without_the_switch_there_is_no_line_and_no_header(models: Path) -> None:
    server = Process(models)
    try:
        _, headers = ask(server, "/v2/health/live", traceparent=f"00-{TRACE}-{PARENT}-01")
        server.process.terminate()
        _, _, err = server.end()
    finally:
        server.kill()
    assert "traceparent" not in headers
    assert "{" not in err


def test_a_file_that_cannot_be_written_keeps_the_server_from_starting(models: Path, tmp_path: Path) -> None:
    server = Process(models, WORKBENCH_ACCESS_LOG="1", WORKBENCH_ACCESS_LOG_FILE=str(tmp_path / "none" / "log"))
    code, _, err = server.end()
    assert code == 2
    assert "WORKBENCH_ACCESS_LOG_FILE" in err
    assert err.count("\n") == 1


def test_lost_lines_are_counted_in_the_metrics(models: Path, tmp_path: Path) -> None:
    log = str(tmp_path / "log")
    with (
        running(models, WORKBENCH_ACCESS_LOG="1", WORKBENCH_ACCESS_LOG_FILE=log) as server,
        urllib.request.urlopen(server.url + "/metrics", timeout=30) as answer,
    ):
        text = answer.read().decode()
    assert "access_log_lost_total 0.0" in text
    assert "trace_spans_lost_total" not in text


def test_what_does_not_fit_is_counted_and_not_waited_for() -> None:
    hold, held = threading.Event(), threading.Event()
    seen: list[int] = []

    def work(items: list[int]) -> None:
        held.set()
        assert hold.wait(30)
        seen.extend(items)

    background: Background[int] = Background("test", work, capacity=3, pause=0)
    background.put(0)
    assert held.wait(30)
    for number in range(1, 6):
        background.put(number)
    assert background.lost == 2
    hold.set()
    background.close(30)
    assert seen == [0, 1, 2, 3]


def test_work_that_fails_is_counted_seen_once_and_goes_on(capfd: pytest.CaptureFixture[str]) -> None:
    seen: list[int] = []
    tried, ended = threading.Event(), threading.Event()

    def work(items: list[int]) -> None:
        tried.set()
        if 3 not in items:
            raise OSError("no space left")
        seen.extend(items)

    background: Background[int] = Background("test", work, ended.set, pause=0)
    for number in (1, 2, 3):
        tried.clear()
        background.put(number)
        assert tried.wait(30)
    background.close(30)
    assert ended.is_set()
    assert (background.lost, seen) == (2, [3])
    assert capfd.readouterr().err.count("OSError: no space left") == 1


@pytest.mark.parametrize(
    "header",
    [
        f"00-{TRACE}-{PARENT}-01",
        f"00-{TRACE}-{PARENT}-00",
        f"01-{TRACE}-{PARENT}-01-what-later-versions-add",
    ],
)
def test_a_trace_is_gone_on_with(header: str) -> None:
    exchange = Exchange("GET", "/", header.encode())
    assert exchange.trace_id == int(TRACE, 16)
    assert exchange.parent_id == int(PARENT, 16)
    told = exchange.traceparent.decode()
    assert re.fullmatch(rf"00-{TRACE}-[0-9a-f]{{16}}-{header[53:55]}", told)
    assert PARENT not in told


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "nonsense",
        f"ff-{TRACE}-{PARENT}-01",
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{PARENT}-01",
        f"00-{TRACE}-{PARENT}-01-more",
        f"01-{TRACE}-{PARENT}-01more",
        f"00-{TRACE}-{PARENT}-1",
        f"00-{TRACE}-{PARENT}-01\n",
        f" 00-{TRACE}-{PARENT}-01",
    ],
)
def test_what_is_no_traceparent_begins_a_new_trace(header: str | None) -> None:
    exchange = Exchange("GET", "/", None if header is None else header.encode())
    assert exchange.parent_id == 0
    assert exchange.trace_id not in (0, int(TRACE, 16))
    assert Exchange("GET", "/", None).trace_id != exchange.trace_id


def test_settings_are_read() -> None:
    found = from_environment({"WORKBENCH_ACCESS_LOG": "1", "WORKBENCH_ACCESS_LOG_FILE": "/var/log/x"})
    assert (found.access_log, found.access_log_file) == (True, Path("/var/log/x"))
    assert not from_environment({}).access_log
