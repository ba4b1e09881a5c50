"""Several workers behind one port: kept alive, stopped together, counted together."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from authority import Authority
from prometheus_client.parser import text_string_to_metric_families
from server_models import affine
from server_process import Process, running
from test_life import BODY, head, until, until_closed

from workbench.server.cpus import cpu_limit, default_threads
from workbench.server.errors import ServerError
from workbench.server.settings import from_environment

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A folder with a model."""
    affine(tmp_path / "models" / "affine" / "1" / "model.onnx")
    return tmp_path / "models"


@pytest.fixture
def server(models: Path) -> Iterator[Process]:
    """Two workers; none of them may outlive it."""
    server = Process(models, WORKBENCH_WORKERS="2")
    children = workers(server)
    yield server
    children += workers(server)
    server.kill()
    _, alive = psutil.wait_procs(children, timeout=30)
    for each in alive:
        each.kill()
    assert alive == []


def workers(server: Process) -> list[psutil.Process]:
    if server.process.poll() is not None:
        return []
    return psutil.Process(server.process.pid).children()


def infer(server: Process, times: int = 1) -> None:
    """Requests, each on a connection of its own."""
    for _ in range(times):
        request = urllib.request.Request(f"{server.url}/v2/models/affine/infer", BODY)
        with urllib.request.urlopen(request, timeout=30) as answer:
            assert answer.status == 200


def metrics(server: Process) -> dict[str, float]:
    with urllib.request.urlopen(f"{server.url}/metrics", timeout=30) as answer:
        families = text_string_to_metric_families(answer.read().decode())
        return {sample.name: sample.value for each in families for sample in each.samples}


def until_refused(server: Process) -> None:
    """Waits until nobody listens any more; the last one may have waited to be accepted."""
    with contextlib.suppress(ConnectionRefusedError, ConnectionResetError):
        while True:
            server.connect().close()


def test_the_ready_line_is_the_parents_once_all_are_ready(server: Process) -> None:
    assert server.ready["pid"] == server.process.pid
    assert len(workers(server)) == 2
    infer(server)
    server.process.send_signal(signal.SIGTERM)
    code, out, err = server.end()
    assert (code, out) == (0, "")
    assert err.count("loaded affine/1") == 2
    assert "2 workers with " in err.splitlines()[-1]


def test_metrics_are_those_of_all_workers(server: Process) -> None:
    infer(server, 20)
    for _ in range(6):  # whoever answers
        found = metrics(server)
        assert found["inference_request_success_total"] == 20
        assert found["inference_queue_seconds_count"] == 20
        assert found["inference_batch_rows_sum"] == 20
        assert found["inference_pending_requests"] == 0
    least = sum(each.memory_info().rss for each in workers(server)) / 2
    assert found["process_resident_memory_bytes"] > least


def test_a_worker_that_dies_is_replaced_and_its_numbers_stay(server: Process) -> None:
    infer(server, 20)
    told = 20
    assert metrics(server)["inference_request_success_total"] == told
    first, second = workers(server)
    for victim in (first, second):
        victim.kill()
        victim.wait(30)
        until_replaced(server, victim)
        infer(server, 5)
        told += 5
        assert metrics(server)["inference_request_success_total"] == told
    assert {each.pid for each in workers(server)}.isdisjoint({first.pid, second.pid})
    server.process.terminate()
    code, _, err = server.end()
    assert code == 0
    for victim in (first, second):
        assert f"worker {victim.pid} was killed by signal 9; another starts" in err


def until_replaced(server: Process, victim: psutil.Process) -> None:
    """Until two workers have told their numbers, and ``victim`` is none of them; requests are answered meanwhile."""
    while len([each for each in workers(server) if each.pid != victim.pid]) < 2:
        assert server.get("/v2/health/ready") == 200


