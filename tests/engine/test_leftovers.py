"""What a killed run leaves in the engine is found and removed by the next, and nothing else is."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import docker
import pytest
from digits_image import Image
from engine_helpers import WAIT, Loaded, Program
from own_engine import StartEngine

from workbench import doctor
from workbench.engine import leftovers
from workbench.engine.connect import connect
from workbench.engine.container import EngineContainer

_OWNER = """
import sys
from workbench.engine.connect import connect
from workbench.engine.container import EngineContainer
from workbench.engine.leftovers import labels
with connect() as client:
    container = EngineContainer(client, sys.argv[1], run="the-run")
    container.start()
    client.api.create_network("left-behind", labels=labels())
    print(container.id, flush=True)
    sys.stdin.read()
"""


def make_and_kill(image: str) -> str:
    """A process starts that image, and is killed; the container's id."""
    words = [sys.executable, "-c", _OWNER, image]
    with subprocess.Popen(words, stdin=-1, stdout=-1, stderr=subprocess.DEVNULL, text=True) as owner:
        assert owner.stdout is not None
        found = owner.stdout.readline().strip()
        owner.kill()
    return found


@pytest.fixture
def client(own_engine: StartEngine, monkeypatch: pytest.MonkeyPatch) -> Iterator[docker.DockerClient]:
    """A client of an engine in which no other test clears up."""
    monkeypatch.setenv("DOCKER_HOST", own_engine().address)
    with connect() as client:
        yield client


@pytest.mark.integration
def test_what_a_killed_owner_leaves_is_removed_by_the_next_start_and_by_doctor(
    client: docker.DockerClient, program: Program, image: Image, loaded: Loaded, tmp_path: Path
) -> None:
    found = loaded(client, program(WAIT))
    left = make_and_kill(found)
    somebodys = client.api.create_container(found, name="somebodys")["Id"]
    client.api.start(somebodys)
    assert client.api.inspect_container(left)["State"]["Running"]
    assert [(each.kind, each.id) for each in leftovers.find(client) if each.kind == "container"] == [
        ("container", left)
    ]
    assert [each.name for each in leftovers.find(client) if each.kind == "network"] == ["left-behind"]

    with EngineContainer(client, found, run="r1") as mine:
        labels = client.api.inspect_container(mine.id)["Config"]["Labels"]
        assert (labels[leftovers.RUN], labels[leftovers.OWNER]) == ("r1", leftovers.owner())
        assert {each["Id"] for each in client.api.containers(all=True)} == {mine.id, somebodys}
        assert leftovers.find(client) == []
    assert client.api.networks(names=["left-behind"]) == []

    again = make_and_kill(found)
    rows = {row["what"]: row for row in doctor.examine(tmp_path)}
    assert "removed container" in rows["leftovers of killed runs"]["found"]
    assert rows["images of workbench in the engine"]["found"].startswith("1 (")
    assert rows["container engine"]["found"].startswith("Docker ")
    assert again not in {each["Id"] for each in client.api.containers(all=True)}
    assert leftovers.sweep() == []
    assert client.api.inspect_container(somebodys)["State"]["Running"]
    client.api.remove_container(somebodys, force=True)


@pytest.mark.integration
def test_what_is_gone_already_does_not_keep_the_rest_from_being_removed(client: docker.DockerClient) -> None:
    left = client.api.create_network("left-behind")["Id"]
    gone = [leftovers.Leftover("container", "0" * 64, "x"), leftovers.Leftover("network", "e" * 64, "y")]
    leftovers.remove(client, [*gone, leftovers.Leftover("network", left, "left-behind")])
    assert client.api.networks(names=["left-behind"]) == []


@pytest.mark.integration
def test_what_others_are_removing_is_gone_when_the_removal_returns(
    client: docker.DockerClient, program: Program, loaded: Loaded
) -> None:
    found = loaded(client, program(WAIT))
    together = threading.Barrier(8)

    def remove(left: str) -> set[str]:
        with connect() as own:
            together.wait(60)
            leftovers.remove(own, [leftovers.Leftover("container", left, "x")])
            return {each["Id"] for each in own.api.containers(all=True)} & {left}

    with ThreadPoolExecutor(together.parties) as pool:
        for _ in range(5):
            left = client.api.create_container(found)["Id"]
            client.api.start(left)
            assert list(pool.map(remove, [left] * together.parties)) == [set()] * together.parties


def test_without_an_engine_there_is_nothing_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none")
    assert leftovers.sweep() == []


def test_this_process_is_not_gone_and_one_that_has_ended_is() -> None:
    assert not leftovers.is_gone(leftovers.owner())
    other = subprocess.Popen(["sleep", "60"])
    name = leftovers.owner(other.pid)
    assert not leftovers.is_gone(name)
    other.kill()
    os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)
    assert leftovers.is_gone(name)  # dead, if not yet buried
    other.wait()
    assert leftovers.is_gone(name)


def test_a_number_that_was_given_to_another_process_is_not_the_owner() -> None:
    *front, _start = leftovers.owner().split("/")
    assert leftovers.is_gone("/".join([*front, "1"]))


def test_an_owner_before_the_last_boot_is_gone() -> None:
    machine, _boot, *rest = leftovers.owner().split("/")
    assert leftovers.is_gone("/".join([machine, "another", *rest]))


def test_owners_elsewhere_are_not_judged() -> None:
    machine, boot, namespace, pid, _start = leftovers.owner().split("/")
    assert not leftovers.is_gone("/".join(["another", boot, namespace, pid, "1"]))
    assert not leftovers.is_gone("/".join([machine, boot, "another", pid, "1"]))


@pytest.mark.parametrize("name", ["", "x", "a/b/c/d", "a/b/c/1/", "/////", "a/b/c/x/1"])
def test_what_is_no_owner_is_not_judged(name: str) -> None:
    assert not leftovers.is_gone(name)


def test_another_users_process_that_may_not_be_seen_is_not_taken_for_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where ``/proc`` is mounted with hidepid, two users of one engine would end each other's containers."""
    name = leftovers.owner(1)
    seen = leftovers._text

    def refused(pid: int, signal: int) -> None:
        raise PermissionError

    monkeypatch.setattr(leftovers, "_text", lambda path: "" if path == Path("/proc/1/stat") else seen(path))
    monkeypatch.setattr(os, "kill", refused)
    assert not leftovers.is_gone(name)
