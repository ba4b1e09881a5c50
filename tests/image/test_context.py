"""The build context: what the Dockerfile names and nothing else, the same wherever it is laid out."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from pathlib import Path

import pytest
from image_helpers import wheel

from workbench.errors import MachineLacks, UsageError
from workbench.image.context import Content, lay_out


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
    lay_out(tmp_path / "context", "FROM x\n", content(tmp_path / "parts"))
    found = facts(tmp_path / "context")
    assert {name.split("/")[0] for name in found} == {
        "Dockerfile",
        ".dockerignore",
        "build",
        "wheels",
        "server",
        "model",
    }
    assert found["Dockerfile"][2] == b"FROM x\n"
    assert found["model/models/digits/1/model.onnx"][2] == b"weights"
    assert "server/app/workbench/server/__main__.py" in found
    assert "build/workbench/image/unpack_wheels.py" in found
    assert [set(one) for one in json.loads(found["build/wheels.json"][2])] == [{"filename", "sha256"}]
    rules = found[".dockerignore"][2].decode().splitlines()
    assert [rule for rule in rules if not rule.startswith("#")] == ["*", "!build", "!wheels", "!server", "!model"]


def test_it_is_the_same_in_another_folder_under_another_umask(tmp_path: Path) -> None:
    lay_out(tmp_path / "one", "FROM x\n", content(tmp_path / "parts"))
    before = os.umask(0o077)
    try:
        lay_out(tmp_path / "two", "FROM x\n", content(tmp_path / "parts"))
    finally:
        os.umask(before)
    assert facts(tmp_path / "one") == facts(tmp_path / "two")
    assert {mode for mode, _, data in facts(tmp_path / "two").values() if data} == {0o644}


def test_another_content_of_the_same_size_has_another_time(tmp_path: Path) -> None:
    """BuildKit would take it for unchanged otherwise, and build the old model in."""
    lay_out(tmp_path / "one", "FROM x\n", content(tmp_path / "parts", b"weightA"))
    lay_out(tmp_path / "two", "FROM x\n", content(tmp_path / "parts", b"weightB"))
    one, two = facts(tmp_path / "one"), facts(tmp_path / "two")
    assert {name for name in one if one[name] != two[name]} == {"model/models/digits/1/model.onnx"}
    times = [found["model/models/digits/1/model.onnx"][1] for found in (one, two)]
    assert times[0] != times[1]
    assert {time // 10**9 for time in times} == {0}


def test_a_name_that_would_lead_elsewhere_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot name a model"):
        lay_out(tmp_path / "context", "FROM x\n", content(tmp_path / "parts", name="../../up"))


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MachineLacks, match="file/context"):
        lay_out(tmp_path / "file" / "context", "FROM x\n", content(tmp_path / "parts"))