@pytest.mark.parametrize("to_all", [False, True], ids=["to the parent", "to all, as Ctrl-C and systemd have it"])
def test_sigterm_finishes_what_is_in_flight_in_every_worker(server: Process, to_all: bool) -> None:
    connections = [server.connect() for _ in range(8)]
    for connection in connections:
        connection.sendall(head(len(BODY), "Expect: 100-continue\r\n"))
        assert until(connection, b"\r\n\r\n").startswith(b"HTTP/1.1 100")
    children = workers(server)
    server.process.send_signal(signal.SIGTERM)
    until_refused(server)
    for each in children if to_all else ():
        each.send_signal(signal.SIGTERM)
    for connection in connections:
        with connection:
            connection.sendall(BODY)
            assert until_closed(connection).startswith(b"HTTP/1.1 200")
    assert server.end()[0] == 0
    assert not any(each.is_running() for each in children)


def test_a_second_signal_to_the_parent_ends_what_is_in_flight_in_every_worker(models: Path) -> None:
    server = Process(models, WORKBENCH_WORKERS="2", WORKBENCH_GRACE="600")
    try:
        connections = [server.connect() for _ in range(8)]
        for connection in connections:
            connection.sendall(head(len(BODY), "Expect: 100-continue\r\n"))
            assert until(connection, b"\r\n\r\n").startswith(b"HTTP/1.1 100")
        server.process.send_signal(signal.SIGTERM)
        until_refused(server)
        server.process.send_signal(signal.SIGTERM)
        for connection in connections:
            with connection, contextlib.suppress(ConnectionResetError):
                assert until_closed(connection) == b""
        assert server.end()[0] == 0
    finally:
        server.kill()


def test_connections_are_spread_over_the_workers(server: Process) -> None:
    """A client that keeps its connections open would else have one worker do everything."""
    with contextlib.ExitStack() as opened:
        for _ in range(64):
            connection = opened.enter_context(server.connect())
            connection.sendall(head(len(BODY)) + BODY)
            until(connection, b"}]}")
        taken = [len([each for each in worker.net_connections() if each.raddr]) for worker in workers(server)]
    assert sum(taken) == 64
    assert min(taken) > 0


def test_a_worker_that_hangs_takes_no_new_connection(server: Process) -> None:
    for worker in workers(server):
        worker.suspend()
        infer(server, 5)
        worker.resume()


def test_workers_end_when_their_parent_is_killed(server: Process) -> None:
    children = workers(server)
    server.process.kill()
    _, alive = psutil.wait_procs(children, timeout=30)
    assert alive == []


def test_a_model_that_is_none_ends_all_with_2(tmp_path: Path) -> None:
    (tmp_path / "m" / "1").mkdir(parents=True)
    (tmp_path / "m" / "1" / "model.onnx").write_bytes(b"nonsense")
    code, _, err = Process(tmp_path, WORKBENCH_WORKERS="2").end()
    assert code == 2
    assert "cannot be loaded" in err
    assert "Traceback" not in err


