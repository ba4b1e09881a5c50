"""The parts list says what is in the image: syft, which nobody here wrote, lists the same."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

import pytest
import services
from docker_helpers import built, inputs_of
from image_helpers import Emit, Image
from packageurl import PackageURL
from small_image import SIGNATURE, STATUS, layer, make

from workbench.assets import asset
from workbench.errors import StepFailed
from workbench.image.layers import canonical
from workbench.provenance import sbom
from workbench.registry.push import push


@pytest.fixture
def small(tmp_path: Path) -> dict[str, Path]:
    """The inputs of the step for an image of one Debian package and one wheel."""
    return make(tmp_path / "inputs")


def made(inputs: dict[str, Path], emit: Emit) -> dict[str, Any]:
    outputs = sbom.make(inputs, {"name": "digits"}, emit)
    found: dict[str, Any] = json.loads(outputs.files["sbom"].read_bytes())
    return found


def purls(document: dict[str, Any]) -> set[str]:
    return {component["purl"] for component in document["components"] if "purl" in component}


def valid(document: dict[str, Any]) -> None:
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(document)) is None


def test_it_lists_packages_server_and_model_with_digests(small: dict[str, Path], emit: Emit) -> None:
    document = made(small, emit)
    valid(document)
    by_ref = {component["bom-ref"]: component for component in document["components"]}
    assert purls(document) == {
        "pkg:deb/debian/libc6@2.36-9?arch=amd64&distro=debian-12&upstream=glibc",
        "pkg:pypi/tool@2.0",
    }
    assert by_ref["pkg:pypi/tool@2.0"]["hashes"] == [{"alg": "SHA-256", "content": "b" * 64}]
    assert by_ref["pkg:pypi/tool@2.0"]["licenses"] == [{"license": {"id": "MIT"}}]
    assert by_ref["server"]["version"] == "0.1.0"
    model = by_ref["model"]
    assert model["type"] == "machine-learning-model"
    assert model["hashes"][0]["content"] == hashlib.sha256(b"a model").hexdigest()
    assert model["modelCard"]["modelParameters"]["inputs"] == [{"format": "x: float32[batch, 64]"}]
    config = hashlib.sha256(small["config"].read_bytes()).hexdigest()
    assert document["metadata"]["component"]["version"] == f"sha256:{config}"
    assert document["compositions"] == [{"aggregate": "complete", "assemblies": ["image"]}]


def test_it_is_the_same_bytes_every_time_and_carries_no_time(small: dict[str, Path], tmp_path: Path) -> None:
    first, again, other = (Emit(tmp_path / name) for name in ("1", "2", "3"))
    for one in (first, again, other):
        one.scratch.mkdir()
    one = sbom.make(small, {"name": "digits"}, first).files["sbom"].read_bytes()
    assert sbom.make(small, {"name": "digits"}, again).files["sbom"].read_bytes() == one
    assert b"timestamp" not in one
    small["model"].write_bytes(b"another model")
    assert made(small, other)["serialNumber"] != json.loads(one)["serialNumber"]


def test_without_the_layers_the_pins_are_listed(small: dict[str, Path], emit: Emit) -> None:
    pins = {name: path for name, path in small.items() if not name.startswith("layer-")}
    document = made(pins, emit)
    valid(document)
    assert purls(document) == {"pkg:deb/debian/libc6@2.36-9?arch=amd64&distro=debian-12", "pkg:pypi/tool@2.0"}


def test_a_pin_that_is_not_in_the_layers_is_refused_by_name(small: dict[str, Path], emit: Emit) -> None:
    layer(small["layer-00"], {"var/lib/dpkg/status": STATUS.replace("2.36-9", "2.37-1")})
    with pytest.raises(StepFailed, match=r"pins the Debian package libc6 2\.36-9, and the image has libc6 2\.37-1"):
        made(small, emit)


def test_what_a_higher_layer_replaces_or_removes_is_not_listed(small: dict[str, Path], emit: Emit) -> None:
    folder = small["config"].parent
    small["base_pins"].write_bytes(canonical({"image": "python:3.11-slim", "digest": f"sha256:{'c' * 64}"}))
    lower = {
        "usr/lib/old-1.dist-info/METADATA": "Name: old\nVersion: 1\n",
        "a/x-1.dist-info/METADATA": "Name: x\nVersion: 1\n",
    }
    small["layer-00a"] = layer(folder / "layer-00a", lower)
    small["layer-02"] = layer(folder / "layer-02", {"usr/lib/.wh.old-1.dist-info": "", "a/.wh..wh..opq": ""})
    document = made(small, emit)
    valid(document)
    assert not [purl for purl in purls(document) if "old" in purl or "/x@" in purl]
    base = next(component for component in document["components"] if component["bom-ref"] == "base")
    assert (base["name"], base["hashes"][0]["content"]) == ("python:3.11-slim", "c" * 64)


def test_a_base_without_a_list_of_packages_makes_the_sbom_incomplete(small: dict[str, Path], emit: Emit) -> None:
    small["base_pins"].write_bytes(canonical({"image": "example", "digest": f"sha256:{'c' * 64}"}))
    layer(small["layer-00"], {"etc/hostname": "x"})
    assert made(small, emit)["compositions"][0]["aggregate"] == "incomplete"
    assert "incomplete" in emit.notes[0]


def test_a_layer_that_is_no_tar_is_told(small: dict[str, Path], emit: Emit) -> None:
    small["layer-00"].write_bytes(b"\x1f\x8bnot a tar")
    with pytest.raises(StepFailed, match="is damaged, or neither gzip nor plain tar"):
        made(small, emit)


@pytest.mark.integration
def test_syft_lists_the_same_packages(image: Image, emit: Emit, tmp_path: Path) -> None:
    """Names, versions, architectures, distribution and source packages, as purls."""
    small = tmp_path / "signature"
    small.write_bytes(canonical(SIGNATURE))
    files = {name: image.files[name] for name in ("base_pins", "wheels_pins", "config")}
    document = made({**files, **image.layers, "model": asset("digits/digits.onnx"), "signature": small}, emit)
    valid(document)
    parts = {name: image.files[name] for name in ("config", "manifest")} | image.layers
    push(parts, {"to": f"oci:{tmp_path}/layout:digits", "name": "digits"}, Emit(tmp_path))
    syft = Path(sysconfig.get_path("scripts")) / "syft"
    done = subprocess.run(
        [str(syft), f"oci-dir:{tmp_path}/layout", "--output", "json", "--quiet"],
        env={**os.environ, "SYFT_CHECK_FOR_APP_UPDATE": "false"},
        capture_output=True,
        text=True,
        check=True,
    )
    theirs = {PackageURL.from_string(one["purl"]) for one in json.loads(done.stdout)["artifacts"]}
    assert {PackageURL.from_string(purl) for purl in purls(document)} == theirs
    licensed = [component for component in document["components"] if component.get("licenses")]
    assert {"numpy", "onnxruntime", "uvloop"} <= {component["name"] for component in licensed}


@pytest.mark.integration
def test_an_image_that_an_engine_built_has_the_same_parts(
    image: Image, engine: services.Service, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DOCKER_HOST", engine.address)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker-config"))
    by_engine = built(inputs_of(image), tmp_path / "scratch")[0].files
    (tmp_path / "signature").write_bytes(canonical(SIGNATURE))
    common = {name: image.files[name] for name in ("base_pins", "wheels_pins")}
    common |= {"signature": tmp_path / "signature", "model": asset("digits/digits.onnx")}
    listed = []
    for name, files in (("oci", {**image.layers, "config": image.files["config"]}), ("docker", by_engine)):
        (tmp_path / name).mkdir()
        listed.append(purls(made({**common, **files}, Emit(tmp_path / name))))
    assert listed[0] == listed[1]
    assert len(listed[0]) > 20
