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

import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families
from server_models import affine
from test_life import BODY, Process, head, until, until_closed

from workbench.server.cpus import cpu_limit, default_threads
from workbench.server.errors import ServerError
from workbench.server.settings import from_environment

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Process]:
    """Two workers; whatever is left of them at the end is killed."""
    affine(tmp_path / "affine" / "1" / "model.onnx")
    running = Process(tmp_path, WORKBENCH_WORKERS="2")
    children = workers(running)
    yield running
    children += workers(running)
    running.process.kill()
    running.process.communicate()
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
        request = urllib.request.Request(f"http://127.0.0.1:{server.ready['port']}/v2/models/affine/infer", BODY)
        with urllib.request.urlopen(request, timeout=30) as answer:
            assert answer.status == 200


def metrics(server: Process) -> dict[str, float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{server.ready['port']}/metrics", timeout=30) as answer:
        families = text_string_to_metric_families(answer.read().decode())
        return {sample.name: sample.value for each in families for sample in each.samples}


def until_refused(server: Process) -> None:
    """Waits until nobody listens any more."""
    with contextlib.suppress(ConnectionRefusedError):
        while True:
            server.connect().close()


def said(server: Process, words: str) -> str:
    """Waits for a line of the log."""
    assert server.process.stderr is not None
    for line in server.process.stderr:
        if words in line:
            return line
    raise AssertionError(f"never said: {words}")


def test_the_ready_line_is_the_parents_once_all_are_ready(server: Process) -> None:
    assert server.ready["pid"] == server.process.pid
    assert len(workers(server)) == 2
    infer(server)
    server.process.send_signal(signal.SIGTERM)
    code, out, err = server.end()
    assert (code, out) == (0, "")
    assert err.count("loaded affine/1") == 2
    assert "2 workers, " in err.splitlines()[-1]


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
        assert f"worker {victim.pid} was killed by signal 9; another starts" in said(server, "another starts")
        said(server, "serving affine/1")
        infer(server, 5)
        told += 5
        assert metrics(server)["inference_request_success_total"] == told
    assert {each.pid for each in workers(server)}.isdisjoint({first.pid, second.pid})


def test_sigterm_finishes_what_is_in_flight_in_every_worker(server: Process) -> None:
    connections = [server.connect() for _ in range(8)]
    for connection in connections:
        connection.sendall(head(len(BODY), "Expect: 100-continue\r\n"))
        assert until(connection, b"\r\n\r\n").startswith(b"HTTP/1.1 100")
    children = workers(server)
    server.process.send_signal(signal.SIGTERM)
    until_refused(server)
    for connection in connections:
        with connection:
            connection.sendall(BODY)
            assert until_closed(connection).startswith(b"HTTP/1.1 200")
    assert server.end()[0] == 0
    assert not any(each.is_running() for each in children)


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


def test_models_do_not_change_under_several_workers(tmp_path: Path) -> None:
    affine(tmp_path / "affine" / "1" / "model.onnx")
    code, _, err = Process(tmp_path, WORKBENCH_WORKERS="2", WORKBENCH_REPOSITORY="1").end()
    assert code == 2
    assert "WORKBENCH_WORKERS=1" in err


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
    assert "2 workers, 1 threads each, are ready" in err
