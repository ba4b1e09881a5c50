"""What is on the app's screen, as text and as a digest of text with styles: for comparison with what is kept."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

from app_support import quiet

GOLDEN = Path(__file__).parent / "golden"
SIZES = ((80, 24), (120, 40), (200, 50))
THEMES = ("dark", "light", "high-contrast")


def shown(app: Any) -> str:
    """The text on the screen, a line a line."""
    return "\n".join(strip.text.rstrip() for strip in app.screen._compositor.render_strips())


def styled(app: Any) -> str:
    """A digest of the text on the screen with its colours and styles."""
    painted = hashlib.sha256()
    for strip in app.screen._compositor.render_strips():
        for segment in strip:
            painted.update(f"{segment.text}\0{segment.style}\0".encode())
    return painted.hexdigest()[:16]


def check(name: str, found: str) -> None:
    """Compares ``found`` with what is kept as ``name``; UPDATE_GOLDEN=1 keeps it."""
    path = GOLDEN / f"{name}.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(found)
    kept = path.read_text() if path.exists() else ""
    assert found == kept, f"{path.name} is another than before; look at it, then UPDATE_GOLDEN=1"


async def in_all_themes(pilot: Any) -> str:
    """What is on the screen, and a digest of how it looks in each theme."""
    digests = []
    for theme in THEMES:
        pilot.app.theme = theme
        await quiet(pilot)
        digests.append(f"{theme}: {styled(pilot.app)}")
    return "\n".join([shown(pilot.app), "", *digests, ""])
