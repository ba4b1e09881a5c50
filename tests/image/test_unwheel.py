"""Wheels as a layer: unpacked by the specification, hostile ones refused."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import stat
from pathlib import Path

import pytest
from image_helpers import wheel

from workbench.errors import StepFailed
from workbench.image.layers import Entry
from workbench.image.omit import Omitted
from workbench.image.unwheel import Unpacked


def unpacked(*wheels: Path, omitted: str = "") -> tuple[dict[str, Entry], dict[str, bytes], int]:
    with Unpacked(Omitted.parse(omitted)) as all_of_it:
        for path in wheels:
            all_of_it.add(path.name, path)
        entries = {entry.path.removeprefix("opt/wheels/"): entry for entry in all_of_it.entries()}
        content = {path: entry.open().read() for path, entry in entries.items() if entry.open is not None}
        return entries, content, all_of_it.omitted_bytes


def test_data_goes_where_it_belongs_and_scripts_nowhere(tmp_path: Path) -> None:
    files = {
        "a/__init__.py": b"1",
        "a-1.0.data/purelib/pure.py": b"2",
        "a-1.0.data/platlib/plat.so": b"3",
        "a-1.0.data/data/share/x": b"4",
        "a-1.0.data/scripts/run": b"5",
        "a-1.0.data/headers/a.h": b"6",
        "a/__pycache__/b.pyc": b"7",
    }
    _, content, _ = unpacked(wheel(tmp_path, "a", files))
    assert {path: data for path, data in content.items() if "dist-info" not in path} == {
        "a/__init__.py": b"1",
        "pure.py": b"2",
        "plat.so": b"3",
        "share/x": b"4",
    }


def test_modes_are_one_of_two(tmp_path: Path) -> None:
    files = {"a/x.py": b"", "a/run.sh": b"", "a/lib.so": b"", "a/libz.so.1": b""}
    entries, _, _ = unpacked(wheel(tmp_path, "a", files, {"a/x.py": 0o100666, "a/run.sh": 0o100700}))
    modes = {path: entry.mode for path, entry in entries.items() if path in files}
    assert modes == {"a/x.py": 0o644, "a/run.sh": 0o755, "a/lib.so": 0o755, "a/libz.so.1": 0o755}


def test_record_tells_what_is_there(tmp_path: Path) -> None:
    _, content, _ = unpacked(wheel(tmp_path, "a", {"a/x.py": b"x", "a/tests/t.py": b"t"}), omitted="opt/wheels/a/tests")
    rows = {row[0]: row[1:] for row in csv.reader(io.StringIO(content["a-1.0.dist-info/RECORD"].decode()))}
    assert set(rows) == set(content)
    assert rows["a-1.0.dist-info/RECORD"] == ["", ""]
    encoded = base64.urlsafe_b64encode(hashlib.sha256(b"x").digest()).rstrip(b"=").decode()
    assert rows["a/x.py"] == [f"sha256={encoded}", "1"]


def test_what_is_left_out_is_counted(tmp_path: Path) -> None:
    entries, _, omitted = unpacked(
        wheel(tmp_path, "a", {"a/x.py": b"x", "a/tests/t.py": b"12345"}), omitted="opt/wheels/a/tests"
    )
    assert omitted == 5
    assert "a/tests/t.py" not in entries


@pytest.mark.parametrize(
    "path", ["../x.py", "/etc/x", "a/../../x", "a\\..\\x", "a//x", "./x", "a-1.0.data/data/../../x"]
)
def test_a_path_that_leads_out_is_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(StepFailed, match="leads out"):
        unpacked(wheel(tmp_path, "a", {path: b"x"}))


def test_a_link_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StepFailed, match="neither file nor folder"):
        unpacked(wheel(tmp_path, "a", {"a/l": b"/etc/passwd"}, {"a/l": stat.S_IFLNK | 0o777}))


def test_one_path_of_two_wheels_is_refused_unless_it_is_the_same_file(tmp_path: Path) -> None:
    one, same = wheel(tmp_path, "a", {"ns/__init__.py": b"x"}), wheel(tmp_path, "b", {"ns/__init__.py": b"x"})
    entries, _, _ = unpacked(one, same)
    assert "ns/__init__.py" in entries
    with pytest.raises(StepFailed, match=r"a-1\.0.*c-1\.0.*ns/__init__\.py"):
        unpacked(one, wheel(tmp_path, "c", {"ns/__init__.py": b"y"}))


def test_a_truncated_wheel_is_refused_by_name(tmp_path: Path) -> None:
    path = wheel(tmp_path, "a", {"a/x.py": b"x" * 1000})
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(StepFailed, match=r"a-1\.0-py3-none-any\.whl is damaged"):
        unpacked(path)


def test_a_wheel_whose_file_is_corrupt_is_refused(tmp_path: Path) -> None:
    path = wheel(tmp_path, "a", {"a/x.py": b"y" * 1000})
    path.write_bytes(path.read_bytes().replace(b"y" * 10, b"z" * 10, 1))
    with pytest.raises(StepFailed, match="damaged"):
        unpacked(path)
