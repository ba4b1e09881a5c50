"""The app in a browser, seen from its socket: who may open it, what the page may do, and that nothing stays behind."""

from __future__ import annotations

import asyncio
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import aiohttp
import psutil
import pytest
from served import apps_of, served
from support import workbench
from yarl import URL

Talk = Callable[[aiohttp.ClientSession, URL], Awaitable[None]]


def talk(address: str, flow: Talk) -> None:
    """Runs ``flow`` with a client of the server."""

    async def talked() -> None:
        async with aiohttp.ClientSession() as client, asyncio.timeout(120):
            await flow(client, URL(address, encoded=True))

    asyncio.run(talked())


async def home_of(socket: aiohttp.ClientWebSocketResponse) -> None:
    """Waits until the app has painted its first screen."""
    shown = b""
    while b"Recipes" not in shown:
        shown += await socket.receive_bytes()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "recipes").mkdir()
    return tmp_path


def test_only_its_own_page_opens_the_app(project: Path) -> None:
    with served(project) as (server, address):

        async def flow(client: aiohttp.ClientSession, url: URL) -> None:
            own = str(url.origin())
            refused: list[tuple[URL, dict[str, str], int]] = [
                (url / "ws", {"Origin": "http://evil.example"}, 403),
                (url / "ws", {"Origin": "null"}, 403),  # a page in a sandbox, or from a file
                (url / "ws", {"Origin": f"{own}1"}, 403),  # another server of this machine
                (
                    url / "ws",
                    {"Host": "evil.example", "Origin": "http://evil.example"},
                    403,
                ),  # a name made to point here
                (url / "ws", {"Host": f"evil.example:{url.port}"}, 403),
                (url, {"Host": f"127.0.0.1.evil.example:{url.port}"}, 403),
                (url.origin() / "ws", {"Origin": own}, 404),  # without the secret
                (url.origin() / "guessed-wrongly/ws", {"Origin": own}, 404),
                (url.origin() / "", {}, 404),
                (url.origin() / "download/guessed", {}, 404),
            ]
            for asked, headers, status in refused:
                async with client.get(
                    asked, headers=headers | {"Connection": "Upgrade", "Upgrade": "websocket"}
                ) as answer:
                    assert (asked, headers, answer.status) == (asked, headers, status)
                    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
            assert apps_of(server) == []
            async with client.ws_connect(url / "ws", headers={"Origin": own}) as opened:
                await home_of(opened)

        talk(address, flow)


def test_it_listens_on_this_machine_only_and_at_another_secret_address_each_time(project: Path) -> None:
    with served(project) as (server, address), served(project) as (_, other):
        listening = [each for each in psutil.Process(server.pid).net_connections() if each.status == "LISTEN"]

        assert {each.laddr.ip for each in listening} == {"127.0.0.1"}
        assert len(URL(address).path.strip("/")) >= 32
        assert URL(address).path != URL(other).path


def test_the_page_may_load_nothing_from_elsewhere_and_be_framed_by_nobody(project: Path) -> None:
    with served(project) as (_, address):

        async def flow(client: aiohttp.ClientSession, url: URL) -> None:
            async with client.get(url) as answer:
                page, headers = await answer.text(), answer.headers
            policy = headers["Content-Security-Policy"]
            assert "default-src 'none'" in policy
            assert "frame-ancestors 'none'" in policy
            assert "script-src 'self';" in policy
            assert headers["Referrer-Policy"] == "no-referrer", "the address is the secret"
            assert set(re.findall(r"\w+://[^/\"]+", page)) == {f"ws://{url.host}:{url.port}"}
            for asset in re.findall(r"static/[\w./-]+", page):
                async with client.get(url / asset) as answer:
                    assert answer.status == 200
                    assert answer.headers["X-Content-Type-Options"] == "nosniff"

        talk(address, flow)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_it_ends_at_once_with_an_open_page_and_leaves_nothing(project: Path, number: int) -> None:
    with served(project) as (server, address):

        async def flow(client: aiohttp.ClientSession, url: URL) -> None:
            async with client.ws_connect(url / "ws") as opened:
                await home_of(opened)
                apps = apps_of(server)
                assert len(apps) >= 1
                server.send_signal(number)
                async for _ in opened:
                    pass
                assert await asyncio.to_thread(server.wait, 30) == 0
                assert psutil.wait_procs(apps, timeout=30)[1] == []

        talk(address, flow)
        assert server.stderr is not None
        assert "Traceback" not in server.stderr.read()


