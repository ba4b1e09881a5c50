"""``workbench validate``: the problems of recipes, each with its line, for people and for editors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from workbench import document, recipe
from workbench.document import Problem
from workbench.errors import UsageError


def validated(path: Path, text: bytes | None = None) -> dict[str, Any]:
    """``recipe``, ``valid`` and ``problems`` (``line``, 0 where there is none, ``where``, ``message``) of one recipe.

    With ``text`` that is checked as if it stood at ``path``, which is neither read nor written.
    """
    try:
        recipe.check(document.read(path) if text is None else document.parse_bytes(text, path), path)
    except UsageError as error:
        found = error.problems or (Problem(0, "", str(error)),)
        problems = [{"line": each.line, "where": each.where, "message": each.message} for each in found]
        return {"recipe": str(path), "valid": False, "problems": problems, "error": str(error)}
    return {"recipe": str(path), "valid": True, "problems": [], "error": ""}
