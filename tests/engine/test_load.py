"""Images in the engine: what is sent, what it is called, and whose names are left alone."""

from __future__ import annotations

import gzip
import hashlib
import json
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
import requests
from digits_image import Image
from engine_helpers import WAIT, Loaded, Program

from workbench.engine import load
from workbench.engine.container import EngineContainer
from workbench.errors import StepFailed, UsageError
from workbench.image.layers import file_of, write_layer


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many bytes were sent, load by load."""
    counts: list[int] = []
    stream = load._stream

    def counted(client: docker.DockerClient, pieces: Iterator[bytes]) -> None:
        counts.append(0)

        def counting() -> Iterator[bytes]:
            for piece in pieces:
                counts[-1] += len(piece)
                yield piece

        stream(client, counting())

    monkeypatch.setattr(load, "_stream", counted)
    return counts


def with_layer(folder: Path, config: Path, text: str) -> tuple[Path, Path]:
    """That image with one more layer on top, a file with this text: its config and the layer."""
    folder.mkdir()
    layer = write_layer("more", [file_of("more/text", text.encode())], folder, created=0)
    changed = json.loads(config.read_bytes())
    changed["rootfs"]["diff_ids"].append(layer.values["diff_id"])
    changed["history"] = []
    path = folder / "config"
    path.write_bytes(json.dumps(changed).encode())
    return path, layer.files["blob"]


@pytest.mark.integration
def test_its_id_is_the_digest_of_its_config_and_it_is_sent_once(
    any_client: docker.DockerClient, program: Program, image: Image, loaded: Loaded, sent: list[int]
) -> None:
    config = program(WAIT)
    found = loaded(any_client, config)
    assert found.removeprefix("sha256:") == hashlib.sha256(config.read_bytes()).hexdigest()
    assert load.tag_of("test", found) in load.loaded_images(any_client)
    assert loaded(any_client, config) == found
    assert len(sent) == 1


@pytest.mark.integration
def test_only_the_layers_that_are_not_there_are_sent(
    client: docker.DockerClient, program: Program, image: Image, loaded: Loaded, sent: list[int], tmp_path: Path
) -> None:
    base = program(WAIT)
    loaded(client, base)
    config, layer = with_layer(tmp_path / "more", base, "more")
    found = load.ensure_loaded(client, config, [*image.blobs, layer], "test")
    try:
        assert sent[-1] < 1 << 16
        assert len(client.images.get(found).attrs["RootFS"]["Layers"]) == len(image.blobs) + 1
    finally:
        load.remove_images(client, [load.tag_of("test", found)])


@pytest.mark.integration
def test_where_layers_have_gone_meanwhile_all_are_sent(
    client: docker.DockerClient,
    program: Program,
    image: Image,
    loaded: Loaded,
    sent: list[int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config, layer = with_layer(tmp_path / "more", program(WAIT), "rare")
    monkeypatch.setattr(load, "_there_already", lambda *_: len(image.blobs) + 1)
    found = load.ensure_loaded(client, config, [*image.blobs, layer], "test")
    load.remove_images(client, [load.tag_of("test", found)])
    assert sent[0] < 1 << 16 < sum(path.stat().st_size for path in image.blobs) < sent[1]


@pytest.mark.integration
def test_an_image_that_has_lost_its_name_gets_it_again(
    client: docker.DockerClient, program: Program, loaded: Loaded, sent: list[int]
) -> None:
    config = program(WAIT)
    found = loaded(client, config)
    client.api.tag(found, "somebody/else", "1")
    client.api.remove_image(load.tag_of("test", found))
    assert loaded(client, config) == found
    client.api.remove_image("somebody/else:1")
    assert len(sent) == 1


@pytest.mark.integration
@pytest.mark.parametrize("gone", ["version", "tag"])
def test_an_engine_that_goes_while_it_is_asked_is_told_as_such(
    client: docker.DockerClient, program: Program, loaded: Loaded, monkeypatch: pytest.MonkeyPatch, gone: str
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise requests.exceptions.ConnectionError("Connection refused")

    config = program(f"# without {gone}\n" + WAIT)
    if gone == "tag":
        found = loaded(client, config)
        client.api.tag(found, "somebody/else", gone)
        client.api.remove_image(load.tag_of("test", found))
    with monkeypatch.context() as broken:
        broken.setattr(client.api, gone, refused)
        with pytest.raises(StepFailed, match="container engine failed while"):
            loaded(client, config)
    if gone == "tag":
        client.api.remove_image(f"somebody/else:{gone}")


@pytest.mark.integration
def test_somebody_elses_image_by_our_name_is_left_alone(
    client: docker.DockerClient, program: Program, loaded: Loaded
) -> None:
    other, wanted = loaded(client, program(WAIT)), program("# another\n" + WAIT)
    repository, _, short = load.tag_of("test", hashlib.sha256(wanted.read_bytes()).hexdigest()).rpartition(":")
    client.api.tag(other, repository, short)
    try:
        with pytest.raises(StepFailed, match="another image by the name"):
            loaded(client, wanted)
        assert client.images.get(f"{repository}:{short}").id == other
    finally:
        client.api.remove_image(f"{repository}:{short}")


@pytest.mark.integration
def test_a_layer_that_is_not_the_configs_is_refused(
    client: docker.DockerClient, program: Program, image: Image, tmp_path: Path
) -> None:
    config, layer = with_layer(tmp_path / "more", program(WAIT), "one")
    layer.write_bytes(gzip.compress(gzip.decompress(layer.read_bytes()).replace(b"one", b"two")))
    with pytest.raises(StepFailed, match="invalid diffID"):
        load.ensure_loaded(client, config, [*image.blobs, layer], "test")
    assert load.tag_of("test", hashlib.sha256(config.read_bytes()).hexdigest()) not in load.loaded_images(client)


@pytest.mark.integration
def test_an_image_in_use_stays_and_others_go(client: docker.DockerClient, program: Program, loaded: Loaded) -> None:
    used, unused = loaded(client, program(WAIT)), loaded(client, program("# unused\n" + WAIT))
    tags = [load.tag_of("test", used), load.tag_of("test", unused)]
    with EngineContainer(client, used):
        assert load.remove_images(client, tags) == tags[1:]
    assert load.remove_images(client, tags) == tags[:1]
    assert not set(tags) & set(load.loaded_images(client))


def test_only_names_of_ours_are_removed() -> None:
    nobody: Any = None
    with pytest.raises(UsageError, match="no image of ours"):
        load.remove_images(nobody, ["debian:12"])


def test_a_layer_too_few_is_refused(tmp_path: Path, program: Program, image: Image) -> None:
    nobody: Any = None
    with pytest.raises(UsageError, match="names 5 layers, and there are 3"):
        load._send(nobody, program(WAIT).read_bytes(), image.blobs[:3], "test")


def test_sending_takes_no_memory_for_the_layers(tmp_path: Path) -> None:
    layer = tmp_path / "layer"
    with layer.open("wb") as file:
        file.truncate(64 << 20)
    tracemalloc.start()
    try:
        total = sum(len(piece) for piece in load.archive(b"{}", [layer], "test:1"))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert total > 64 << 20
    assert peak < 8 << 20


@pytest.mark.parametrize(
    ("name", "plain"), [("digits", "digits"), ("My Model_2", "my-model-2"), ("--", "image"), ("ä", "image")]
)
def test_any_name_becomes_one_that_an_engine_takes(name: str, plain: str) -> None:
    assert load.tag_of(name, "sha256:" + "ab" * 32) == f"workbench.local/{plain}:{'ab' * 6}"


def test_images_of_a_store_with_other_ids_are_known_by_layers_and_config() -> None:
    inside = {"Entrypoint": ["/x"], "Env": ["A=1"], "User": "1:1"}
    config = json.dumps({"config": inside, "rootfs": {"diff_ids": ["sha256:1"]}}).encode()
    found = {"Id": "sha256:0", "RootFS": {"Layers": ["sha256:1"]}, "Config": {**inside, "Cmd": None, "WorkingDir": ""}}
    assert load._is(found, config, "sha256:2")
    assert not load._is({**found, "RootFS": {"Layers": ["sha256:3"]}}, config, "sha256:2")
    assert not load._is({**found, "Config": {**inside, "User": "0"}}, config, "sha256:2")
