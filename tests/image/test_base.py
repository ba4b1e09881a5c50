"""The base: locked Debian packages, fetched by content."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from image_helpers import CREATED, Emit, Image

from workbench.errors import MachineLacks, UsageError
from workbench.image import base, downloads
from workbench.image.apt import Apt

PARAMS = {"base": {"debian": "bookworm"}, "arch": "amd64"}


def one(**changed: Any) -> dict[str, Any]:
    return {"name": "netbase", "version": "6.4", "sha256": "0" * 64, "size": 1, **changed}


def pins_file(folder: Path, *packages: dict[str, Any]) -> Path:
    path = folder / "pins"
    path.write_text(json.dumps({"debian": "bookworm", "arch": "amd64", "packages": packages}))
    return path


def locked(image: Image, *names: str) -> list[dict[str, Any]]:
    packages = json.loads(image.files["base_pins"].read_bytes())["packages"]
    return [package for package in packages if package["name"] in names]


def not_asked() -> Apt:
    raise AssertionError("apt was asked")


def test_an_unsupported_base_names_what_is_supported() -> None:
    for wanted in ({"debian": "sid"}, {"image": "python:3.11"}):
        with pytest.raises(UsageError, match="debian: bookworm"):
            base.suite_of(wanted)


@pytest.mark.parametrize("changed", [{"sha256": "12"}, {"name": "-o=x"}, {"version": "6.4 -o=x"}, {"version": None}])
def test_pins_that_were_tampered_with_are_refused(tmp_path: Path, changed: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="--update base"):
        base.read_pins(pins_file(tmp_path, one(**changed)))


def test_pins_that_are_no_pins_are_refused(tmp_path: Path) -> None:
    (tmp_path / "pins").write_text("[]")
    with pytest.raises(UsageError, match="--update base"):
        base.read_pins(tmp_path / "pins")


@pytest.mark.integration
def test_pins_hold_content_and_nothing_of_the_mirror(image: Image) -> None:
    pins = json.loads(image.files["base_pins"].read_bytes())
    assert [package["name"] for package in pins["packages"]] == list(base.SUITES["bookworm"].packages)
    assert all(package.keys() == {"name", "version", "sha256", "size"} for package in pins["packages"])
    assert all(len(package["sha256"]) == 64 and package["size"] > 0 for package in pins["packages"])


@pytest.mark.integration
def test_a_layer_is_made_from_the_pins_and_the_cache_alone(
    image: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "_updated_apt", lambda *_: not_asked())
    pins = {"pins": pins_file(tmp_path, *locked(image, "netbase", "ca-certificates"))}
    made = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        made.append(base.layer(pins, {"created": CREATED}, Emit(tmp_path / name)))
    assert made[0].files["blob"].read_bytes() == made[1].files["blob"].read_bytes()
    assert made[0].values["omitted_bytes"] > 1 << 17


@pytest.mark.integration
def test_what_the_cache_lacks_is_found_where_this_mirror_has_it(
    image: Image, apt: Apt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    packages = locked(image, "netbase", "zlib1g", "tzdata")
    files = base.fetched(packages, tmp_path, lambda: apt)
    assert {sha256: downloads.sha256_of(path) for sha256, path in files.items()} == {sha: sha for sha in files}
    assert base.fetched(packages, tmp_path, not_asked) == files


@pytest.mark.integration
def test_the_base_has_no_shell_and_no_package_manager(image: Image) -> None:
    with tarfile.open(image.files["base_blob"]) as archive:
        names = set(archive.getnames())
    assert "usr/bin/python3.11" in names
    assert not names & {"usr/bin/sh", "usr/bin/dash", "usr/bin/dpkg", "usr/bin/apt-get", "usr/bin/perl"}


@pytest.mark.integration
def test_versions_that_debian_dropped_are_named_with_the_cure(apt: Apt, tmp_path: Path) -> None:
    gone = [one(version="0.1"), one(name="no-such-package-here")]
    with pytest.raises(MachineLacks) as caught:
        base.fetched(gone, tmp_path, lambda: apt)
    assert caught.value.message == "Debian no longer serves netbase=0.1, no-such-package-here=6.4."
    assert "workbench run RECIPE --update base" in caught.value.cure


@pytest.mark.integration
def test_another_content_under_the_locked_version_is_refused(image: Image, apt: Apt, tmp_path: Path) -> None:
    [package] = locked(image, "netbase")
    with pytest.raises(MachineLacks, match=r"netbase=.* with another content"):
        base.fetched([{**package, "sha256": "0" * 64}], tmp_path, lambda: apt)
    assert downloads.take("0" * 64) is None


@pytest.mark.integration
def test_a_package_there_is_not_is_named(apt: Apt, emit: Emit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "_updated_apt", lambda *_: apt)
    with pytest.raises(UsageError, match="no-such-package-here"):
        base.resolve({}, {**PARAMS, "packages": ["no-such-package-here"]}, emit)


@pytest.mark.integration
def test_an_added_package_says_what_it_misses(apt: Apt, emit: Emit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "_updated_apt", lambda *_: apt)
    pins = base.resolve({}, {**PARAMS, "packages": ["libsqlite3-0", "libreadline8"]}, emit).values["pins"]
    assert {"libsqlite3-0", "libreadline8"} <= {package["name"] for package in pins["packages"]}
    assert any("libreadline8 depends on" in note and "libtinfo6" in note for note in emit.notes)
    assert not any("libc6" in note for note in emit.notes)
