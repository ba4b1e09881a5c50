"""Programs that steps call: their words, their end."""

from __future__ import annotations

import os

import pytest

from workbench.errors import MachineLacks
from workbench.image import tools


@pytest.mark.parametrize(
    "text",
    [
        "Err:1 https://user:secret@mirror.internal.example/debian bookworm InRelease",
        "Looking in indexes: https://pypi.internal.example/simple",
        "Could not resolve 'mirror.internal.example'",
        "404  Not Found [IP: 192.0.2.7 443]",
        "error sending request for url (http://192.0.2.7:8080/simple/numpy/)",
    ],
)
def test_no_address_stays_in_what_is_kept(text: str) -> None:
    kept = tools.redacted(text)
    assert "internal.example" not in kept
    assert "secret" not in kept
    assert "192.0.2.7" not in kept


def test_the_rest_of_a_message_stays() -> None:
    text = "E: Version '3.0.17-1' for 'libssl3' was not found in numpy-2.4.6.dist-info/METADATA"
    assert tools.redacted(text) == text


def test_a_missing_program_is_named_with_its_cure() -> None:
    with pytest.raises(MachineLacks) as caught:
        tools.found("no-such-program-at-all", "Install it.")
    assert "no-such-program-at-all" in caught.value.message
    assert caught.value.cure == "Install it."


def test_errors_of_a_program_come_back_redacted(capfd: pytest.CaptureFixture[str]) -> None:
    done = tools.run(["sh", "-c", "echo at https://h.example/x >&2; exit 3"], os.environ)
    assert done.returncode == 3
    assert done.stderr.strip() == "at <address>"
    assert "h.example" not in capfd.readouterr().err
