"""The build context: what the Dockerfile names and nothing else, the same wherever it is laid out."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import tarfile
from pathlib import Path

import pytest
from image_helpers import wheel

from workbench.errors import MachineLacks, UsageError
from workbench.image.context import Content, lay_out, write_dockerfile
from workbench.image.tree import tree_entries


def content(folder: Path, weights: bytes = b"weights", name: str = "digits") -> Content:
    folder.mkdir(exist_ok=True)
    made = wheel(folder, "pkg", {"pkg/__init__.py": b""})
    sha256 = hashlib.sha256(made.read_bytes()).hexdigest()
    (folder / "model").write_bytes(weights)
    (folder / "signature").write_bytes(b"{}")
    pins = [{"name": "pkg", "version": "1.0", "filename": made.name, "sha256": sha256, "size": 3}]
    return Content(pins, {sha256: made}, folder / "model", folder / "signature", name)


def facts(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    return {
        str(path.relative_to(folder)): (
            stat.S_IMODE(path.stat().st_mode),
            path.stat().st_mtime_ns,
            path.read_bytes() if path.is_file() else b"",
        )
        for path in folder.rglob("*")
    }


def test_it_holds_what_the_dockerfile_names(tmp_path: Path) -> None:
    laid_out = lay_out(tmp_path / "context", content(tmp_path / "parts"), 1234)
    write_dockerfile(tmp_path / "context", "FROM x\n")
    found = facts(tmp_path / "context")
    assert {name.split("/")[0] for name in found} == {
        *("Dockerfile", ".dockerignore", "build", "wheels", "server.tar", "model.tar")
    }
    assert found["Dockerfile"][2] == b"FROM x\n"
    assert laid_out.files["models/digits/1/model.onnx"] == hashlib.sha256(b"weights").hexdigest()
    assert "app/workbench/server/__main__.py" in laid_out.files
    assert "build/workbench/image/unpack_wheels.py" in found
    assert [set(one) for one in json.loads(found["build/wheels.json"][2])] == [{"filename", "sha256"}]
    rules = found[".dockerignore"][2].decode().splitlines()
    assert [rule for rule in rules if not rule.startswith("#")] == [
        "*",
        "!build",
        "!wheels",
        "!server.tar",
        "!model.tar",
    ]


def test_it_is_the_same_in_another_folder_under_another_umask(tmp_path: Path) -> None:
    lay_out(tmp_path / "one", content(tmp_path / "parts"), 1234)
    before = os.umask(0o077)
    try:
        lay_out(tmp_path / "two", content(tmp_path / "parts"), 1234)
    finally:
        os.umask(before)
    assert facts(tmp_path / "one") == facts(tmp_path / "two")
    assert {mode for mode, _, data in facts(tmp_path / "two").values() if data} == {0o644}


def test_another_content_of_the_same_size_has_another_time(tmp_path: Path) -> None:
    """BuildKit would take it for unchanged otherwise, and build the old model in."""
    lay_out(tmp_path / "one", content(tmp_path / "parts", b"weightA"), 1234)
    lay_out(tmp_path / "two", content(tmp_path / "parts", b"weightB"), 1234)
    one, two = facts(tmp_path / "one"), facts(tmp_path / "two")
    assert {name for name in one if one[name] != two[name]} == {"model.tar"}
    times = [found["model.tar"][1] for found in (one, two)]
    assert times[0] != times[1]
    assert {time // 10**9 for time in times} == {0}


def test_the_tars_hold_all_with_one_time_and_owner_and_the_digest_that_is_said(tmp_path: Path) -> None:
    laid_out = lay_out(tmp_path / "context", content(tmp_path / "parts"), 1234)
    for name, diff_id in laid_out.tars.items():
        path = tmp_path / "context" / name
        assert f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}" == diff_id
        with tarfile.open(path) as tar:
            assert {(member.mtime, member.uid, member.gid, member.uname) for member in tar} == {(1234, 0, 0, "root")}
            files = {member.name for member in tar if member.isfile()}
        assert files == {path for path in laid_out.files if path.startswith("models/") == (name == "model.tar")}
    assert set(tree_entries([tmp_path / "context" / "model.tar"])) == {
        *("models", "models/digits", "models/digits/1"),
        *("models/digits/1/model.onnx", "models/digits/1/signature.json"),
    }


def test_a_name_that_would_lead_elsewhere_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot name a model"):
        lay_out(tmp_path / "context", content(tmp_path / "parts", name="../../up"), 1234)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MachineLacks, match="file/context"):
        lay_out(tmp_path / "file" / "context", content(tmp_path / "parts"), 1234)
