"""Unpacking an image: verified, and never outside its folder."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import tarfile
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.errors import MachineLacks, StepFailed
from workbench.image.reading import members
from workbench.image.unpacked import LARGEST, Content, unpack, unpacked_for_now


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "", mode: int = 0o644) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, target, mode
    return info


def image(folder: Path, *layers: list[tuple[tarfile.TarInfo, bytes]]) -> tuple[Path, list[Path]]:
    """A config and the blobs of these layers."""
    blobs, diff_ids = [], []
    for number, inside in enumerate(layers):
        tar = io.BytesIO()
        with tarfile.open(fileobj=tar, mode="w", format=tarfile.PAX_FORMAT) as archive:
            for info, data in inside:
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


# --- what swells


def contents(data: bytes, largest: int = LARGEST) -> bytes:
    content = Content(io.BytesIO(data), largest)
    pieces = iter(lambda: content.read(1000), b"")
    return b"".join(pieces)


def test_a_blob_that_swells_is_read_no_further_than_to_its_limit() -> None:
    bomb = gzip.compress(bytes(1 << 20))
    assert len(bomb) < 2000
    assert len(contents(bomb, 1 << 20)) == 1 << 20
    with pytest.raises(StepFailed, match="swell to more than 100000 bytes"):
        contents(bomb, 100_000)


def test_a_blob_of_several_gzip_members_is_all_of_them() -> None:
    """As engines read it; zeros behind it are padding."""
    parts = [b"one", b"", b"two" * 500_000, b"three"]
    packed = b"".join(gzip.compress(part) for part in parts) + bytes(10)
    assert contents(packed) == b"".join(parts)
    content = Content(io.BytesIO(packed))
    content.drain()
    assert content.diff_id == f"sha256:{hashlib.sha256(b''.join(parts)).hexdigest()}"
    for damaged in (packed[:-20], packed + b"x"):
        with pytest.raises((EOFError, zlib.error)):
            Content(io.BytesIO(damaged)).drain()


def sparse(format_: str) -> bytes:
    """A layer of 2 kB with a file of an exabyte."""
    if format_ == "old":
        info = member("big", tarfile.GNUTYPE_SPARSE)
        header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
        header[386:410] = b"00000000000\0" * 2
        header[483:495] = b"\x80" + (1 << 60).to_bytes(11, "big")
        header[148:156] = b"%06o\0 " % (256 + sum(header[:148]) + sum(header[156:512]))
        return bytes(header) + bytes(1024)
    info = member("big")
    version = {"0.1": {"GNU.sparse.map": "0,0"}, "1.0": {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}}[format_]
    info.pax_headers = {**version, "GNU.sparse.size": str(1 << 60), "GNU.sparse.realsize": str(1 << 60)}
    return info.tobuf(tarfile.PAX_FORMAT) + bytes(1024)


@pytest.mark.parametrize("format_", ["old", "0.1", "1.0"])
def test_a_sparse_file_is_refused_before_its_zeros_are_made(tmp_path: Path, format_: str) -> None:
    blob = tmp_path / "blob"
    blob.write_bytes(sparse(format_))
    with pytest.raises(StepFailed, match="sparse"):
        list(members(blob))


def test_a_header_without_end_is_refused_before_it_is_read(tmp_path: Path) -> None:
    info = member("long", tarfile.XHDTYPE)
    info.size = 1 << 40
    (tmp_path / "blob").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(4096))
    with pytest.raises(StepFailed, match="header of 1099511627776 bytes"):
        list(members(tmp_path / "blob"))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_layer_with_other_bytes_here_and_there_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name in ("a", "é" * 90, "b"):
            info = member(name)
            info.size = 5
            archive.addfile(info, io.BytesIO(b"bytes"))
    blob = bytearray(tar.getvalue())
    at = st.integers(0, 6 * 512)
    for place, value in data.draw(st.dictionaries(at, st.integers(0, 255), max_size=4)).items():
        blob[place] = value
    for header in range(0, 6 * 512, 512):  # with right checksums: else nothing behind them is looked at
        checksum = 256 + sum(blob[header : header + 148]) + sum(blob[header + 156 : header + 512])
        blob[header + 148 : header + 156] = b"%06o\0 " % checksum
    path = tmp_path_factory.getbasetemp() / "fuzzed"
    path.write_bytes(blob)
    with contextlib.suppress(StepFailed):
        for _, file in members(path):
            assert file is None or len(file.read()) <= len(blob)
