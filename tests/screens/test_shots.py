"""How every screen looks, in three sizes and three themes. ``UPDATE_GOLDEN=1`` keeps what is painted now.

The file of a screen and size holds its text, and for each theme a digest of the text with its colours.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from app_support import answers, drive, run_folder, until
from example_run import record, run_events
from shots import SIZES, check, in_all_themes

from screens.app import WorkbenchApp
from screens.command import Command
from screens.home import HomeScreen
from screens.stage import STAGES
from screens.table import Rows
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
