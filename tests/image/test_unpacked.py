"""Unpacking an image: verified, once, and never outside its folder."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from workbench.errors import StepFailed
from workbench.image.unpacked import unpacked, unpacked_for_now


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
    root = unpacked(config, blobs, tmp_path / "roots")
    assert (root / "a/x").read_bytes() == b"new"
    assert (root / "a/x").stat().st_mode & 0o777 == 0o755
    assert (root / "a/y").read_bytes() == b"stays"


def test_folders_without_write_permission_are_filled_first(tmp_path: Path) -> None:
    config, blobs = image(tmp_path, [(member("a", DIR, mode=0o555), b""), (member("a/x"), b"x")])
    with unpacked_for_now(config, blobs, tmp_path) as root:
        assert (root / "a").stat().st_mode & 0o777 == 0o555
        kept = root
    assert not kept.exists()


def test_a_second_call_uses_what_the_first_unpacked(tmp_path: Path) -> None:
    config, blobs = image(tmp_path, [(member("x"), b"x")])
    root = unpacked(config, blobs, tmp_path / "roots")
    blobs[0].unlink()
    assert unpacked(config, blobs, tmp_path / "roots") == root


def test_what_a_killed_process_left_is_no_image(tmp_path: Path) -> None:
    config, blobs = image(tmp_path, [(member("x"), b"x")])
    name = hashlib.sha256(config.read_bytes()).hexdigest()
    (tmp_path / "roots" / f"{name}.unfinished").mkdir(parents=True)
    (tmp_path / "roots" / f"{name}.unfinished" / "y").write_bytes(b"left")
    root = unpacked(config, blobs, tmp_path / "roots")
    assert [path.name for path in root.iterdir()] == ["x"]


_PROGRAM = """
import sys
from pathlib import Path
from workbench.image.unpacked import unpacked
folder = Path(sys.argv[1])
sys.stdin.readline()
root = unpacked(folder / "config", [folder / "blob0"], folder / "roots")
print(len(list(root.iterdir())))
"""


def test_several_processes_at_once_all_get_the_whole_image(tmp_path: Path) -> None:
    image(tmp_path, [(member(f"x{number}"), b"x" * 1000) for number in range(300)])
    command = [sys.executable, "-c", _PROGRAM, str(tmp_path)]
    processes = [subprocess.Popen(command, stdin=-1, stdout=-1, text=True) for _ in range(4)]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    assert [process.communicate()[0].strip() for process in processes] == ["300"] * 4
    assert sorted(path.suffix for path in (tmp_path / "roots").iterdir()) == ["", ".lock"]


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
def test_hostile_layers_are_refused_and_leave_no_image(
    tmp_path: Path, members: list[tuple[tarfile.TarInfo, bytes]]
) -> None:
    config, blobs = image(tmp_path, members)
    with pytest.raises(StepFailed):
        unpacked(config, blobs, tmp_path / "roots")
    assert not (tmp_path / "out").exists()
    assert not any(path.is_dir() and len(path.name) == 64 for path in (tmp_path / "roots").iterdir())


def test_a_file_is_never_written_through_a_link(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"mine")
    members = [(member("a", tarfile.SYMTYPE, str(outside)), b""), (member("a"), b"x")]
    config, blobs = image(tmp_path, members)
    root = unpacked(config, blobs, tmp_path / "roots")
    assert outside.read_bytes() == b"mine"
    assert (root / "a").read_bytes() == b"x"


def test_a_layer_that_is_not_the_configs_is_refused(tmp_path: Path) -> None:
    config, blobs = image(tmp_path, [(member("x"), b"x")])
    blobs[0].write_bytes(gzip.compress(gzip.decompress(blobs[0].read_bytes()).replace(b"x", b"y", 1)))
    with pytest.raises(StepFailed):
        unpacked(config, blobs, tmp_path / "roots")


def test_what_lies_behind_the_archive_counts_as_well(tmp_path: Path) -> None:
    config, blobs = image(tmp_path, [(member("x"), b"x")])
    blobs[0].write_bytes(gzip.compress(gzip.decompress(blobs[0].read_bytes()) + b"more"))
    with pytest.raises(StepFailed, match="not sha256"):
        unpacked(config, blobs, tmp_path / "roots")


@pytest.mark.parametrize("keep", [0, 5, 40])
def test_a_truncated_layer_is_refused(tmp_path: Path, keep: int) -> None:
    config, blobs = image(tmp_path, [(member("x"), b"x" * 5000)])
    blobs[0].write_bytes(blobs[0].read_bytes()[:keep])
    with pytest.raises(StepFailed):
        unpacked(config, blobs, tmp_path / "roots")


def test_a_missing_layer_is_refused(tmp_path: Path) -> None:
    config, _ = image(tmp_path, [(member("x"), b"x")])
    with pytest.raises(StepFailed, match="1 layers, and there are 0"):
        unpacked(config, [], tmp_path / "roots")
