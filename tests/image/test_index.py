"""Where packages come from: what pip is told, uv is told, and the other way round."""

from __future__ import annotations

import pytest

from workbench.image.index import Index, parse_pip, with_uv

LISTING = """\
:env:.find-links='/links'
download.index-url='https://download.example/simple'
global.cert='/ca.pem'
global.extra-index-url='https://one.example/simple\\nfile:///two'
global.find-links='/other'
global.index-url='https://global.example/simple'
global.trusted-host='a.example b.example'
install.index-url='https://install.example/simple'
"""


def test_pip_is_read_as_pip_reads_itself() -> None:
    assert parse_pip(LISTING) == Index(
        url="https://download.example/simple",
        extra=("https://one.example/simple", "file:///two"),
        find_links=("/links",),
        cert="/ca.pem",
        trusted=("a.example", "b.example"),
    )


def test_uv_is_told_what_pip_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "UV_DEFAULT_INDEX",
        "UV_INDEX",
        "UV_INDEX_URL",
        "UV_EXTRA_INDEX_URL",
        "UV_FIND_LINKS",
        "SSL_CERT_FILE",
    ):
        monkeypatch.delenv(name, raising=False)
    told = parse_pip(LISTING).for_uv()
    assert told["UV_DEFAULT_INDEX"] == "https://download.example/simple"
    assert told["UV_INDEX"] == "https://one.example/simple file:///two"
    assert told["UV_FIND_LINKS"] == "/links"
    assert told["SSL_CERT_FILE"] == "/ca.pem"
    assert told["UV_INSECURE_HOST"] == "a.example b.example"


def test_what_the_user_told_uv_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV_INDEX_URL", "https://uv.example/simple")
    monkeypatch.setenv("UV_FIND_LINKS", "/mine")
    told = parse_pip(LISTING).for_uv()
    assert "UV_DEFAULT_INDEX" not in told
    assert "UV_FIND_LINKS" not in told


def test_pip_is_told_what_uv_is_told() -> None:
    uv = {
        "UV_DEFAULT_INDEX": "https://uv.example/simple",
        "UV_INDEX": "named=https://x.example/a https://y.example/b?c=d",
    }
    told = with_uv(Index(url="https://pip.example", find_links=("/links",)), uv).for_pip()
    assert told["PIP_INDEX_URL"] == "https://uv.example/simple"
    assert told["PIP_EXTRA_INDEX_URL"] == "https://x.example/a https://y.example/b?c=d"
    assert told["PIP_FIND_LINKS"] == "/links"


def test_nothing_set_says_nothing() -> None:
    assert parse_pip("").for_pip() == {}
