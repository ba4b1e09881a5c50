"""Where the words of a recipe, a Dockerfile and a difference are, line by line: what code is painted by."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Literal

Kind = Literal["comment", "key", "string", "number", "word", "added", "removed", "head"]
Span = tuple[int, int, Kind]
"""From letter, to letter, what it is."""
Highlight = Callable[[str], Iterator[Span]]

_YAML = re.compile(
    r"""(?P<string>"(?:[^"\\]|\\.)*"|'(?:[^']|'')*')"""
    r"""|(?P<comment>(?:(?<=\s)|^)\#.*)"""
    r"""|(?P<key>[\w./-]+(?=\s*:(?:\s|$)))"""
    r"""|(?P<number>(?<![\w./-])[+-]?\d+(?:\.\d+)?(?:e[+-]?\d+)?\s?(?:%|[KMG]iB|[munµ]?s|/s)?(?![\w./-]))"""
    r"""|(?P<word>(?<![\w./-])(?:true|false|null|~)(?![\w./-]))"""
)
_INSTRUCTION = re.compile(r"\s*([A-Z]+)(?=\s)(?:.*?\s(AS)\s)?")
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')
_OPTION = re.compile(r"(?<=\s)--[\w-]+(?==)")


def yaml_spans(line: str) -> Iterator[Span]:
    """Keys, strings, numbers with their units, and comments of a line of YAML."""
    for match in _YAML.finditer(line):
        kind: Kind = match.lastgroup  # type: ignore[assignment]
        yield match.start(), match.end(), kind


def dockerfile_spans(line: str) -> Iterator[Span]:
    """Instruction, options, strings and comment of a line of a Dockerfile."""
    if line.lstrip().startswith("#"):
        yield 0, len(line), "comment"
        return
    if (match := _INSTRUCTION.match(line)) is not None and not line[:1].isspace():
        for group in (1, 2):
            if match[group]:
                yield match.start(group), match.end(group), "key"
    for match in _OPTION.finditer(line):
        yield match.start(), match.end(), "word"
    for match in _QUOTED.finditer(line):
        yield match.start(), match.end(), "string"


_DIFF: Mapping[str, Kind] = {"+++": "head", "---": "head", "@@": "head", "+": "added", "-": "removed"}


def diff_spans(line: str) -> Iterator[Span]:
    """What a line of a unified difference says."""
    for begin, kind in _DIFF.items():
        if line.startswith(begin):
            yield 0, len(line), kind
            return
