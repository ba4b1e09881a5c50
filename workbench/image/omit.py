"""What is left out of the image: ``assets/image/omit.txt``, read and applied.

A line is a pattern for paths below the image's root; ``*`` stays within one folder, ``**`` crosses folders, a pattern
that names a folder takes all below it, ``!`` in front keeps what an earlier line left out (the last line that matches
decides). ``distribution NAME`` leaves out a whole Python distribution that another one requires and the server never
loads.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass

from workbench.assets import asset
from workbench.errors import MachineLacks

_TOKENS = re.compile(r"\*\*/|\*\*|\*|[^*]+")
_MEANING = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*"}


def _compiled(pattern: str) -> re.Pattern[str]:
    parts = (_MEANING.get(token) or re.escape(token) for token in _TOKENS.findall(pattern.rstrip("/")))
    return re.compile("".join(parts) + "(?:/.*)?")


@dataclass(frozen=True)
class Omitted:
    """The list: patterns in order (True: leave out), and distributions by normalised name."""

    patterns: tuple[tuple[re.Pattern[str], bool], ...]
    distributions: frozenset[str]

    @classmethod
    def parse(cls, text: str) -> Omitted:
        """The list in ``text``."""
        patterns: list[tuple[re.Pattern[str], bool]] = []
        distributions: set[str] = set()
        for line in text.splitlines():
            rule = line.partition("#")[0].strip()
            if rule.startswith("distribution "):
                distributions.add(rule.split()[1])
            elif rule:
                patterns.append((_compiled(rule.lstrip("!")), not rule.startswith("!")))
        return cls(tuple(patterns), frozenset(distributions))

    def leaves_out(self, path: str) -> bool:
        """Whether the image does without ``path`` (relative to its root)."""
        return next((out for pattern, out in reversed(self.patterns) if pattern.fullmatch(path)), False)


@functools.cache
def shipped() -> Omitted:
    """The shipped list. Raises MachineLacks where the installation is not whole."""
    path = asset("image/omit.txt")
    try:
        return Omitted.parse(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise MachineLacks(f"This installation of workbench lacks {path}.", "Install workbench again.") from error
