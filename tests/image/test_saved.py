"""What an engine saved: config and layers out of the archive, in its old form and its new one."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from workbench.errors import StepFailed
from workbench.image import saved


def archive(members: dict[str, bytes], links: dict[str, str] | None = None) -> Iterator[bytes]:
    """An archive in pieces that keep to no border."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        for name, target in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            tar.addfile(info)
    whole = data.getvalue()
    yield from (whole[start : start + 777] for start in range(0, len(whole), 777))


def manifest(*layers: str, config: str = "c.json") -> bytes:
    return json.dumps([{"Config": config, "RepoTags": None, "Layers": layers}]).encode()


def test_config_and_layers_come_in_the_order_of_the_manifest(tmp_path: Path) -> None:
    members = {"b/layer.tar": b"upper" * 999, "a/layer.tar": b"lower", "c.json": b"{}"}
    found = saved.read(archive({**members, "manifest.json": manifest("a/layer.tar", "b/layer.tar")}), tmp_path / "s")
    assert found.config == b"{}"
    assert [path.read_bytes() for path in found.layers] == [b"lower", b"upper" * 999]


def test_a_layer_that_is_there_twice_is_found_through_its_link(tmp_path: Path) -> None:
    members = {"a/layer.tar": b"same", "c.json": b"{}", "manifest.json": manifest("a/layer.tar", "b/layer.tar")}
    found = saved.read(archive(members, {"b/layer.tar": "../a/layer.tar"}), tmp_path / "s")
    assert [path.read_bytes() for path in found.layers] == [b"same", b"same"]


def test_the_form_of_newer_engines_is_read_as_well(tmp_path: Path) -> None:
    blob = "blobs/sha256/" + "a" * 64
    members = {"blobs/": b"", "oci-layout": b"{}", blob: gzip.compress(b"x"), "c": b"{}", "index.json": b"{}"}
    found = saved.read(archive({**members, "manifest.json": manifest(blob, config="c")}), tmp_path / "s")
    assert gzip.decompress(found.layers[0].read_bytes()) == b"x"


@pytest.mark.parametrize(
    "members",
    [
        {"x": b""},
        {"manifest.json": b"no json"},
        {"manifest.json": b"[]"},
        {"manifest.json": b"{}"},
        {"manifest.json": manifest("gone"), "c.json": b"{}"},
        {"manifest.json": manifest("../../etc/passwd"), "c.json": b"{}"},
        {"manifest.json": manifest(config="gone")},
    ],
    ids=["none", "no JSON", "empty", "no list", "no layer", "a layer outside", "no config"],
)
def test_anything_else_is_refused(tmp_path: Path, members: dict[str, bytes]) -> None:
    with pytest.raises(StepFailed, match="no image"):
        saved.read(archive(members), tmp_path / "s")


def test_names_in_the_archive_write_nowhere_else(tmp_path: Path) -> None:
    members = {"../../up": b"x", "/abs": b"x", "a/layer.tar": b"", "c.json": b"{}"}
    saved.read(archive({**members, "manifest.json": manifest("a/layer.tar")}), tmp_path / "s")
    assert {path.name for path in tmp_path.iterdir()} == {"s"}
    assert all(path.name.isdecimal() for path in (tmp_path / "s").iterdir())


def test_an_archive_that_breaks_off_is_refused(tmp_path: Path) -> None:
    pieces = list(archive({"c.json": b"{}", "a/layer.tar": b"x" * 5000, "manifest.json": manifest("a/layer.tar")}))
    with pytest.raises(StepFailed):
        saved.read(pieces[:3], tmp_path / "s")
