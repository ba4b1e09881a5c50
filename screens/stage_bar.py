"""The line of a workspace that names its stages, how each stands, and which is on the screen."""

from __future__ import annotations

from textual.content import Content
from textual.widgets import Static

from screens.blocks import Tone
from screens.stage import STAGES, mark
from screens.view import RunView

TONES: dict[Tone, str] = {
    "good": "$text-success",
    "bad": "$text-error",
    "warn": "$text-warning",
    "dim": "$text-muted",
    "strong": "$text-accent",
    "": "",
}


def stages_line(view: RunView | None, current: str, narrow: bool = False) -> Content:
    """``1 Model ✓  2 Compress ●  …``, the one on the screen marked."""
    parts: list[Content] = []
    for number, kind in enumerate(STAGES, 1):
        glyph, tone = mark(kind, view)
        name = Content.styled(
            f"{' ' if parts else ''}{number} {kind.title}", "$text-primary bold reverse" if kind.id == current else ""
        )
        parts.append(
            Content.assemble(name, Content.styled(f"{'' if narrow else ' '}{glyph or ' '}", TONES[tone])).stylize(
                f"@click=screen.stage('{kind.id}')"
            )
        )
    return Content("").join(parts)


class StageBar(Static):
    """Names the stages; a click goes to one."""

    DEFAULT_CSS = """
    StageBar { height: 1; padding: 0; link-style: none; link-color: $foreground; link-background: initial; }
    """

    def show(self, view: RunView | None, current: str) -> None:
        """Shows how the stages of a run stand."""
        self.update(stages_line(view, current, self.app.size.width < 90), layout=False)
