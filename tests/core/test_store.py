"""The store: whole results or none, whatever happens; nothing left behind."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from workbench.errors import Cancelled, MachineLacks
from workbench.store import Store, digest_of_bytes, is_held, remove_tree, write_atomically

KEY = "sha256:" + "ab" * 32


@pytest.fixture
def store(tmp_path: Path) -> Store:
    found = Store(tmp_path / ".workbench")
    found.create()
    return found


def put(store: Store, data: bytes = b"model", key: str = KEY) -> None:
    with store.scratch("step") as scratch:
        (scratch / "model.onnx").write_bytes(data)
        store.put(key, {"model": scratch / "model.onnx"}, {"size": len(data)}, {})


def test_a_result_is_found_under_its_key_and_its_file_under_its_digest(store: Store) -> None:
    assert store.find(KEY) is None
    put(store)
    found = store.find(KEY)
    assert found is not None
    assert found.values == {"size": 5}
    assert found.digest("model") == digest_of_bytes(b"model")
    assert store.path(found.digest("model")).read_bytes() == b"model"
    assert store.path(found.digest("model")).stat().st_mode & 0o222 == 0


def test_equal_files_are_kept_once(store: Store) -> None:
    put(store)
    put(store, key="sha256:" + "cd" * 32)
    assert len(list(store.objects.glob("*/*"))) == 1


def test_a_result_whose_object_is_gone_or_short_does_not_count(store: Store) -> None:
    put(store)
    found = store.find(KEY)
    assert found is not None
    path = store.path(found.digest("model"))
    path.chmod(0o644)
    path.write_bytes(b"mod")
    assert store.find(KEY) is None
    path.unlink()
    assert store.find(KEY) is None


def test_a_torn_result_file_does_not_count(store: Store) -> None:
    put(store)
    path = next(store.results.glob("*/*.json"))
    path.write_bytes(path.read_bytes()[:20])
    assert store.find(KEY) is None


def test_scratch_is_gone_afterwards_also_after_an_error(store: Store) -> None:
    def fail() -> None:
        with store.scratch("step") as scratch:
            (scratch / "deep").mkdir()
            (scratch / "deep" / "file").touch()
            (scratch / "deep").chmod(0o500)
            raise ValueError("a step's own")

    with pytest.raises(ValueError, match="own"):
        fail()
    assert list(store.tmp.iterdir()) == []


def test_scratch_of_a_killed_process_is_swept_and_of_a_living_one_kept(store: Store) -> None:
    code = (
        "import sys, pathlib, time\nfrom workbench.store import Store\n"
        "with Store(pathlib.Path(sys.argv[1])).scratch('dead') as s:\n"
        "    (s / 'x').touch(); print('ready', flush=True); sys.stdin.read()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(store.folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        store.sweep()
        assert len(list(store.tmp.glob("dead-*"))) == 2
        process.kill()
        process.wait()
    store.sweep()
    assert list(store.tmp.iterdir()) == []


def test_one_key_is_made_by_one_run_at_a_time_and_waiting_can_be_cancelled(store: Store) -> None:
    stop = threading.Event()
    with store.alone("key", stop):
        assert is_held(store.locks / "key")
        stop.set()
        with pytest.raises(Cancelled), store.alone("key", stop):
            pass
    assert not is_held(store.locks / "key")


def test_a_large_source_file_is_hashed_again_only_when_it_changed(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "big.onnx"
    path.write_bytes(os.urandom(2 << 20))
    monkeypatch.setattr("workbench.store._SETTLED_NS", 0)
    first = store.source_digest(path)
    with monkeypatch.context() as patch:
        patch.setattr("workbench.store.digest_of", lambda _: pytest.fail("hashed again"))
        assert store.source_digest(path) == first
    with path.open("r+b") as file:
        file.write(b"other")
    assert store.source_digest(path) != first


def test_a_source_file_that_changed_just_now_is_not_remembered(store: Store, tmp_path: Path) -> None:
    """Another change within one tick of the file system's clock would not show in its times."""
    path = tmp_path / "big.onnx"
    path.write_bytes(os.urandom(2 << 20))
    store.source_digest(path)
    assert list(store.stats.iterdir()) == []


def test_a_full_disk_is_a_typed_error_and_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "lock.yaml"
    path.write_text("old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(MachineLacks, match="No space left"):
        write_atomically(path, b"new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_store_that_cannot_be_written_is_a_typed_error(tmp_path: Path) -> None:
    (tmp_path / ".workbench").write_text("a file in the way")
    with pytest.raises(MachineLacks, match="cannot be written"):
        Store(tmp_path / ".workbench").create()


def test_links_out_of_a_removed_tree_are_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o500)
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "link").symlink_to(outside)
    remove_tree(tmp_path / "tree")
    assert outside.stat().st_mode & 0o777 == 0o500
