"""The app in a real browser: started as a user starts it, seen, driven by a key, and gone at the end."""

from __future__ import annotations

import asyncio
import shutil
import signal
from pathlib import Path

import browser
import psutil
import pytest
from served import apps_of, served
from yarl import URL

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(shutil.which(browser.PROGRAM) is None, reason="needs chromium (apt-get install chromium)"),
]


def test_the_app_is_there_in_a_browser_takes_keys_and_fetches_nothing_from_elsewhere(
    project: Path, tmp_path: Path
) -> None:
    with served(project) as (server, address):
        asyncio.run(asyncio.wait_for(_look(address, tmp_path / "home.png"), 300))
        apps = apps_of(server)
        server.send_signal(signal.SIGINT)

        assert server.wait(60) == 0
        assert psutil.wait_procs(apps, timeout=60)[1] == []


async def _look(address: str, picture: Path) -> None:
    async with browser.tab() as tab:
        await tab.open(address)
        await tab.until(lambda: b"never run" in tab.received)
        assert b"This machine" in tab.received

        await tab.click(600, 400)
        assert b"every key of this screen" not in tab.received
        await tab.type("?")
        await tab.until(lambda: b"every key of this screen" in tab.received)

        own = URL(address)
        assert {(URL(each).host, URL(each).port) for each in tab.requests} == {(own.host, own.port)}
        assert any(each.endswith(".ttf") for each in tab.requests), "its own letters"
        assert tab.errors == []
        # Letters in several colours, smoothed, on several grounds; a page that stays empty has a handful of colours.
        colours, most = 0, 1.0
        while colours < 100 or most > 0.9:
            colours, most = await tab.screenshot(picture)
        assert picture.stat().st_size > 10_000

        await tab.type("q")  # leaves the help
        await tab.type("q")
        while "-closed" not in await tab.evaluate("document.body.className"):
            pass
        assert await tab.evaluate("getComputedStyle(document.querySelector('.ended')).visibility") == "visible"
        again = await tab.evaluate("document.querySelector('.ended a').href")
        assert again == address
