"""An engine that stops in the middle, is full, or has a GPU to give: each an engine of the test's own."""

from __future__ import annotations

import os
import select
import signal
from pathlib import Path

import pytest
from digits_image import Image
from engine_helpers import WAIT, Loaded, Program
from own_engine import StartEngine

from workbench.engine import leftovers, load
from workbench.engine.connect import connect, engine_facts
from workbench.engine.container import EngineContainer
from workbench.errors import MachineLacks, StepFailed

pytestmark = pytest.mark.integration


def stop(folder: Path) -> None:
    """SIGTERM to the engine whose folder this is, as an administrator does; returns when it is gone."""
    engine = os.pidfd_open(int((folder / "pid").read_text()))
    signal.pidfd_send_signal(engine, signal.SIGTERM)
    assert select.select([engine], [], [], 60)[0]
    os.close(engine)


def test_an_engine_that_stops_while_the_image_runs_is_told_and_nothing_of_ours_remains(
    own_engine: StartEngine, program: Program, image: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = own_engine()
    monkeypatch.setenv("DOCKER_HOST", first.address)
    with connect() as client:
        found = load.ensure_loaded(client, program(WAIT), image.blobs, "test")
        container = EngineContainer(client, found)
        container.start()
        stop(first.folder)
        assert container._watched.wait(lambda one: one.lost, 30)
        assert not container.alive
        with pytest.raises(StepFailed, match="engine went away while the image ran") as caught:
            container.stop()
        assert "run the same command again" in caught.value.cure
        with pytest.raises(MachineLacks, match="No container engine answers"):
            leftovers.find(client)

    monkeypatch.setenv("DOCKER_HOST", own_engine().address)
    with connect() as client:
        assert client.api.containers(all=True) == []
        with EngineContainer(client, found) as container:
            assert container.alive


def test_a_full_disk_is_told_with_what_frees_it(
    own_engine: StartEngine, program: Program, image: Image, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # In a mount namespace of its own, so that the small disk goes with the engine.
    script = f'mount -t tmpfs -o size=64m none {tmp_path}/docker-data && exec "$@"'
    monkeypatch.setenv("DOCKER_HOST", own_engine("unshare", "-m", "sh", "-c", script, "sh").address)
    with connect() as client:
        with pytest.raises(MachineLacks, match=r"disk is full.*no space left on device") as caught:
            load.ensure_loaded(client, program(WAIT), image.blobs, "test")
        assert "docker system prune" in caught.value.cure
        assert load.loaded_images(client) == {}


def test_the_gpus_asked_for_are_what_the_toolkit_is_asked_for(
    own_engine: StartEngine,
    program: Program,
    image: Image,
    loaded: Loaded,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    # A stand-in for NVIDIA's hook, which needs a driver: it writes down what the engine gives it and succeeds.
    hook = tmp_path / "bin" / "nvidia-container-runtime-hook"
    hook.parent.mkdir()
    asked = tmp_path / "asked"
    hook.write_text(f"#!/bin/sh\ncat > {asked}\n")
    hook.chmod(0o755)
    path = f"{hook.parent}:{os.environ['PATH']}"
    monkeypatch.setenv("DOCKER_HOST", own_engine("env", f"PATH={path}").address)
    monkeypatch.setenv("PATH", path)
    with connect() as client:
        assert engine_facts(client).nvidia == "hook"
        found = loaded(client, program(WAIT))
        for gpus, visible in (("all", "all"), (2, "0,1"), (["GPU-1", "MIG-2"], "GPU-1,MIG-2")):
            with EngineContainer(client, found, gpus=gpus) as container:  # type: ignore[arg-type]
                environ = Path(f"/proc/{container.pid}/environ").read_bytes().split(b"\0")
                host = client.api.inspect_container(container.id)["HostConfig"]
            assert container.id == ""
            assert asked.read_text() != ""
            asked.unlink()
            assert f"NVIDIA_VISIBLE_DEVICES={visible}".encode() in environ
            assert host["DeviceRequests"][0]["Capabilities"] == [["gpu"]]
