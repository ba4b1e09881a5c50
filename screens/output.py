"""Where text goes: whether a person reads there, whether colours are wanted, and writing that survives odd readers."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, TextIO

from screens.blocks import Block, plain

if TYPE_CHECKING:
    from rich.console import Console


def at_terminal(file: TextIO) -> bool:
    """Whether ``file`` is a terminal that can be painted on."""
    utf8 = (getattr(file, "encoding", "") or "").lower().replace("-", "") == "utf8"
    return utf8 and file.isatty() and os.environ.get("TERM") != "dumb"


def may_move(file: TextIO) -> bool:
    """Whether ``file`` takes colours and moving displays: a terminal, and neither NO_COLOR nor CI is set."""
    return at_terminal(file) and not (os.environ.get("NO_COLOR") or os.environ.get("CI"))


def console(file: TextIO) -> Console:
    """A rich console on ``file`` that writes ANSI sequences only where :func:`may_move`."""
    from rich.console import Console

    moving = may_move(file)
    return Console(
        file=file,
        force_terminal=moving,
        force_interactive=moving,
        color_system="auto" if moving else None,
        legacy_windows=False,
        highlight=False,
        markup=False,
        emoji=False,
    )


def say(text: str, file: TextIO) -> None:
    """Writes ``text`` and a newline at once. A reader that is gone is no error; letters it cannot take become ``?``."""
    try:
        encoding = getattr(file, "encoding", None) or "utf-8"
        file.write(text.encode(encoding, "replace").decode(encoding) + "\n")
        file.flush()
    except BrokenPipeError:
        _leave(file)


def show(blocks: Iterable[Block], file: TextIO | None = None) -> None:
    """Paints ``blocks`` for whoever reads ``file`` (stdout): wrapped to a terminal, a line a row in a pipe."""
    file = file or sys.stdout
    blocks = list(blocks)
    if not blocks:
        return
    if not at_terminal(file):
        say("\n".join(plain(blocks)), file)
        return
    from screens.paint import paint

    paint(blocks, console(file))


def _leave(file: TextIO) -> None:
    """Points ``file`` at nothing, so that the interpreter does not stumble over the closed pipe when it ends."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, file.fileno())
    finally:
        os.close(nothing)
