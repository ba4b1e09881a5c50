"""The image at work in a real engine: what it may do, how it starts and how it ends."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import docker
import numpy as np
import psutil
import pytest
from digits_image import Image
from engine_helpers import READY, WAIT, Loaded, Program, of_this_process

from workbench.assets import asset
from workbench.engine.container import OPEN_FILES, EngineContainer, _direct, device_request
from workbench.engine.watch import lines_of
from workbench.errors import MachineLacks, StepFailed, UsageError
from workbench.host import cgroup
from workbench.image.v2 import Client
from workbench.server.session import open_session

MEMORY = 256 << 20

HUNGRY = "kept = []\nwhile True: kept.append(bytearray(1 << 20))\n"


@pytest.fixture
def running(any_client: docker.DockerClient, image: Image, loaded: Loaded) -> Iterator[EngineContainer]:
    """The digits image in each engine, within limits."""
    found = loaded(any_client, image.files["config"])
    with EngineContainer(any_client, found, cpus=1, cpuset=[0], memory=MEMORY, pids=100) as container:
        yield container


@pytest.mark.integration
def test_it_answers_as_the_model_does_and_is_gone_after(running: EngineContainer) -> None:
    session = open_session(asset("digits/digits.onnx"), 1)
    with np.load(asset("digits/test.npz")) as data:
        request = {session.get_inputs()[0].name: data["x"][:1].astype(np.float32)}
    [expected] = session.run(None, request)
    with Client(running.port, "digits") as asked:
        [answered] = asked.infer(request).values()
    np.testing.assert_array_equal(answered, expected)
    assert running.alive
    assert running.start_s > 0
    assert running.url == f"http://127.0.0.1:{running.port}"
    process = psutil.Process(running.pid)
    assert running.stop() == 0
    assert not process.is_running()
    assert of_this_process(running.client) == []
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", running.port))


@pytest.mark.integration
def test_the_kernel_holds_it_to_its_limits(running: EngineContainer) -> None:
    host = running.client.api.inspect_container(running.id)["HostConfig"]
    assert (host["Memory"], host["MemorySwap"]) == (MEMORY, MEMORY)
    assert (host["NanoCpus"], host["CpusetCpus"], host["PidsLimit"]) == (10**9, "0", 100)
    assert running.memory_held
    seen = cgroup.read(running.pid)
    assert seen.own
    assert (seen.cpu_limit, seen.memory_limit) == (1.0, MEMORY)
    assert os.sched_getaffinity(running.pid) == {0}
    [files] = [line for line in Path(f"/proc/{running.pid}/limits").read_text().splitlines() if "open files" in line]
    assert files.split()[3:5] == [str(OPEN_FILES)] * 2


@pytest.mark.integration
def test_it_is_an_ordinary_user_without_capabilities_or_ways_to_them(running: EngineContainer) -> None:
    lines = Path(f"/proc/{running.pid}/status").read_text().splitlines()
    status = {name: value.split() for name, _, value in (line.partition(":") for line in lines)}
    assert set(status["Uid"]) == set(status["Gid"]) == {"65532"}
    assert {status[name][0] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert status["NoNewPrivs"] == ["1"]
    assert status["NSpid"][-1] == "1"  # the server itself, no init in front


@pytest.mark.integration
def test_it_can_write_nowhere_but_in_its_own_empty_tmp(running: EngineContainer) -> None:
    mounts = [line.split() for line in Path(f"/proc/{running.pid}/mountinfo").read_text().splitlines()]
    options = {fields[4]: fields[5].split(",") for fields in mounts}
    assert "ro" in options["/"]
    assert {"rw", "noexec", "nosuid", "nodev"} <= set(options["/tmp"])


@pytest.mark.integration
def test_its_port_is_open_on_loopback_only(running: EngineContainer) -> None:
    listening = [each for each in psutil.net_connections("inet") if each.status == psutil.CONN_LISTEN]
    assert {each.laddr.ip for each in listening if each.laddr.port == running.port} <= {"127.0.0.1"}
    bound = running.client.api.inspect_container(running.id)["NetworkSettings"]["Ports"]
    assert [(each["HostIp"], int(each["HostPort"])) for each in bound["8000/tcp"]] == [("127.0.0.1", running.port)]


@pytest.mark.integration
def test_of_two_ports_the_one_for_http_is_bound(client: docker.DockerClient, program: Program, loaded: Loaded) -> None:
    found = loaded(client, program(WAIT, ExposedPorts={"7000/tcp": {}, "8000/tcp": {}, "8001/tcp": {}}))
    with EngineContainer(client, found) as running:
        bound = client.api.inspect_container(running.id)["NetworkSettings"]["Ports"]
        assert [name for name, addresses in bound.items() if addresses] == ["8000/tcp"]
        assert bound["8000/tcp"][0]["HostPort"] == str(running.port)


@pytest.mark.integration
def test_it_is_reached_past_the_engines_proxy_too(running: EngineContainer) -> None:
    assert running.direct is not None
    with socket.create_connection(running.direct, timeout=10):
        inside = Path(f"/proc/{running.pid}/net/tcp").read_text()
    assert f":{running.direct[1]:04X}" in inside
    assert running.direct[0] != "127.0.0.1"


def test_a_network_of_another_machine_is_not_reached_into() -> None:
    far = {"IPAddress": "192.0.2.7", "Gateway": "192.0.2.1"}
    near = {"IPAddress": "127.0.0.2", "Gateway": "127.0.0.1"}
    assert _direct(far, 8000) is None
    assert _direct({"IPAddress": "", "Networks": {"x": near}}, 8000) == ("127.0.0.2", 8000)
    assert _direct({}, 8000) is None


@pytest.mark.integration
def test_more_memory_than_its_limit_is_told_with_the_limit(
    any_client: docker.DockerClient, program: Program, loaded: Loaded
) -> None:
    found = loaded(any_client, program(HUNGRY))
    with pytest.raises(StepFailed, match=r"killed: .*needs more than its limit of 32\.0 MiB of memory") as caught:
        EngineContainer(any_client, found, memory=32 << 20).__enter__()
    assert "image.limits.memory" in caught.value.cure
    assert of_this_process(any_client) == []


@pytest.mark.integration
def test_running_out_of_memory_in_use_is_told_instead_of_what_follows_from_it(
    client: docker.DockerClient, program: Program, loaded: Loaded
) -> None:
    server = "import socket\ns = socket.create_server(('0.0.0.0', 8000))\n" + READY + "s.accept()\n" + HUNGRY
    found = loaded(client, program(server))
    with (
        pytest.raises(StepFailed, match="needs more than its limit"),
        EngineContainer(client, found, memory=32 << 20) as container,
        socket.create_connection(("127.0.0.1", container.port)) as asked,
    ):
        raise OSError(f"no answer: {asked.recv(1)!r}")
    assert of_this_process(client) == []


@pytest.mark.integration
def test_a_failure_of_the_user_of_a_sound_image_stays_what_it_is(
    client: docker.DockerClient, program: Program, loaded: Loaded
) -> None:
    found = loaded(client, program(WAIT))
    with pytest.raises(ZeroDivisionError), EngineContainer(client, found):
        raise ZeroDivisionError
    assert of_this_process(client) == []


@pytest.mark.integration
def test_its_last_words_are_told_when_it_ends_before_it_is_ready(
    any_client: docker.DockerClient, image: Image, loaded: Loaded
) -> None:
    found = loaded(any_client, image.files["config"])
    with pytest.raises(StepFailed, match=r"before it took requests \(exit status 2\).*no model below /nowhere"):
        EngineContainer(any_client, found, env={"WORKBENCH_MODELS": "/nowhere"}).__enter__()
    assert of_this_process(any_client) == []


@pytest.mark.integration
def test_an_end_in_the_middle_is_a_failure_and_leaves_nothing(
    client: docker.DockerClient, program: Program, loaded: Loaded
) -> None:
    container = EngineContainer(client, loaded(client, program(WAIT)))
    container.start()
    os.kill(container.pid, signal.SIGKILL)
    assert container._watched.wait(lambda one: one.exit_code is not None, 30)
    assert not container.alive
    with pytest.raises(StepFailed, match=r"ended while it was in use \(exit status 137\)"):
        container.stop()
    assert of_this_process(client) == []
    assert container.stop() == 0


@pytest.mark.integration
def test_an_end_by_somebody_else_is_told_as_such(client: docker.DockerClient, program: Program, loaded: Loaded) -> None:
    with (
        pytest.raises(StepFailed, match="Somebody else ended the image while it was in use"),
        EngineContainer(client, loaded(client, program(WAIT))) as container,
    ):
        client.api.stop(container.id)
    assert of_this_process(client) == []


@pytest.mark.integration
def test_one_that_does_not_get_ready_in_time_is_ended(
    client: docker.DockerClient, program: Program, loaded: Loaded
) -> None:
    found = loaded(client, program("import signal\nprint('thinking', flush=True)\nsignal.pause()\n"))
    with pytest.raises(StepFailed, match="did not get ready within 0 s"):
        EngineContainer(client, found, ready_within_s=0.2).__enter__()
    assert of_this_process(client) == []


@pytest.mark.integration
def test_one_that_does_not_end_when_asked_is_killed(
    client: docker.DockerClient, program: Program, loaded: Loaded
) -> None:
    # The first process of a container gets only the signals that it has asked for.
    found = loaded(client, program("import signal\n" + READY + "while True: signal.pause()\n"))
    container = EngineContainer(client, found, stop_within_s=0.2)
    container.start()
    process = psutil.Process(container.pid)
    container.stop()
    assert psutil.wait_procs([process], timeout=30)[1] == []
    assert of_this_process(client) == []


@pytest.mark.integration
def test_a_server_that_says_nothing_is_ready_when_its_health_check_says_so(
    client: docker.DockerClient, program: Program, loaded: Loaded
) -> None:
    check = {"Test": ["CMD", "/usr/bin/python3.11", "-S", "-c", ""], "Interval": 100_000_000}
    found = loaded(client, program(WAIT.replace("workbench.server: serving", "quietly"), Healthcheck=check))
    with EngineContainer(client, found) as container:
        assert container.alive


@pytest.mark.integration
def test_events_that_break_off_are_taken_up_again(
    client: docker.DockerClient, program: Program, loaded: Loaded
) -> None:
    with EngineContainer(client, loaded(client, program(WAIT))) as container:
        container._watched._events.close()
        client.api.kill(container.id, "SIGKILL")
        assert container._watched.wait(lambda one: one.exit_code is not None, 30)
        assert not container._watched.lost
        assert container._watched.exit_code == 137
        container.kill()


@pytest.mark.integration
def test_a_port_that_is_taken_is_told_and_leaves_nothing(
    client: docker.DockerClient, program: Program, loaded: Loaded
) -> None:
    found = loaded(client, program(WAIT))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(StepFailed, match=f"port is taken.*{port}"):
            EngineContainer(client, found, port=port).__enter__()
    assert of_this_process(client) == []
    with EngineContainer(client, found, port=port) as container:
        assert container.port == port


@pytest.mark.integration
def test_a_gpu_where_there_is_no_driver_is_refused_with_the_remedy(
    client: docker.DockerClient, program: Program, loaded: Loaded
) -> None:
    found = loaded(client, program(WAIT))
    with pytest.raises(MachineLacks, match="could not select device driver") as caught:
        EngineContainer(client, found, gpus="all").__enter__()
    assert "nvidia-ctk runtime configure" in caught.value.cure
    assert of_this_process(client) == []


@pytest.mark.integration
def test_more_cpus_than_the_engine_has_are_as_many_as_it_has(
    client: docker.DockerClient, program: Program, loaded: Loaded
) -> None:
    with EngineContainer(client, loaded(client, program(WAIT)), cpus=1000) as container:
        assert cgroup.read(container.pid).cpu_limit == client.info()["NCPU"]


@pytest.mark.integration
def test_an_image_without_one_port_is_refused(client: docker.DockerClient, program: Program, loaded: Loaded) -> None:
    found = loaded(client, program(WAIT, ExposedPorts={"1/tcp": {}, "2/tcp": {}}))
    with pytest.raises(UsageError, match="not one port but 2"):
        EngineContainer(client, found).__enter__()


def test_gpus_are_asked_for_by_count_or_by_name() -> None:
    assert device_request("all")["Count"] == -1
    assert device_request(2)["Count"] == 2
    named = device_request(["GPU-1", "MIG-2"])
    assert (named["DeviceIDs"], named["Capabilities"], named["Driver"]) == (["GPU-1", "MIG-2"], [["gpu"]], "nvidia")


@pytest.mark.parametrize("gpus", [0, -2, [], "GPU-1", ["a,b"], [""]])
def test_gpus_that_are_none_are_refused(gpus: object) -> None:
    with pytest.raises(UsageError):
        device_request(gpus)  # type: ignore[arg-type]


def test_a_log_in_pieces_is_read_as_lines() -> None:
    assert list(lines_of(iter([b"one\ntw", b"o\n", b"thr", b"ee"]))) == ["one", "two", "three"]


def test_a_line_without_an_end_does_not_grow_for_ever() -> None:
    lines = lines_of(b"x" * 4096 for _ in range(10_000))
    assert len(next(lines)) < 2**18
