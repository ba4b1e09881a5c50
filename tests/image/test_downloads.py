"""The cache of downloads: verified each time, shared, never half written."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from workbench.errors import MachineLacks
from workbench.image import downloads


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def kept(tmp_path: Path, data: bytes) -> tuple[Path, str]:
    source = tmp_path / "source"
    source.write_bytes(data)
    sha256 = hashlib.sha256(data).hexdigest()
    return downloads.keep(source, sha256), sha256


def test_what_was_kept_is_found_by_its_content(cache: Path, tmp_path: Path) -> None:
    path, sha256 = kept(tmp_path, b"a wheel")
    assert path.is_relative_to(cache)
    assert downloads.take(sha256) == path
    assert path.read_bytes() == b"a wheel"


def test_what_is_not_there_is_none(cache: Path) -> None:
    assert downloads.take("0" * 64) is None


def test_a_changed_file_is_not_used_and_not_kept(cache: Path, tmp_path: Path) -> None:
    path, sha256 = kept(tmp_path, b"a wheel")
    path.write_bytes(b"another wheel")
    assert downloads.take(sha256) is None
    assert not path.exists()


def test_nothing_temporary_stays(cache: Path, tmp_path: Path) -> None:
    path, _ = kept(tmp_path, b"a wheel")
    assert list(path.parent.iterdir()) == [path]


def test_a_cache_that_cannot_be_written_names_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "file"))
    with pytest.raises(MachineLacks, match="WORKBENCH_CACHE"):
        kept(tmp_path, b"a wheel")


def test_without_a_setting_it_is_the_users_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORKBENCH_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert downloads.cache_folder() == tmp_path / "workbench"
