"""What must not leave a machine, taken out of texts: secrets, the names of machine and user, where things lie."""

from __future__ import annotations

import os
import pwd
import re
import socket
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from workbench.assets import package_folder
from workbench.image import secret_rules

STRUCTURE = frozenset({"event", "step", "steps", "kind", "mode", "series", "status"})
"""Keys whose values are our own words: a user who is called like a step changes none."""

_SHORTEST_NAME = 3
_KEPT, _KEPT_LETTERS = 10_000, 100
"""Texts that are known to be clean: samples have the same few over and over."""
_HOMES = re.compile(r"(?<![\w.~-])/(?:home|Users)/[^/\s\"':,;]+")


class Scrubber:
    """Takes out of texts what is private on this machine. ``removed`` counts what was taken out, by kind."""

    def __init__(self, project: Path, known: str = "") -> None:
        """``known`` is a text whose words stay as they are even where the user or the machine is called so."""
        self.removed: Counter[str] = Counter()
        self._paths = [(_as_path(path), stands) for path, stands in _folders(project)]
        self._clean: set[str] = set()
        words = frozenset(re.findall(r"\w+", known))
        self._names = [(_as_word(name), stands) for name, stands in _names() if name not in words]

    def text(self, text: str, *, names: bool = True) -> str:
        """``text`` without what is private."""
        if text in self._clean:
            return text
        found = self._scrubbed(text, names=names)
        if names and found == text and len(text) <= _KEPT_LETTERS and len(self._clean) < _KEPT:
            self._clean.add(text)
        return found

    def _scrubbed(self, text: str, *, names: bool) -> str:
        for pattern, stands in self._paths:
            text, count = pattern.subn(stands, text)
            self.removed["path"] += count
        text, count = _HOMES.subn("~", text)
        self.removed["path"] += count
        for pattern, stands in self._names if names else ():
            text, count = pattern.subn(stands, text)
            self.removed["name"] += count
        return self._without_secrets(text)

    def value(self, value: Any, *, names: bool = True) -> Any:
        """A JSON value with all its texts scrubbed."""
        match value:
            case str():
                return self.text(value, names=names)
            case list():
                return [self.value(each, names=names) for each in value]
            case dict():
                return {
                    self.text(key, names=False): self.value(each, names=names and key not in STRUCTURE)
                    for key, each in value.items()
                }
        return value

    def _without_secrets(self, text: str) -> str:
        data = text.encode(errors="replace")
        end, parts = 0, []
        for begin, after, kind in sorted(secret_rules.spans(data)):
            if after <= end:
                continue
            parts += [data[end : max(begin, end)], f"[{kind} removed]".encode()]
            end = after
            self.removed["secret"] += 1
        return b"".join([*parts, data[end:]]).decode(errors="replace") if parts else text


def _folders(project: Path) -> list[tuple[str, str]]:
    """Folders and what stands for them, the longest first: one may lie in another."""
    named = [
        (project, "/project"),
        (Path(sys.prefix), "/python"),
        (package_folder("workbench").parent, "/workbench"),
        (Path.home(), "~"),
    ]
    found = {str(path): stands for folder, stands in reversed(named) for path in (folder, folder.resolve())}
    return sorted(((path, stands) for path, stands in found.items() if len(path) > 1), key=lambda each: -len(each[0]))


def _names() -> Iterable[tuple[str, str]]:
    """The names of this machine and of this user; those that every machine has tell nothing."""
    host = socket.gethostname()
    users = [os.environ.get("USER", ""), os.environ.get("LOGNAME", ""), _login()]
    found = dict.fromkeys(users, "user") | dict.fromkeys((host.partition(".")[0], host), "host")
    told = (name for name in found if name not in ("root", "user", "host", "localhost"))
    return [(name, found[name]) for name in sorted(told, key=lambda name: -len(name)) if len(name) >= _SHORTEST_NAME]


def _login() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return ""


def _as_path(path: str) -> re.Pattern[str]:
    """Finds ``path`` where no longer name goes on; one like /root only where a path begins: others end so."""
    begin = r"(?<![\w.~-])" if path.count("/") == 1 else ""
    return re.compile(rf"{begin}{re.escape(path)}(?![\w-]|\.\w)")


def _as_word(name: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![a-z0-9]){re.escape(name)}(?![a-z0-9])", re.IGNORECASE)
