"""Unpacking an image: verified, and never outside its folder."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from pathlib import Path

import pytest

from workbench.errors import MachineLacks, StepFailed
from workbench.image.unpacked import unpack, unpacked_for_now


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "", mode: int = 0o644) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, target, mode
    return info


def image(folder: Path, *layers: list[tuple[tarfile.TarInfo, bytes]]) -> tuple[Path, list[Path]]:
    """A config and the blobs of these layers."""
    blobs, diff_ids = [], []
    for number, members in enumerate(layers):
        tar = io.BytesIO()
        with tarfile.open(fileobj=tar, mode="w", format=tarfile.PAX_FORMAT) as archive:
            for info, data in members:
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
        blobs.append(folder / f"blob{number}")
        blobs[-1].write_bytes(gzip.compress(tar.getvalue(), mtime=0))
        diff_ids.append(f"sha256:{hashlib.sha256(tar.getvalue()).hexdigest()}")
    config = folder / "config"
    config.write_text(json.dumps({"rootfs": {"type": "layers", "diff_ids": diff_ids}, "config": {}}))
    return config, blobs


DIR = tarfile.DIRTYPE


def test_upper_layers_lie_over_lower_ones(tmp_path: Path) -> None:
    lower = [(member("a", DIR, mode=0o755), b""), (member("a/x"), b"old"), (member("a/y"), b"stays")]
    config, blobs = image(tmp_path, lower, [(member("a/x", mode=0o755), b"new")])
    root = tmp_path / "root"
    unpack(config, blobs, root)
    assert (root / "a/x").read_bytes() == b"new"
    assert (root / "a/x").stat().st_mode & 0o777 == 0o755
    assert (root / "a/y").read_bytes() == b"stays"


def test_folders_without_write_permission_are_filled_first(tmp_path: Path) -> None:
    config, blobs = image(tmp_path, [(member("a", DIR, mode=0o555), b""), (member("a/x"), b"x")])
    with unpacked_for_now(config, blobs, tmp_path) as root:
        assert (root / "a").stat().st_mode & 0o777 == 0o555
        kept = root
    assert not kept.exists()


@pytest.mark.parametrize(
    "members",
    [
        [(member("../out"), b"x")],
        [(member("/out"), b"x")],
        [(member("a", tarfile.SYMTYPE, "/"), b""), (member("a/out"), b"x")],
        [(member("a", tarfile.SYMTYPE, ".."), b""), (member("a/out"), b"x")],
        [(member("missing/x"), b"x")],
        [(member("dev", tarfile.CHRTYPE), b"")],
        [(member("a", tarfile.LNKTYPE, "../../etc/passwd"), b"")],
        [(member("a", DIR), b""), (member("a"), b"x")],
        [(member(".wh.a"), b"")],
    ],
    ids=[
        "parent",
        "absolute",
        "link to /",
        "link to ..",
        "no folder",
        "device",
        "hard link",
        "folder replaced",
        "whiteout",
    ],
)
def test_hostile_layers_are_refused_and_leave_nothing(
    tmp_path: Path, members: list[tuple[tarfile.TarInfo, bytes]]
) -> None:
    config, blobs = image(tmp_path, members)
    before = set(tmp_path.iterdir())
    with pytest.raises(StepFailed), unpacked_for_now(config, blobs, tmp_path):
        pass
    assert set(tmp_path.iterdir()) == before


def test_a_file_is_never_written_through_a_link(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"mine")
    members = [(member("a", tarfile.SYMTYPE, str(outside)), b""), (member("a"), b"x")]
    config, blobs = image(tmp_path, members)
    root = tmp_path / "root"
    unpack(config, blobs, root)
    assert outside.read_bytes() == b"mine"
    assert (root / "a").read_bytes() == b"x"


def test_a_layer_that_is_not_the_configs_is_refused(tmp_path: Path) -> None:
    config, blobs = image(tmp_path, [(member("x"), b"x")])
    blobs[0].write_bytes(gzip.compress(gzip.decompress(blobs[0].read_bytes()).replace(b"x", b"y", 1)))
    with pytest.raises(StepFailed):
        unpack(config, blobs, tmp_path / "root")


def test_what_lies_behind_the_archive_counts_as_well(tmp_path: Path) -> None:
    config, blobs = image(tmp_path, [(member("x"), b"x")])
    blobs[0].write_bytes(gzip.compress(gzip.decompress(blobs[0].read_bytes()) + b"more"))
    with pytest.raises(StepFailed, match="not sha256"):
        unpack(config, blobs, tmp_path / "root")


@pytest.mark.parametrize("keep", [0, 5, 40])
def test_a_truncated_layer_is_refused(tmp_path: Path, keep: int) -> None:
    config, blobs = image(tmp_path, [(member("x"), b"x" * 5000)])
    blobs[0].write_bytes(blobs[0].read_bytes()[:keep])
    with pytest.raises(StepFailed):
        unpack(config, blobs, tmp_path / "root")


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    config, blobs = image(tmp_path, [(member("x"), b"x")])
    with pytest.raises(MachineLacks, match="nowhere/root"):
        unpack(config, blobs, tmp_path / "nowhere" / "root")


def test_a_missing_layer_is_refused(tmp_path: Path) -> None:
    config, _ = image(tmp_path, [(member("x"), b"x")])
    with pytest.raises(StepFailed, match="1 layers, and there are 0"):
        unpack(config, [], tmp_path / "root")
