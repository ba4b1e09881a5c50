"""The keys of the app: all of them by the id that a user's settings may give another key."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterator

from textual.binding import Binding
from textual.dom import DOMNode

import screens

_GLYPHS = {
    "question_mark": "?",
    "left_square_bracket": "[",
    "right_square_bracket": "]",
    "slash": "/",
    "less_than_sign": "<",
    "greater_than_sign": ">",
    "space": "space",
}


def shown_key(binding: Binding) -> str:
    """A binding's keys as they are on a keyboard."""
    return " ".join(_GLYPHS.get(key.strip(), key.strip()) for key in binding.key.split(","))


def all_bindings() -> Iterator[Binding]:
    """Every binding of ours, by the modules' and classes' own order. For documentation: it loads every module."""
    seen: set[str] = set()
    for module in pkgutil.walk_packages(screens.__path__, "screens."):
        for _, found in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
            if found.__module__ != module.name or not issubclass(found, DOMNode):
                continue
            for binding in vars(found).get("BINDINGS", ()):
                if isinstance(binding, Binding) and binding.id and binding.id not in seen:
                    seen.add(binding.id)
                    yield binding


def key_table() -> str:
    """All keys as a Markdown table."""
    rows = [f"| `{shown_key(each)}` | {each.tooltip or each.description} | `{each.id}` |" for each in all_bindings()]
    return "\n".join(["| key | does | id |", "| --- | --- | --- |", *rows])
