"""Commands that the app says for its widgets."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

from textual import work
from textual.app import App, ComposeResult
from textual.containers import Vertical
from textual.widgets import Static
from textual.worker import WorkerCancelled, WorkerState

from screens.command import Answer, Command


class Slow(Static):
    """Its end takes until somebody says so, as that of many widgets on a busy machine does."""

    def __init__(self, over: asyncio.Event) -> None:
        super().__init__()
        self.over = over

    async def on_unmount(self) -> None:
        await self.over.wait()


class Asking(Vertical):
    """Shows what a command says."""

    def __init__(self, project: Path, over: asyncio.Event) -> None:
        super().__init__()
        self.project, self.over = project, over
        self.shown: list[Answer] = []

    def compose(self) -> ComposeResult:
        yield Slow(self.over)

    @work
    async def ask(self) -> None:
        self.shown.append(await Command(("--help",), self.project).answer())


async def asked(project: Path, *, taken_away: bool) -> tuple[WorkerState, list[int]]:
    """How a worker ended whose widget may be taken away meanwhile, and the exit codes that it was given."""
    app: App[None] = App()
    over = asyncio.Event()
    async with app.run_test():
        asking = Asking(project, over)
        await app.mount(asking)
        worker = asking.ask()
        removal = asking.remove() if taken_away else None
        with contextlib.suppress(WorkerCancelled):
            await worker.wait()
        over.set()
        if removal is not None:
            await removal
        return worker.state, [answer.exit_code for answer in asking.shown]


def test_an_answer_is_there_for_who_asked(tmp_path: Path) -> None:
    assert asyncio.run(asked(tmp_path, taken_away=False)) == (WorkerState.SUCCESS, [0])


def test_who_is_taken_away_before_the_answer_is_there_is_not_given_it(tmp_path: Path) -> None:
    assert asyncio.run(asked(tmp_path, taken_away=True)) == (WorkerState.CANCELLED, [])