def test_a_page_that_is_closed_ends_its_app_and_no_other(project: Path) -> None:
    with served(project) as (server, address):

        async def flow(client: aiohttp.ClientSession, url: URL) -> None:
            async with client.ws_connect(url / "ws") as stays:
                await home_of(stays)
                first = apps_of(server)
                async with client.ws_connect(url / "ws") as goes:
                    await home_of(goes)
                    second = [each for each in apps_of(server) if each not in first]
                assert await asyncio.to_thread(lambda: psutil.wait_procs(second, timeout=60)[1]) == []
                assert first[0].is_running()

        talk(address, flow)


def test_an_app_whose_server_was_killed_ends_too(project: Path) -> None:
    with served(project) as (server, address):

        async def flow(client: aiohttp.ClientSession, url: URL) -> None:
            async with client.ws_connect(url / "ws") as opened:
                await home_of(opened)
                apps = apps_of(server)
                server.kill()
                assert await asyncio.to_thread(lambda: psutil.wait_procs(apps, timeout=60)[1]) == []

        talk(address, flow)


def test_a_picture_of_the_screen_is_a_download(project: Path) -> None:
    with served(project) as (_, address):

        async def flow(client: aiohttp.ClientSession, url: URL) -> None:
            async with client.ws_connect(url / "ws") as opened:
                await home_of(opened)
                await opened.send_json(["stdin", "\x1bOQ"])  # f2
                async for message in opened:
                    if message.type is aiohttp.WSMsgType.TEXT:
                        break
                kind, key = message.json()
                assert kind == "deliver_file_start"
                # where textual.js asks for it
                async with client.get(url.origin() / "download" / key) as answer:
                    assert ".svg" in answer.headers["Content-Disposition"]
                    assert answer.headers["Content-Security-Policy"].endswith("; sandbox")
                    assert (await answer.text()).startswith("<svg")

        talk(address, flow)


def test_a_port_that_is_taken_is_told(project: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = workbench(project, "--serve", "--port", str(port))

    assert done.returncode == 2
    assert f"Port {port} of 127.0.0.1 cannot be had: Address already in use.\n" in done.stderr
    assert "workbench --serve --port 0" in done.stderr


def test_settings_that_are_none_are_told_before_a_page_stays_empty(project: Path) -> None:
    (project / "config/workbench").mkdir(parents=True)
    (project / "config/workbench/config.toml").write_text('theme = "pink"')
    done = workbench(project, "--serve", "--port", "0", XDG_CONFIG_HOME=str(project / "config"))

    assert done.returncode == 2
    assert "there is no theme 'pink'" in done.stderr


@pytest.mark.parametrize("package", ["textual_serve", "aiohttp"])
def test_without_the_package_it_says_how_to_get_it(project: Path, package: str) -> None:
    script = f"""
import sys
sys.modules["{package}"] = None
sys.argv[1:] = ["--serve"]
from workbench.__main__ import main
main()
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=project, capture_output=True, text=True, timeout=60)

    assert done.returncode == 6
    assert "needs textual-serve, which is not installed" in done.stderr
    assert f"{sys.executable} -m pip install 'textual-serve>=1.1.3'" in done.stderr


@pytest.mark.parametrize(
    ("words", "told"),
    [(["--port", "9000"], "--serve --port 9000"), (["--serve", "runs"], "without a command")],
)
def test_its_options_go_together_and_without_a_command(project: Path, words: list[str], told: str) -> None:
    done = workbench(project, *words)

    assert done.returncode == 2
    assert told in done.stderr
