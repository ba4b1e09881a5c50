"""The line of keys: what can be pressed now, and a click presses it."""

from __future__ import annotations

import asyncio

from textual.app import App, ComposeResult
from textual.binding import Binding
from textual.widgets import Input

from screens.key_bar import KeyBar

_GROUP = Binding.Group("Run")


class Keys(App[None]):
    """An app that notes what is pressed."""

    BINDINGS = [
        Binding("a", "note('a')", "Add"),
        Binding("r", "note('r')", "Run", group=_GROUP),
        Binding("c", "note('c')", "Cancel", group=_GROUP),
        Binding("h", "note('h')", "Hidden", show=False),
    ]

    def __init__(self) -> None:
        super().__init__()
        self.noted: list[str] = []

    def compose(self) -> ComposeResult:
        yield Input()
        yield KeyBar()

    def action_note(self, key: str) -> None:
        self.noted.append(key)


def line(app: App[None]) -> str:
    return app.query_one(KeyBar).render().plain


def test_it_tells_the_keys_those_of_a_group_once_and_the_palette_at_the_right() -> None:
    async def work() -> None:
        async with Keys().run_test(size=(60, 5)) as pilot:
            pilot.app.set_focus(None)
            await pilot.pause()
            told = line(pilot.app)
            assert told.startswith(" a Add  r c Run ")
            assert told.endswith(" ^p palette")
            assert len(told) == 59
            assert "Hidden" not in told

    asyncio.run(work())


def test_a_narrow_line_has_those_that_fit() -> None:
    async def work() -> None:
        async with Keys().run_test(size=(24, 5)) as pilot:
            pilot.app.set_focus(None)
            await pilot.pause()
            assert line(pilot.app).split() == ["a", "Add", "^p", "palette"]

    asyncio.run(work())


def test_a_click_presses_the_key_it_is_on() -> None:
    async def work() -> None:
        app = Keys()
        async with app.run_test(size=(60, 5)) as pilot:
            app.set_focus(None)
            await pilot.pause()
            told = line(app)
            for at in (told.index("Add"), told.index("r c"), told.index("c Run"), told.index("Run"), len(told) // 2):
                await pilot.click(KeyBar, offset=(at, 0))
            await pilot.pause()
            assert app.noted == ["a", "r", "c"]

    asyncio.run(work())
