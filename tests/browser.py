"""A real browser (Chromium without a window), driven over the DevTools protocol. It never waits for time to pass."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp

PROGRAM = "chromium"
FLAGS = (
    "--headless",
    "--no-sandbox",  # it is started by root in a container, and sees pages of this test only
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--remote-debugging-port=0",
)

_COLOURS = """
new Promise((done, failed) => {
  const image = new Image();
  image.onerror = failed;
  image.onload = () => {
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [image.width, image.height];
    const context = canvas.getContext("2d");
    context.drawImage(image, 0, 0);
    const found = new Map();
    for (const pixel of new Uint32Array(context.getImageData(0, 0, image.width, image.height).data.buffer))
      found.set(pixel, (found.get(pixel) || 0) + 1);
    done([found.size, Math.max(...found.values()) / (image.width * image.height)]);
  };
  image.src = "data:image/png;base64,PNG";
})
"""


class Tab:
    """A tab: what it asked for (``requests``), what its websockets received, and what went wrong in it."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, session: str | None = None) -> None:
        self._socket = socket
        self._session = session
        self._number = 0
        self.requests: list[str] = []
        self.received = b""
        self.errors: list[str] = []

    async def command(self, method: str, **params: Any) -> dict[str, Any]:
        """Says a command of the protocol; its result. Raises RuntimeError where it fails."""
        self._number += 1
        number = self._number
        to = {"sessionId": self._session} if self._session else {}
        await self._socket.send_json({"id": number, "method": method, "params": params, **to})
        while True:
            message = await self._next()
            if message.get("id") == number and message.get("sessionId") == self._session:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']}")
                found: dict[str, Any] = message["result"]
                return found

    async def _next(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(await self._socket.receive_str())
        params = message.get("params", {})
        match message.get("method"):
            case "Network.requestWillBeSent":
                self.requests.append(params["request"]["url"])
            case "Network.webSocketCreated":
                self.requests.append(params["url"])
            case "Network.webSocketFrameReceived":
                frame = params["response"]
                data = frame["payloadData"]
                self.received += base64.b64decode(data) if frame["opcode"] == 2 else data.encode()
            case "Runtime.exceptionThrown":
                self.errors.append(json.dumps(params["exceptionDetails"]))
            case "Log.entryAdded" if params["entry"]["level"] == "error":
                self.errors.append(str(params["entry"]["text"]))
        return message

    async def until(self, what: Callable[[], bool], seconds: float = 120.0) -> None:
        """Takes in what comes until ``what`` is so. Raises TimeoutError."""
        async with asyncio.timeout(seconds):
            while not what():
                await self._next()

    async def open(self, url: str) -> None:
        for domain in ("Page", "Network", "Runtime", "Log"):
            await self.command(f"{domain}.enable")
        await self.command("Page.navigate", url=url)

    async def evaluate(self, script: str) -> Any:
        """What a script in the tab comes to."""
        found = await self.command("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in found:
            raise RuntimeError(json.dumps(found["exceptionDetails"]))
        return found["result"].get("value")

    async def click(self, x: int, y: int) -> None:
        for kind in ("mousePressed", "mouseReleased"):
            await self.command("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    async def type(self, letter: str) -> None:
        """Presses the key of a letter."""
        await self.command("Input.dispatchKeyEvent", type="keyDown", text=letter, key=letter, unmodifiedText=letter)
        await self.command("Input.dispatchKeyEvent", type="keyUp", key=letter)

    async def screenshot(self, path: Path) -> tuple[int, float]:
        """Keeps a picture of the tab; how many colours it has, and which part of it has the most frequent one."""
        png = (await self.command("Page.captureScreenshot", format="png"))["data"]
        path.write_bytes(base64.b64decode(png))
        colours, share = await self.evaluate(_COLOURS.replace("PNG", png))
        return colours, share


@contextlib.asynccontextmanager
async def tab(size: tuple[int, int] = (1200, 800)) -> AsyncIterator[Tab]:
    """A tab of a browser of its own."""
    home = Path(tempfile.mkdtemp(prefix="workbench-browser-"))
    words = [PROGRAM, *FLAGS, f"--user-data-dir={home}", f"--window-size={size[0]},{size[1]}", "about:blank"]
    browser = subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, process_group=0)
    try:
        assert browser.stderr is not None
        said = []
        for line in browser.stderr:
            said.append(line)
            if line.startswith("DevTools listening on "):
                break
        else:
            raise RuntimeError("".join(said))
        async with aiohttp.ClientSession() as client, client.ws_connect(line.split()[-1], max_msg_size=0) as socket:
            whole = Tab(socket)
            target = (await whole.command("Target.createTarget", url="about:blank"))["targetId"]
            session = (await whole.command("Target.attachToTarget", targetId=target, flatten=True))["sessionId"]
            yield Tab(socket, session)
    finally:
        browser.terminate()
        browser.communicate(timeout=60)
        shutil.rmtree(home, ignore_errors=True)