def test_when_none_can_start_the_parent_gives_up_with_1() -> None:
    program = (
        "import sys\n"
        "from workbench.server.workers import Parent\n"
        "words = {'ready': lambda: print('ready'), 'stop': lambda: None, 'log': print}\n"
        "print(Parent(2, lambda place: 7, grace=1, **words).run(), flush=True)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    *log, status = done.stdout.splitlines()
    assert status == "1"
    assert log[-1].endswith("ended with status 7; 5 in a row could not start: giving up")
    assert log[0].endswith("ended with status 7; another starts")
    assert any(line.endswith("another starts in 0.5 s") for line in log)
    assert "ready" not in log


def test_changes_of_models_are_refused_with_several(models: Path) -> None:
    code, _, err = Process(models, WORKBENCH_WORKERS="2", WORKBENCH_REPOSITORY="1").end()
    assert code == 2
    assert "WORKBENCH_REPOSITORY=1 does not go with 2 workers" in err


def test_statistics_and_cache_are_those_of_all_workers(models: Path) -> None:
    with running(models, WORKBENCH_WORKERS="2", WORKBENCH_CACHE_BYTES="100000", WORKBENCH_ACCESS_LOG="1") as server:
        infer(server, 20)
        for _ in range(4):
            with urllib.request.urlopen(f"{server.url}/v2/models/affine/stats", timeout=30) as answer:
                (found,) = json.load(answer)["model_stats"]
            stats = found["inference_stats"]
            assert stats["success"]["count"] == 20
            assert stats["cache_hit"]["count"] + stats["cache_miss"]["count"] == 20
            # Each worker computes what it is asked for the first time.
            assert found["execution_count"] == stats["cache_miss"]["count"] == metrics(server)["cache_entries"] <= 2
            assert found["batch_stats"][0]["compute_infer"]["count"] == found["execution_count"]
        assert metrics(server)["access_log_lost_total"] == 0


def test_grpc_is_answered_by_all_workers_on_one_port(models: Path) -> None:
    from tritonclient import grpc

    with running(models, WORKBENCH_WORKERS="2", WORKBENCH_GRPC_PORT="0") as server:
        tensor = grpc.InferInput("x", [1, 3], "FP32").set_data_from_numpy(np.ones((1, 3), np.float32))
        for number in range(8):
            options = [("grpc.use_local_subchannel_pool", 1), ("of its own", number)]
            with grpc.InferenceServerClient(f"127.0.0.1:{server.ready['grpc_port']}", channel_args=options) as client:
                assert client.infer("affine", [tensor]).as_numpy("double").tolist() == [[2, 2, 2]]
        assert metrics(server)["inference_request_success_total"] == 8


def test_workers_share_the_cpus_out() -> None:
    cpus = cpu_limit()
    auto = from_environment({"WORKBENCH_WORKERS": "auto"})
    assert auto.workers == max(1, int(cpus))
    assert auto.threads == default_threads(auto.workers)
    assert from_environment({"WORKBENCH_WORKERS": "100"}).threads == max(1, -(-cpus // 100))
    assert from_environment({"WORKBENCH_WORKERS": "2", "WORKBENCH_THREADS": "3"}).threads == 3
    for text in ("0", "many", "-1"):
        with pytest.raises(ServerError, match="WORKBENCH_WORKERS"):
            from_environment({"WORKBENCH_WORKERS": text})


def test_the_command_takes_options_over_the_environment(tmp_path: Path) -> None:
    affine(tmp_path / "m.onnx")
    reader, writer = os.pipe()
    words = ["serve", "m.onnx", "--port", "0", "--workers", "2", "--threads", "1", "--batch-rows", "1"]
    process = subprocess.Popen(
        [sys.executable, "-m", "workbench", *words],
        cwd=tmp_path,
        env={**os.environ, "WORKBENCH_READY_FD": str(writer), "WORKBENCH_WORKERS": "7"},
        pass_fds=(writer,),
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(writer)
    with os.fdopen(reader) as lines:
        ready: dict[str, Any] = json.loads(lines.readline())
    assert len(psutil.Process(process.pid).children()) == 2
    with urllib.request.urlopen(f"http://127.0.0.1:{ready['port']}/v2/health/ready", timeout=30) as answer:
        assert answer.status == 200
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "joins no requests" in err
    assert "2 workers with 1 threads each are ready" in err


def test_who_does_not_finish_a_handshake_does_not_keep_a_worker_from_ending(models: Path, tmp_path: Path) -> None:
    certificate, key = Authority(tmp_path / "authority").certificate("localhost")
    tls = {"WORKBENCH_TLS_CERT": str(certificate), "WORKBENCH_TLS_KEY": str(key)}
    server = Process(models, WORKBENCH_WORKERS="2", WORKBENCH_GRACE="3600", **tls)
    try:
        with contextlib.ExitStack() as silent:
            for _ in range(4):
                silent.enter_context(server.connect())
            while sum(len([each for each in worker.net_connections() if each.raddr]) for worker in workers(server)) < 4:
                pass
            server.process.send_signal(signal.SIGTERM)
            assert server.end()[0] == 0
    finally:
        server.process.kill()
