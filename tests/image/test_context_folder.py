"""Where the docker builder lays its context out: each image's own, one build at a time."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from workbench.image.docker import _context_folder


class Said:
    """Keeps what a step would tell of its progress."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.told = threading.Event()

    def progress(self, done: float, total: float, text: str = "") -> None:
        self.texts.append(text)
        self.told.set()


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
    entered = threading.Event()

    def build() -> None:
        with _context_folder("x", said):
            entered.set()

    other = threading.Thread(target=build)
    with _context_folder("x", said):
        assert said.texts == []
        other.start()
        assert said.told.wait(30)
        assert said.texts == ["waiting for another build of x to end"]
        assert not entered.is_set()
    other.join()
    assert entered.is_set()
