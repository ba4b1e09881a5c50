"""Layers of an engine, packed once and kept by content."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import tarfile
from pathlib import Path

import pytest

from workbench.errors import StepFailed
from workbench.image import packed
from workbench.image.packed import Packed


@pytest.fixture(autouse=True)
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "layers"


def layer(folder: Path, data: bytes = b"x") -> Packed:
    tar = folder / "tar"
    with tarfile.open(tar, "w") as archive:
        for name, kind in (
            ("a", tarfile.DIRTYPE),
            ("a/x", tarfile.REGTYPE),
            ("a/l", tarfile.LNKTYPE),
            ("a/.wh.y", tarfile.REGTYPE),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.size = kind, len(data) if name == "a/x" else 0
            info.linkname = "a/x" if kind == tarfile.LNKTYPE else ""
            archive.addfile(info, io.BytesIO(data))
    return packed.packed(tar, diff_id_of(tar), folder / f"blob-{data.hex()}")


def diff_id_of(tar: Path) -> str:
    return f"sha256:{hashlib.sha256(tar.read_bytes()).hexdigest()}"


def test_a_kept_layer_is_the_same_layer(tmp_path: Path) -> None:
    one = layer(tmp_path)
    packed.keep(one)
    again = packed.take(str(one.descriptor["diff_id"]))
    assert again is not None
    assert (again.descriptor, again.changes, again.files) == (one.descriptor, one.changes, 2)
    assert gzip.decompress(again.blob.read_bytes()) == (tmp_path / "tar").read_bytes()
    assert again.blob != one.blob


def test_what_is_not_whole_any_more_is_not_taken(tmp_path: Path, kept: Path) -> None:
    one = layer(tmp_path)
    diff_id = str(one.descriptor["diff_id"])
    assert packed.take(diff_id) is None
    for damage in ("blob", "layer.json"):
        packed.keep(one)
        path = kept / diff_id.removeprefix("sha256:") / damage
        path.write_bytes(path.read_bytes()[:-1])
        assert packed.take(diff_id) is None


def test_only_the_newest_stay(tmp_path: Path, kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "KEPT", 2)
    layers = [layer(tmp_path, bytes([number])) for number in range(3)]
    for number, one in enumerate(layers):
        packed.keep(one)
        if number < 2:
            os.utime(kept / str(one.descriptor["diff_id"]).removeprefix("sha256:"), (number, number))
    assert [packed.take(str(one.descriptor["diff_id"])) is not None for one in layers] == [False, True, True]


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path: Path, kept: Path) -> None:
    kept.parent.mkdir()
    kept.write_text("a file")
    one = layer(tmp_path)
    packed.keep(one)
    assert packed.take(str(one.descriptor["diff_id"])) is None


def test_an_engines_layer_that_is_hostile_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "tar", "w") as archive:
        archive.addfile(tarfile.TarInfo("../x"))
    with pytest.raises(StepFailed, match="leads out"):
        packed.packed(tmp_path / "tar", diff_id_of(tmp_path / "tar"), tmp_path / "blob")


def test_another_layer_than_the_one_that_is_said_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "tar", "w") as archive:
        archive.addfile(tarfile.TarInfo("x"))
    with pytest.raises(StepFailed):
        packed.packed(tmp_path / "tar", f"sha256:{'0' * 64}", tmp_path / "blob")
