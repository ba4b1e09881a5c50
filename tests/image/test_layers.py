"""Layers: one normal form, whatever the machine."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from workbench.errors import StepFailed
from workbench.image.layers import Entry, file_from, file_of, folder, symlink, write_layer

CREATED = 1_700_000_000


def members(blob: Path) -> list[tarfile.TarInfo]:
    with tarfile.open(blob) as archive:
        return archive.getmembers()


def packed(entries: list[Entry], scratch: Path, level: int = 6) -> tuple[Path, dict[str, object]]:
    outputs = write_layer("some", entries, scratch, created=CREATED, level=level)
    return outputs.files["blob"], json.loads(outputs.files["descriptor"].read_bytes())


def test_entries_are_sorted_and_folders_on_the_way_are_there(tmp_path: Path) -> None:
    blob, _ = packed([file_of("b/c/d", b"x"), symlink("a", "b"), file_of("b-e", b"y")], tmp_path)
    assert [member.name for member in members(blob)] == ["a", "b", "b-e", "b/c", "b/c/d"]


def test_owner_time_and_names_are_the_same_for_all(tmp_path: Path) -> None:
    blob, _ = packed([file_of("a", b"x", 0o755), folder("f", 0o1777), symlink("l", "a")], tmp_path)
    assert {(one.uid, one.gid, one.uname, one.gname, one.mtime) for one in members(blob)} == {(0, 0, "", "", CREATED)}
    assert [one.mode for one in members(blob)] == [0o755, 0o1777, 0o777]


def test_the_mode_of_a_source_file_does_not_count(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"x")
    source.chmod(0o600)
    blob, _ = packed([file_from("a", source)], tmp_path)
    assert members(blob)[0].mode == 0o644


def test_names_that_do_not_fit_a_plain_header_survive(tmp_path: Path) -> None:
    path = "/".join(["länger"] * 60)
    blob, _ = packed([file_of(path, b"x")], tmp_path)
    assert members(blob)[-1].name == path


def test_the_content_has_one_digest_however_it_is_compressed(tmp_path: Path) -> None:
    descriptors = []
    for level in (0, 1, 9):
        (tmp_path / str(level)).mkdir()
        blob, descriptor = packed([file_of("a", b"abc" * 9999)], tmp_path / str(level), level)
        assert descriptor["digest"] == f"sha256:{hashlib.sha256(blob.read_bytes()).hexdigest()}"
        assert descriptor["diff_id"] == f"sha256:{hashlib.sha256(gzip.decompress(blob.read_bytes())).hexdigest()}"
        assert descriptor["size"] == blob.stat().st_size
        assert f"level {level}" in str(descriptor["compressor"])
        descriptors.append(descriptor)
    assert len({descriptor["diff_id"] for descriptor in descriptors}) == 1
    assert len({descriptor["digest"] for descriptor in descriptors}) == 3


def test_the_gzip_header_holds_no_time_and_no_name(tmp_path: Path) -> None:
    blob, _ = packed([file_of("a", b"x")], tmp_path)
    header = blob.read_bytes()[:10]
    assert header[3] == 0  # no flags: no name
    assert header[4:8] == b"\0\0\0\0"


def test_contents_name_files_and_sizes(tmp_path: Path) -> None:
    outputs = write_layer("some", [file_of("a/b", b"xyz"), folder("c")], tmp_path, created=CREATED)
    assert json.loads(outputs.files["contents"].read_bytes()) == [{"path": "/a/b", "size": 3}]
    assert outputs.values["files"] == 1


_PROGRAM = """
import sys
from pathlib import Path
from workbench.image.layers import file_from, file_of, folder, symlink, write_layer
scratch = Path(sys.argv[1]); source = scratch / "source"; source.write_bytes(b"content")
entries = [file_from("etc/a", source), folder("tmp", 0o1777), symlink("l", "etc/a"), file_of("ä" * 120, b"x", 0o755)]
print(write_layer("some", entries, scratch, created=1700000000).values["diff_id"])
"""

GOLDEN = "sha256:55cea1ca411051e357de7edd45f126874e8f4569a6674ff219186f776a5ff80d"


@pytest.mark.parametrize(
    ("umask", "environment"),
    [(0o022, {}), (0o077, {}), (0o000, {"TZ": "Asia/Tokyo", "LC_ALL": "tr_TR.UTF-8", "PYTHONHASHSEED": "7"})],
)
def test_umask_time_zone_and_locale_do_not_count(tmp_path: Path, umask: int, environment: dict[str, str]) -> None:
    command = [sys.executable, "-c", _PROGRAM, str(tmp_path)]
    env = {**os.environ, **environment}
    done = subprocess.run(command, env=env, umask=umask, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == GOLDEN


def test_two_parts_that_claim_one_path_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StepFailed, match="/a"):
        packed([file_of("a", b"x"), file_of("a", b"y")], tmp_path)


def test_a_file_below_a_link_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StepFailed, match="no folder"):
        packed([symlink("a", "b"), file_of("a/c", b"y")], tmp_path)


@pytest.mark.parametrize("path", ["/a", "a/../b", "", "a//b", "./a", "a\0b"])
def test_paths_that_lead_out_are_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(StepFailed):
        packed([file_of(path, b"x")], tmp_path)


def test_a_source_that_shrinks_while_it_is_packed_fails_the_step(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"long content")
    entry = file_from("a", source)
    source.write_bytes(b"short")
    with pytest.raises(StepFailed, match="changed while"):
        packed([entry], tmp_path)
