"""``workbench play`` in a real terminal: the shipped recording where nothing else is, and files that are odd."""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from support import ROOT, workbench
from terminal import Terminal

from screens.stage import STAGES
from workbench import recording

PLAY = [sys.executable, "-P", "-m", "workbench", "play"]
TOLD = ["sh", "-c", '"$@"; echo "code $?"; read end', "sh", *PLAY]
"""The same; the terminal stays open with what it says at its end."""


@pytest.mark.integration
def test_the_shipped_recording_plays_where_nothing_else_is_and_has_what_every_stage_shows(tmp_path: Path) -> None:
    environment = {"PATH": "/nowhere", "HOME": str(tmp_path), "DOCKER_HOST": "unix:///nowhere"}
    with Terminal([*PLAY, "--speed", "64"], tmp_path, (120, 40), environment) as terminal:
        terminal.wait_for("▶ playing ×64")  # noqa: RUF001
        terminal.press("End")
        terminal.wait_for("■ ended")
        for number, kind in enumerate(STAGES, 1):
            terminal.press(str(number))
            terminal.wait_for(MARKS[kind.id])
            text = terminal.text()
            assert "RECORDING  digits · 20" in text
            assert "It does not have" not in text
        for stage, key, what in (
            ("containerize", "d", "FROM "),
            ("containerize", "i", "In layer base"),
            ("recipe", "d", "as it is committed"),
            ("recipe", "h", "first lock"),
        ):
            terminal.press(str([kind.id for kind in STAGES].index(stage) + 1))
            terminal.wait_for("Contents" if stage == "containerize" else "History")
            press_until(terminal, key, what)
        terminal.press("Home", "Space")
        terminal.wait_for("❚❚ paused")
        terminal.press("q")
        assert terminal.wait_for_end() == 0
    assert not list(tmp_path.iterdir())


def press_until(terminal: Terminal, key: str, what: str) -> None:
    """Presses a key that goes to a view until that is there: the stage may be on the screen before it has the keys."""
    for _ in range(10):
        terminal.press(key)
        with contextlib.suppress(TimeoutError):
            terminal.wait_for(what, 5)
            return
    raise TimeoutError(f"{what!r} did not come. The screen:\n{terminal.text()}")


MARKS = {
    "model": "operator",
    "compress": "◆ chosen",
    "containerize": "unpacked",
    "benchmark": "MLPerf scenario",
    "push": "sha256:",
    "recipe": "✓ valid",
    "run": "✓ done",
}
"""What each stage shows at the end of the run."""


def changed(to: Path, change: Callable[[dict[str, bytes]], object]) -> Path:
    """The shipped recording with its parts changed."""
    with zipfile.ZipFile(recording.shipped()) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    change(parts)
    with zipfile.ZipFile(to, "w") as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    return to


def odd_answers(parts: dict[str, bytes]) -> None:
    """Answers that are JSON, and not what the command says."""
    manifest = json.loads(parts["recording.json"])
    for each in manifest["answers"]:
        each["stdout"], each["after"] = '{"layers": [{"x": 1}], "operators": 3}', ""
    parts["recording.json"] = json.dumps(manifest).encode()


@pytest.mark.integration
def test_what_cannot_be_shown_ends_the_app_with_a_sentence(tmp_path: Path) -> None:
    changed(tmp_path / "odd.workbench-run", odd_answers)
    with Terminal([*TOLD, "odd.workbench-run"], tmp_path) as terminal:
        terminal.wait_for("RECORDING")
        terminal.press("3")
        told = " ".join(terminal.wait_for("code ").split())
        assert "odd.workbench-run holds what this version of workbench cannot show" in told
        assert "Traceback" not in told
        assert "code 2" in told


@pytest.mark.integration
def test_a_torn_file_ends_with_a_sentence(tmp_path: Path) -> None:
    whole = recording.shipped().read_bytes()
    (tmp_path / "torn.workbench-run").write_bytes(whole[: len(whole) // 2])
    with Terminal([*TOLD, "torn.workbench-run"], tmp_path) as terminal:
        told = " ".join(terminal.wait_for("code 2").split())
    assert "torn.workbench-run is no recording, or is torn" in told


def test_without_a_terminal_nothing_plays(tmp_path: Path) -> None:
    done = workbench(tmp_path, "play")

    assert done.returncode == 2
    assert "needs a terminal" in done.stderr


def test_the_shipped_recording_is_small_and_tells_nothing_of_the_machine_it_was_made_on(tmp_path: Path) -> None:
    assert recording.shipped().stat().st_size < 400_000
    found = recording.unpack(recording.shipped(), tmp_path / "opened")
    whole = b"".join(path.read_bytes() for path in found.folder.rglob("*") if path.is_file()).decode()

    for private in ("/tmp/", "/root/", "/home/", str(ROOT)):
        assert private not in whole
    assert shutil.which("git") is None or found.manifest.notes == ()
