"""A base from a registry: locked by digest, looked into before it is built on. The engine and the registry are real."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import services
from docker_helpers import PARAMS, built, client_of, inputs_of, tree_of
from image_helpers import Emit, Image

from workbench import eject
from workbench.engine.load import archive
from workbench.errors import MachineLacks, UsageError
from workbench.image import base, registry_base
from workbench.image import docker as builder
from workbench.image.layers import canonical, file_of, symlink, write_layer
from workbench.image.tree import differences, tree_entries

pytestmark = pytest.mark.integration


@pytest.fixture(autouse=True)
def _engine(engine: services.Service, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DOCKER_HOST", engine.address)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker-config"))


def pushed(engine: services.Service, registry: services.Service, name: str, config: bytes, layer: Path) -> str:
    """An image in the registry and no longer in the engine; its reference."""
    repository = f"{registry.address}/{name}"
    with client_of(engine.address) as client:
        client.images.load(b"".join(archive(config, [layer], f"{repository}:1")))
        for line in client.images.push(repository, tag="1", stream=True, decode=True):
            assert "error" not in line, line
        client.images.remove(f"{repository}:1")
    return f"{repository}:1"


def small(tmp_path: Path, entries: Iterator[Any] | list[Any], **config: Any) -> tuple[bytes, Path]:
    """Config and layer of an image with these files."""
    folder = tmp_path / "small"
    folder.mkdir()
    layer = write_layer("small", entries, folder, created=0)
    described = {
        "architecture": "amd64",
        "os": "linux",
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [layer.values["diff_id"]]},
    }
    return canonical(described), layer.files["blob"]


def resolved(reference: str, tmp_path: Path) -> Any:
    (tmp_path / "resolve").mkdir()
    params = {"base": {"image": reference}, "arch": "amd64", "python": "3.11"}
    return base.resolve({}, params, Emit(tmp_path / "resolve"))


def test_an_image_is_built_on_a_base_that_is_locked_by_digest(
    image: Image, engine: services.Service, registry: services.Service, tmp_path: Path
) -> None:
    assembled = builder.assembled(json.loads((image.folder / "base" / "descriptor").read_bytes()))
    reference = pushed(engine, registry, "team/python", assembled.config, image.files["base_blob"])
    outputs = resolved(reference, tmp_path)
    pins = outputs.values["pins"]
    assert pins["image"].startswith(f"{registry.address}/team/python@sha256:")
    assert (pins["interpreter"], pins["arch"]) == ("/usr/bin/python3.11", "amd64")
    assert json.loads(outputs.files["pins"].read_bytes()) == pins

    inputs = {name: path for name, path in inputs_of(image).items() if not name.startswith("base")}
    made, emit = built({**inputs, "base_pins": outputs.files["pins"]}, tmp_path / "scratch")
    assert any("1/" in text and f"FROM {pins['image']}"[:80] in text for text in emit.said)
    assert differences(tree_entries(image.blobs), tree_of(made)) == []
    config = json.loads(made.files["config"].read_bytes())
    assert config["config"]["Entrypoint"][0] == "/usr/bin/python3.11"
    with client_of(engine.address) as client:
        assert client.containers.list(all=True, filters={"ancestor": pins["config"]}) == []

    parts = {**inputs, "base_pins": outputs.files["pins"]}
    assert "base.tar" not in eject._into(tmp_path / "out", PARAMS, parts)
    assert f"FROM {pins['image']} AS sources\n" in (tmp_path / "out" / "Dockerfile").read_text()
    readme = (tmp_path / "out" / "README.md").read_text()
    assert f"The base is {pins['image']}, which the engine fetches." in readme
    assert "docker load" not in readme


def test_a_base_with_another_python_is_refused(
    engine: services.Service, registry: services.Service, tmp_path: Path
) -> None:
    entries = [file_of("usr/local/bin/python3.12", b"elf", 0o755), symlink("usr/local/bin/python3", "python3.12")]
    reference = pushed(engine, registry, "other", *small(tmp_path, entries))
    with pytest.raises(UsageError, match=r"has python3\.12, and the recipe asks for python3\.11") as caught:
        resolved(reference, tmp_path)
    assert "python:3.11-slim" in caught.value.cure


def test_a_base_without_glibc_or_with_instructions_of_its_own_is_refused(
    engine: services.Service, registry: services.Service, tmp_path: Path
) -> None:
    entries = [file_of("usr/local/bin/python3.11", b"elf", 0o755)]
    reference = pushed(engine, registry, "musl", *small(tmp_path, entries))
    with pytest.raises(UsageError, match="has no glibc"):
        resolved(reference, tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    reference = pushed(engine, registry, "triggers", *small(other, entries, OnBuild=["RUN evil"]))
    with pytest.raises(UsageError, match="ONBUILD"):
        resolved(reference, other)


def test_what_the_registry_has_not_is_said(registry: services.Service, tmp_path: Path) -> None:
    with pytest.raises(MachineLacks, match="no such image"):
        resolved(f"{registry.address}/team/none:1", tmp_path)
    with pytest.raises(UsageError, match="no reference"):
        registry_base.resolve("a b\nRUN x", "3.11", Emit(tmp_path))


@pytest.mark.parametrize(
    "change",
    [{"image": "python:3.11"}, {"interpreter": "/bin/sh"}, {"python": None}, {"arch": "x\ny"}, {"image": None}],
    ids=["a tag", "another program", "no Python", "no architecture", "no image"],
)
def test_pins_that_were_edited_are_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    pins = {
        "image": f"python@sha256:{'a' * 64}",
        "interpreter": "/usr/bin/python3.11",
        "python": "3.11",
        "arch": "amd64",
    }
    path = tmp_path / "pins"
    path.write_text(json.dumps(pins))
    assert registry_base.read_pins(path) == pins
    path.write_text(json.dumps({**pins, **change}))
    with pytest.raises(UsageError, match="lock's base"):
        registry_base.read_pins(path)
