"""Where the docker builder lays its context out: each image's own, one build at a time."""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import Any

import pytest

from workbench.image.docker import _context_folder


class Said:
    """Keeps what a step would tell of its progress."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def progress(self, done: float, total: float, text: str = "") -> None:
        self.texts.append(text)


@pytest.fixture
def said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))
    return Said()


def test_models_of_any_names_have_folders_of_their_own(said: Any) -> None:
    with _context_folder("x", said) as first, _context_folder("x.lock", said) as second:
        for folder in (first, second):
            folder.mkdir()
            (folder / "Dockerfile").write_text(folder.parent.name)
        assert (first / "Dockerfile").read_text() == "x"
        assert (second / "Dockerfile").read_text() == "x.lock"
    assert not first.exists()
    assert not second.exists()


def test_a_build_waits_for_another_of_the_same_name_and_says_so(said: Any) -> None:
    with _context_folder("x", said) as folder:
        said.texts.clear()
        with (folder.parent / "lock").open("ab") as other, pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with _context_folder("x", said):
        assert said.texts == ["waiting for other builds of x"]
