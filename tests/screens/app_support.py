"""Driving the app in tests: a pilot from a plain function, waiting for what is to come, commands that only are said."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from screens.app import WorkbenchApp
from screens.command import Answer, Command
from workbench.runs import runs_folder

STATUS = {
    "recipe": "recipes/digits.yaml",
    "status": "as locked",
    "choice": "int8",
    "image": "",
    "last_run": "",
    "figures": {
        "machine": "AMD EPYC, 2 cores, 24 GiB",
        "here": True,
        "size": {"value": 364622.0, "original": 1379973.0},
        "p50": {"value": 56118.0, "original": 132549.0},
        "ratio": 0.4228,
    },
}
DOCTOR = [
    {"what": "memory", "state": "ok", "found": "24 GiB", "cure": ""},
    {"what": "git", "state": "missing", "found": "", "cure": "apt-get install git"},
]

VALID = {"recipe": "recipes/digits.yaml", "valid": True, "problems": [], "error": ""}


def run_folder(project: Path) -> Path:
    return runs_folder(project) / "20261124-100000.000-digits-aaaa"


def drive(app: WorkbenchApp, flow: Callable[[Any], Awaitable[None]], size: tuple[int, int] = (120, 40)) -> None:
    """Runs ``flow`` with a pilot of ``app``."""

    async def driven() -> None:
        async with app.run_test(size=size) as pilot:
            await flow(pilot)
            app.workers.cancel_all()  # as the app does when it ends; the pilot takes the widgets away first

    asyncio.run(driven())


async def until(pilot: Any, what: Callable[[], bool]) -> None:
    """Lets the app go on until ``what`` is so; the test's time limit ends what never comes."""
    while not what():
        assert pilot.app.is_running, "the app has ended; what broke it is told below"
        await pilot.pause(0.02)


async def quiet(pilot: Any) -> None:
    """Lets the app go on until nothing is asked any more and all is painted."""
    await pilot.pause()
    await until(pilot, lambda: all(worker.is_finished for worker in pilot.app.workers))
    await pilot.pause()


def answers(said: list[str]) -> Callable[[Command], Awaitable[Answer]]:
    """In place of a command's process: notes the command in ``said``; of few, answers as they do.

    All other commands fail: what they do is tested where they are.
    """

    async def answer(self: Command) -> Answer:
        said.append(str(self))
        found = {"status": [STATUS], "doctor": DOCTOR, "validate": [VALID]}.get(self.words[0])
        if found is not None:
            return Answer(0, json.dumps(found), "")
        return Answer(6, "", "workbench: No engine answers.\nStart one.")

    return answer
