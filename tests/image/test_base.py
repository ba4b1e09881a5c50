"""The base: locked Debian packages, fetched by content."""

from __future__ import annotations

import json
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest
from image_helpers import CREATED, Emit, Image

from workbench.errors import MachineLacks, UsageError
from workbench.image import base


def pins_file(folder: Path, **changed: Any) -> Path:
    package = {
        "name": "netbase",
        "version": "6.4",
        "sha256": "0" * 64,
        "size": 1,
        "filename": "pool/main/n/netbase/netbase_6.4_all.deb",
        **changed,
    }
    path = folder / "pins"
    path.write_text(json.dumps({"debian": "bookworm", "arch": "amd64", "packages": [package]}))
    return path


def test_an_unsupported_base_names_what_is_supported() -> None:
    for wanted in ({"debian": "sid"}, {"image": "python:3.11"}):
        with pytest.raises(UsageError, match="debian: bookworm"):
            base.suite_of(wanted)


@pytest.mark.parametrize(
    "changed",
    [{"filename": "pool/../../etc/x.deb"}, {"sha256": "12"}, {"name": "-o=x"}, {"filename": "http://h.example/x.deb"}],
)
def test_pins_that_were_tampered_with_are_refused(tmp_path: Path, changed: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="--update base"):
        base.read_pins(pins_file(tmp_path, **changed))


def test_pins_that_are_no_pins_are_refused(tmp_path: Path) -> None:
    (tmp_path / "pins").write_text("[]")
    with pytest.raises(UsageError, match="--update base"):
        base.read_pins(tmp_path / "pins")


@pytest.mark.integration
def test_pins_hold_content_and_place_but_no_host(image: Image) -> None:
    text = image.files["base_pins"].read_text()
    pins = json.loads(text)
    assert "://" not in text
    assert [package["name"] for package in pins["packages"]] == list(base.SUITES["bookworm"].packages)
    assert all(len(package["sha256"]) == 64 and package["size"] > 0 for package in pins["packages"])
    assert all(package["filename"].startswith("pool/") for package in pins["packages"])


@pytest.mark.integration
def test_the_same_pins_give_the_same_layer(image: Image, emit: Emit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", os.environ.get("WORKBENCH_CACHE") or str(image.folder / "cache"))
    again = base.layer({"pins": image.files["base_pins"]}, {"created": CREATED}, emit)
    assert again.files["blob"].read_bytes() == image.files["base_blob"].read_bytes()
    assert again.values["omitted_bytes"] > 1 << 20


@pytest.mark.integration
def test_the_base_has_no_shell_and_no_package_manager(image: Image) -> None:
    with tarfile.open(image.files["base_blob"]) as archive:
        names = set(archive.getnames())
    assert "usr/bin/python3.11" in names
    assert not names & {"usr/bin/sh", "usr/bin/dash", "usr/bin/dpkg", "usr/bin/apt-get", "usr/bin/perl"}


@pytest.mark.integration
def test_a_version_that_debian_dropped_is_named_with_the_cure(
    emit: Emit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    gone = pins_file(tmp_path, version="0.1", filename="pool/main/n/netbase/netbase_0.1_all.deb")
    with pytest.raises(MachineLacks, match=r"Debian no longer serves netbase=0\.1") as caught:
        base.layer({"pins": gone}, {"created": CREATED}, emit)
    assert "--update base" in caught.value.cure


@pytest.mark.integration
def test_another_content_under_the_locked_name_is_refused(
    image: Image, emit: Emit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    pinned = next(p for p in json.loads(image.files["base_pins"].read_bytes())["packages"] if p["name"] == "netbase")
    with pytest.raises(MachineLacks, match="netbase"):
        base.layer({"pins": pins_file(tmp_path, **{**pinned, "sha256": "0" * 64})}, {"created": CREATED}, emit)
    assert not (tmp_path / "cache" / "downloads").exists()


@pytest.mark.integration
def test_a_package_there_is_not_is_named(emit: Emit) -> None:
    params = {"base": {"debian": "bookworm"}, "packages": ["no-such-package-here"], "arch": "amd64"}
    with pytest.raises(UsageError, match="no-such-package-here"):
        base.resolve({}, params, emit)


@pytest.mark.integration
def test_an_added_package_says_what_it_misses(emit: Emit) -> None:
    params = {"base": {"debian": "bookworm"}, "packages": ["libsqlite3-0", "libreadline8"], "arch": "amd64"}
    pins = base.resolve({}, params, emit).values["pins"]
    assert {"libsqlite3-0", "libreadline8"} <= {package["name"] for package in pins["packages"]}
    assert any("libreadline8 depends on" in note and "libtinfo6" in note for note in emit.notes)
    assert not any("libc6" in note for note in emit.notes)
