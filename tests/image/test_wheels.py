"""Wheels: resolved for the image, locked by content, from whatever index the machine has."""

from __future__ import annotations

import hashlib
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from image_helpers import CREATED, Emit, Image, named

from workbench.errors import MachineLacks, UsageError
from workbench.image import wheels

PARAMS = {"python": "3.11", "platform": "x86_64-manylinux_2_28"}


@pytest.fixture
def links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of packages that pip is told to use, and no index."""
    folder = tmp_path / "links"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.delenv("PIP_EXTRA_INDEX_URL", raising=False)
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    return folder


def resolved(emit: Emit, *requirements: str) -> dict[str, Any]:
    pins: dict[str, Any] = wheels.resolve({}, {**PARAMS, "requirements": list(requirements)}, emit).values["pins"]
    return pins


def test_the_wheel_that_suits_the_target_best_is_chosen(links: Path, emit: Emit) -> None:
    wanted = named(links, "a-1.0-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl")
    for other in ("cp312-cp312-manylinux_2_17_x86_64", "cp311-cp311-manylinux_2_17_aarch64", "py3-none-any"):
        named(links, f"a-1.0-{other}.whl")
    assert resolved(emit, "a")["wheels"] == [
        {
            "name": "a",
            "version": "1.0",
            "filename": wanted.name,
            "sha256": hashlib.sha256(wanted.read_bytes()).hexdigest(),
            "size": wanted.stat().st_size,
        }
    ]


def test_what_a_wheel_requires_comes_along_by_the_targets_markers(links: Path, emit: Emit) -> None:
    named(links, "a-1.0-py3-none-any.whl", 'b; python_version < "3.12" and platform_machine == "x86_64"')
    named(links, "b-1.0-py3-none-any.whl", 'c; sys_platform == "win32"')
    assert [one["name"] for one in resolved(emit, "a")["wheels"]] == ["a", "b"]


def test_what_only_tools_need_is_left_out_unless_asked_for(links: Path, tmp_path: Path) -> None:
    named(links, "a-1.0-py3-none-any.whl", "sympy")
    named(links, "sympy-1.0-py3-none-any.whl")
    for folder, asked, expected in (("one", ["a"], ["a"]), ("two", ["a", "sympy"], ["a", "sympy"])):
        (tmp_path / folder).mkdir()
        assert [one["name"] for one in resolved(Emit(tmp_path / folder), *asked)["wheels"]] == expected


def test_a_package_that_is_only_source_is_refused_by_name(links: Path, emit: Emit) -> None:
    named(links, "a-1.0-py3-none-any.whl", "onlysource")
    with tarfile.open(links / "onlysource-1.0.tar.gz", "w:gz"):
        pass
    with pytest.raises(UsageError, match="onlysource") as caught:
        resolved(emit, "a")
    assert "source packages are not built" in caught.value.message


def test_a_package_for_another_platform_only_is_refused_by_name(links: Path, emit: Emit) -> None:
    named(links, "macish-1.0-cp311-cp311-macosx_11_0_arm64.whl")
    with pytest.raises(UsageError, match="macish"):
        resolved(emit, "macish")


def test_an_unknown_platform_is_refused() -> None:
    with pytest.raises(UsageError, match="x86_64-manylinux"):
        wheels.target_tags("3.11", "sparc-solaris")


def test_newer_glibc_comes_first_and_other_systems_not_at_all() -> None:
    tags = wheels.target_tags("3.11", "x86_64-manylinux_2_28")
    order = [f"cp311-cp311-{name}_x86_64" for name in ("manylinux_2_28", "manylinux_2_17", "manylinux2014")]
    assert [tag for tag in tags if tag in order] == order
    assert "cp311-abi3-manylinux_2_28_x86_64" in tags
    assert "py3-none-any" in tags
    assert not any("2_31" in tag or "aarch64" in tag or "cp312" in tag for tag in tags)


def test_a_layer_is_made_from_the_pins_and_the_cache_alone(links: Path, emit: Emit, tmp_path: Path) -> None:
    named(links, "a-1.0-py3-none-any.whl")
    (tmp_path / "pins").write_text(json.dumps(resolved(emit, "a")))
    for path in links.iterdir():
        path.unlink()
    outputs = wheels.layer({"pins": tmp_path / "pins"}, {"created": CREATED}, emit)
    with tarfile.open(outputs.files["blob"]) as archive:
        assert "opt/wheels/a/__init__.py" in archive.getnames()
        assert "opt/wheels/a-1.0.dist-info/METADATA" in archive.getnames()


def test_a_wheel_that_is_another_by_now_is_refused(links: Path, emit: Emit, tmp_path: Path) -> None:
    path = named(links, "a-1.0-py3-none-any.whl")
    (tmp_path / "pins").write_text(json.dumps(resolved(emit, "a")))
    cached = next((tmp_path / "cache" / "downloads").glob("*/*"))
    cached.write_bytes(b"bit rot")
    path.write_bytes(path.read_bytes() + b"changed")
    with pytest.raises(MachineLacks, match=r"a==1\.0") as caught:
        wheels.layer({"pins": tmp_path / "pins"}, {"created": CREATED}, emit)
    assert "--update wheels" in caught.value.cure


def test_the_right_one_of_two_files_is_fetched_by_its_hash(links: Path, emit: Emit, tmp_path: Path) -> None:
    named(links, "a-1.0-py3-none-any.whl")
    (tmp_path / "pins").write_text(json.dumps(resolved(emit, "a")))
    named(links, "a-1.0-1-py3-none-any.whl")  # a higher build, which a resolver would prefer
    (next((tmp_path / "cache" / "downloads").glob("*/*"))).unlink()
    outputs = wheels.layer({"pins": tmp_path / "pins"}, {"created": CREATED}, emit)
    with tarfile.open(outputs.files["blob"]) as archive:
        content = archive.extractfile("opt/wheels/a/__init__.py")
        assert content is not None
        assert content.read() == b"a-1.0-py3-none-any.whl"


@pytest.mark.parametrize(
    "changed",
    [
        {"name": "--index-url=x"},
        {"version": "1.0 --pre"},
        {"sha256": "xyz"},
        {"filename": "../../a-1.0-py3-none-any.whl"},
    ],
)
def test_pins_that_were_tampered_with_are_refused(tmp_path: Path, changed: dict[str, str]) -> None:
    one = {
        "name": "a",
        "version": "1.0",
        "sha256": "0" * 64,
        "filename": "a-1.0-py3-none-any.whl",
        "size": 1,
        **changed,
    }
    (tmp_path / "pins").write_text(json.dumps({"python": "3.11", "wheels": [one]}))
    with pytest.raises(UsageError, match="--update wheels"):
        wheels.read_pins(tmp_path / "pins")


@pytest.mark.integration
def test_pins_hold_content_but_no_host(image: Image) -> None:
    text = image.files["wheels_pins"].read_text()
    assert "://" not in text
    names = [one["name"] for one in json.loads(text)["wheels"]]
    assert {"httptools", "msgspec", "numpy", "onnxruntime", "uvloop"} <= set(names)
    assert not {"sympy", "protobuf", "flatbuffers"} & set(names)
