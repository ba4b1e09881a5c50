"""What tools that know nothing of workbench make of a pushed image."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sysconfig
import tarfile
from pathlib import Path
from typing import Any

import pytest
from image_helpers import LAYERS, Emit, Image

from workbench.registry.layout import Layout, digest_of
from workbench.registry.push import push

pytestmark = pytest.mark.integration


@pytest.fixture
def layout(image: Image, tmp_path: Path) -> Path:
    """The image, pushed to a layout under the tag ``digits``."""
    inputs = {"config": image.files["config"], "manifest": image.files["manifest"], **image.layers}
    push(inputs, {"to": f"oci:{tmp_path}/layout:digits", "name": "digits"}, Emit(tmp_path))
    return tmp_path / "layout"


def skopeo(*words: str) -> Any:
    done = subprocess.run(["skopeo", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout) if words[0] == "inspect" else None


def test_skopeo_reads_what_the_image_is(image: Image, layout: Path) -> None:
    found = skopeo("inspect", f"oci:{layout}:digits")
    assert found["Digest"] == digest_of(image.files["manifest"])
    assert (found["Os"], found["Architecture"]) == ("linux", "amd64")
    assert found["Layers"] == [digest_of(image.files[f"{layer}_blob"]) for layer in LAYERS]
    assert found["Labels"]["org.opencontainers.image.title"] == "digits"
    config = skopeo("inspect", "--config", f"oci:{layout}:digits")["config"]
    assert config["User"] == "65532:65532"
    assert config["Entrypoint"] == ["/usr/bin/python3.11", "-m", "workbench.server"]


def test_a_copy_by_skopeo_has_the_same_digest(image: Image, layout: Path, tmp_path: Path) -> None:
    skopeo("copy", "--quiet", f"oci:{layout}:digits", f"oci:{tmp_path}/copy:digits")
    assert Layout(tmp_path / "copy").tags()["digits"]["digest"] == digest_of(image.files["manifest"])


def test_what_skopeo_makes_for_docker_keeps_config_and_content(image: Image, layout: Path, tmp_path: Path) -> None:
    """An engine takes the config's digest for the image's id; the health check is in there."""
    skopeo("copy", "--quiet", f"oci:{layout}:digits", f"docker-archive:{tmp_path}/digits.tar:digits:1")
    with tarfile.open(tmp_path / "digits.tar") as archive:

        def read(name: str) -> bytes:
            file = archive.extractfile(name)
            assert file is not None
            return file.read()

        [entry] = json.loads(read("manifest.json"))
        config = read(entry["Config"])
        contents = [f"sha256:{hashlib.sha256(read(name)).hexdigest()}" for name in entry["Layers"]]
    assert config == image.files["config"].read_bytes()
    assert contents == json.loads(config)["rootfs"]["diff_ids"]
    assert json.loads(config)["config"]["Healthcheck"]["Test"][0] == "CMD"


def test_syft_lists_every_package_of_the_lock_and_no_other(image: Image, layout: Path) -> None:
    syft = Path(sysconfig.get_path("scripts")) / "syft"
    command = [str(syft), f"oci-dir:{layout}", "--output", "json", "--quiet"]
    env = {**os.environ, "SYFT_CHECK_FOR_APP_UPDATE": "false"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = {(one["type"], one["name"], one["version"]) for one in json.loads(done.stdout)["artifacts"]}
    locked = set()
    for name, pins, kind in (("base_pins", "packages", "deb"), ("wheels_pins", "wheels", "python")):
        entries = json.loads(image.files[name].read_bytes())[pins]
        locked |= {(kind, one["name"], one["version"]) for one in entries}
    assert found == locked
