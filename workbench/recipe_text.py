"""The text of a recipe from the choices that make it: above each setting, why it is as it is."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from itertools import groupby
from json import dumps
from pathlib import Path

from workbench import document
from workbench.advise import Choice
from workbench.errors import UsageError
from workbench.schema import FORMAT

_WIDTH = 70


def recipe_text(choices: Sequence[Choice], hints: Mapping[str, Sequence[str]], model: str, path: str) -> str:
    """The recipe for the file ``model``, to lie at ``path`` in the project: a section for each first part of a name.

    ``hints`` are comments at the end of a section.
    """
    lines = [
        *_comment(f"From {model} to a pushed image; yours to change.", ""),
        *_comment(f"Carry it out: workbench run {path}", ""),
        *_comment("All keys there are: workbench schema", ""),
        f"workbench: {FORMAT}",
    ]
    for section, grouped in groupby(choices, lambda choice: choice.what.partition(".")[0]):
        found = list(grouped)
        whole = found[0].what == section
        indent = "" if whole else "  "
        lines += [*([""] if found[0].why or not whole else []), *([] if whole else [f"{section}:"])]
        for choice in found:
            key = choice.what.partition(".")[2] or section
            lines += [*_comment(choice.why, indent), f"{indent}{key}: {choice.value}"]
        for hint in hints.get(section, ()):
            lines += _comment(hint, indent)
    return "\n".join(lines) + "\n"


def _comment(why: str, indent: str) -> list[str]:
    """The text as comments; a line of it that is indented stays as it is."""
    lines = []
    for line in map(_plain, filter(None, why.split("\n"))):
        keep = line.startswith(" ")
        lines += [line] if keep else textwrap.wrap(line, _WIDTH - len(indent) - 2, break_on_hyphens=False)
    return [f"{indent}# {line}" for line in lines]


def _plain(text: str) -> str:
    """Text from a model or a file name, in a line and without what a terminal would obey."""
    return "".join(each if each.isprintable() else "?" for each in text)


def yaml_value(text: str) -> str:
    """The text as a YAML value: bare where that means the same."""
    try:
        bare = document.parse(f"value: {text}", Path("value")).data == {"value": text}
    except UsageError:
        bare = False
    return text if bare else dumps(text, ensure_ascii=False)
