"""The README's pictures: of every screen, made from the shipped recording, and fetching nothing."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from screenshots import pictures
from support import ROOT

from screens.stage import STAGES


@pytest.mark.integration
def test_every_screen_has_a_picture_and_the_readme_shows_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    made: dict[str, str] = {}
    pictures(tmp_path, made.__setitem__)
    shown = re.findall(r"\]\(assets/screens/([a-z]+)\.svg\)", (ROOT / "README.md").read_text())
    assert set(shown) == set(made) == {"home", "new", "live", *(kind.id for kind in STAGES)}
    for name, picture in made.items():
        assert (ROOT / "assets/screens" / f"{name}.svg").exists()
        assert re.findall(r"https?://[^\"' )]+", picture.replace("http://www.w3.org/2000/svg", "")) == []
        assert str(tmp_path) not in picture
        assert name in ("home", "new") or "RECORDING" in picture
