"""``make screenshots``: the README's pictures of every screen, as SVG, from the recording that ships and its model.

``screenshots.py FOLDER`` writes them. The font is the reader's own: Textual's export would fetch one from the net.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from app_support import drive, quiet, until
from support import ROOT, git
from textual.widgets import Input

from screens.app import WorkbenchApp
from screens.home import HomeScreen
from screens.new import NewForm
from screens.play import PlayApp, PlayScreen
from screens.stage import STAGES
from screens.table import Rows
from workbench.recording import unpack
from workbench.runs import Request, runs_folder

SIZE = (120, 34)
RECORDING = ROOT / "assets/recordings/digits.workbench-run"
FONT = "DejaVu Sans Mono, Menlo, Consolas, monospace"

LIVE = 0.86
"""Where in the recording, as a share of it, the benchmark runs that the picture of live panels shows."""


def svg(app: Any) -> str:
    """The screen as SVG that fetches nothing."""
    found = re.sub(r"@font-face\s*\{[^}]*\}|<!--.*?-->", "", app.export_screenshot(title="workbench"), flags=re.DOTALL)
    return re.sub(r"font-family: [^;]+;", f"font-family: {FONT};", found)


def project(folder: Path) -> Path:
    """A git repository with the digits, their recipe and the recorded run of it."""
    (folder / "recipes").mkdir(parents=True)
    shutil.copytree(ROOT / "assets/digits", folder / "assets/digits")
    for name in ("digits.yaml", "digits.lock.yaml"):
        shutil.copy(ROOT / "recipes" / name, folder / "recipes" / name)
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "The model and its recipe"]):
        git(folder, "-c", "user.name=workbench", "-c", "user.email=workbench@example.com", *words)
    recording = unpack(RECORDING, folder / ".workbench/recording")
    run = runs_folder(folder) / recording.run.name
    shutil.copytree(recording.run, run)
    request = Request(str(folder), str(folder / "recipes/digits.yaml"), ["workbench", "run", "recipes/digits.yaml"])
    (run / "request.json").write_text(json.dumps(asdict(request)))
    (run / "lock").touch()
    return folder


def pictures(folder: Path, keep: Callable[[str, str], None]) -> None:
    """Paints every screen and hands each picture on with its name."""
    os.environ["HOME"] = str(folder)  # paths are shown from there
    home = WorkbenchApp(project(folder / "digits-service"))

    async def at_home(pilot: Any) -> None:
        await until(pilot, lambda: isinstance(home.screen, HomeScreen))
        found = lambda name: home.screen.query_one(f"#{name}", Rows).row_count  # noqa: E731
        await until(pilot, lambda: all(found(name) for name in ("recipes", "runs", "machine")))
        await quiet(pilot)
        keep("home", svg(home))
        await pilot.press("n")
        await until(pilot, lambda: isinstance(home.screen, NewForm))
        home.screen.query_one("#name", Input).value = "digits-small"
        await until(pilot, lambda: bool(home.screen.query_one("#preview").text))
        await quiet(pilot)
        keep("new", svg(home))

    drive(home, at_home, SIZE)
    played(folder / "end", 1.0, [kind.id for kind in STAGES], keep)
    played(folder / "live", LIVE, ["benchmark"], lambda _, picture: keep("live", picture))


def played(folder: Path, share: float, stages: list[str], keep: Callable[[str, str], None]) -> None:
    """Pictures of stages at one moment of the recording."""
    app = PlayApp(unpack(RECORDING, folder), now=lambda: 0.0)

    async def flow(pilot: Any) -> None:
        await until(pilot, lambda: isinstance(app.screen, PlayScreen) and app.screen.view is not None)
        screen = app.screen
        screen.action_seek_to(share)
        await until(pilot, lambda: screen.view.now - screen.view.state.started >= share * screen.clock.length - 1)
        for stage in stages:
            await screen.action_stage(stage)
            await quiet(pilot)
            keep(stage, svg(app))

    drive(app, flow, SIZE)


def main() -> None:
    target = Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="workbench-screenshots-") as folder:
        pictures(Path(folder), lambda name, picture: (target / f"{name}.svg").write_text(picture) and None)
    print(f"{len(list(target.glob('*.svg')))} pictures in {target}")


if __name__ == "__main__":
    main()
