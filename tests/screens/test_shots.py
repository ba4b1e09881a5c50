"""How every screen looks, in three sizes and three themes. ``UPDATE_GOLDEN=1`` keeps what is painted now.

The file of a screen and size holds its text, and for each theme a digest of the text with its colours.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from app_support import answers, drive, quiet, run_folder, until
from example_recording import Time, recording
from example_run import record, run_events
from shots import SIZES, check, in_all_themes, shown

from screens.app import WorkbenchApp
from screens.command import Command
from screens.home import HomeScreen
from screens.play import PlayApp
from screens.stage import STAGES
from screens.table import Rows
from screens.views import Views
from screens.workspace import WorkspaceScreen


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with one recorded run, named without where it lies."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Command, "answer", answers([]))
    project = Path("digits-project")
    record(run_events(), run_folder(project))
    (project / "recipes").mkdir()
    shipped = (Path(__file__).parents[2] / "recipes/digits.yaml").read_text()
    (project / "recipes/digits.yaml").write_text(shipped.replace("  dynamic:", "  int8-dynamic:"))
    return project


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_home(project: Path, size: tuple[int, int]) -> None:
    app = WorkbenchApp(project)

    async def flow(pilot: Any) -> None:
        assert isinstance(app.screen, HomeScreen)
        await until(
            pilot,
            lambda: all(app.screen.query_one(f"#{name}", Rows).row_count for name in ("recipes", "runs", "machine")),
        )
        check(f"home-{size[0]}x{size[1]}", await in_all_themes(pilot))

    drive(app, flow, size)


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("stage", [kind.id for kind in STAGES])
def test_stage(project: Path, stage: str, size: tuple[int, int]) -> None:
    app = WorkbenchApp(project)

    async def flow(pilot: Any) -> None:
        await until(pilot, lambda: bool(app.screen.query_one("#runs", Rows).row_count))
        await app.open_recipe("recipes/digits.yaml", stage)
        await until(pilot, lambda: isinstance(app.screen, WorkspaceScreen) and app.screen.view is not None)
        check(f"{stage}-{size[0]}x{size[1]}", await in_all_themes(pilot))

    drive(app, flow, size)


def live_samples() -> str:
    """Half a minute of a benchmark on a machine with a GPU, that slows down towards the end."""
    lines = []
    for number in range(120):
        at = 1_700_000_000.0 + number / 4
        gpu = {"name": "Example GPU", "busy": 40.0 + number % 50, "memory_used": 9 << 30, "memory_total": 40 << 30}
        gpu |= {"power": 210.0, "power_limit": 400.0, "temperature": 61, "clock": 1410}
        sensors = {
            "cpu": 30.0 + number % 40,
            "cpu_each": [20.0, 90.0],
            "memory_used": 5 << 30,
            "memory_total": 24 << 30,
        }
        slow = 100_000 + 2_000 * max(number - 60, 0)
        latency = {"series": "image", "histogram": [[slow, 400], [3 * slow, 30], [8 * slow, 6]], "waiting": number % 5}
        container = {"tree": {"cpu": 80.0 + number % 15, "memory": 90 << 20}}
        for kind, values in (("sensors", {**sensors, "gpus": [gpu]}), ("container", container), ("latency", latency)):
            lines.append(json.dumps({"time": at, "step": "benchmark/alone", "kind": kind, "values": values}))
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_live_panels(project: Path, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    happened = run_events()
    begun = next(at for at, each in enumerate(happened) if getattr(each, "step", "") == "benchmark/alone")
    shutil.rmtree(run_folder(project))
    folder = record(happened[: begun + 1], run_folder(project))
    (folder / "samples.jsonl").write_text(live_samples())
    monkeypatch.setattr("workbench.runs.is_alive", lambda _: True)
    monkeypatch.setattr("screens.feed.time.time", lambda: happened[begun].time + 12)
    app = WorkbenchApp(project)

    async def flow(pilot: Any) -> None:
        await until(pilot, lambda: bool(app.screen.query_one("#runs", Rows).row_count))
        await app.open_recipe("recipes/digits.yaml", "benchmark")
        await until(pilot, lambda: app.screen.query_one(Views).shown == "panels")
        await quiet(pilot)
        check(f"live-{size[0]}x{size[1]}", await in_all_themes(pilot))

    drive(app, flow, size)


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_play(tmp_path: Path, size: tuple[int, int]) -> None:
    """A recording at half of its time, paused."""
    app = PlayApp(recording(tmp_path / "recording"), now=Time())

    async def flow(pilot: Any) -> None:
        await pilot.press("space")
        app.clock.seek(app.clock.length / 2)
        await until(pilot, lambda: "30 s" in shown(app))
        check(f"play-{size[0]}x{size[1]}", await in_all_themes(pilot))

    drive(app, flow, size)
