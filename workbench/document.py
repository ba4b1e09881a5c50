"""YAML documents, read as data from strangers: size and depth bounded, no aliases, tags or duplicate keys; every value
keeps the line it stands on."""

from __future__ import annotations

import copy
import functools
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from workbench.errors import RecipeError, UsageError

MAX_BYTES = 4 << 20
MAX_DEPTH = 32

Where = tuple[str | int, ...]
"""The way to a value: keys and list positions from the root."""


@dataclass(frozen=True, order=True)
class Problem:
    """One thing that is wrong in a document, at a line (1-based; 0 where it stands in no line)."""

    line: int
    where: str
    message: str

    def __str__(self) -> str:
        line = f"line {self.line}: " if self.line else ""
        return f"{line}{self.where}: {self.message}" if self.where else f"{line}{self.message}"


@dataclass(frozen=True)
class Document:
    """A parsed YAML file: its plain data, and the line of every key and list item."""

    path: Path
    data: dict[str, Any]
    lines: Mapping[Where, int]

    def line(self, where: Sequence[str | int]) -> int:
        """The line of the value at ``where``, or of the nearest thing above it that has one."""
        for end in range(len(where), 0, -1):
            if found := self.lines.get(tuple(where[:end])):
                return found
        return 1


def refuse(path: Path, problems: Sequence[Problem], kind: type[UsageError] = RecipeError) -> None:
    """Raises ``kind`` with all ``problems``, each on a line of its own, if there are any."""
    if problems:
        head = f"{path} is not valid:" if len(problems) == 1 else f"{path} has {len(problems)} problems:"
        error = kind("\n  ".join([head, *map(str, sorted(problems))]))
        error.problems = tuple(sorted(problems))
        raise error


def nearest(word: str, allowed: Sequence[str]) -> str:
    """``did you mean X?`` for the closest spelling among ``allowed``, or nothing."""
    import difflib  # only where something is misspelt

    close = difflib.get_close_matches(word, allowed, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else ""


def read(path: Path) -> Document:
    """The YAML mapping in the file at ``path``.

    Raises UsageError where the file cannot be read, RecipeError where it is not a plain YAML mapping.
    """
    return parse(read_text(path), path)


def read_text(path: Path) -> str:
    """The text in the file at ``path``, its line ends as they are.

    Raises UsageError where the file cannot be read, RecipeError where it is no text or too much of it.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise UsageError(f"There is no file {path}.", "Name a recipe, such as recipes/digits.yaml.") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.", "Name a recipe that you may read.") from None
    return decode(raw, path)


def parse_bytes(raw: bytes, path: Path) -> Document:
    """The YAML mapping in the bytes of a file; ``path`` is for messages only. Raises RecipeError."""
    return parse(decode(raw, path), path)


def decode(raw: bytes, path: Path) -> str:
    """The text that the bytes of a file are; ``path`` is for messages only. Raises RecipeError."""
    if len(raw) > MAX_BYTES:
        raise RecipeError(f"{path} is larger than {MAX_BYTES >> 20} MiB; that is no recipe.")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path} is not UTF-8 text (byte {error.start}).", "Save it as UTF-8.") from None


def parse(text: str, path: Path) -> Document:
    """The YAML mapping in ``text``; ``path`` is for messages only. Raises RecipeError."""
    data, lines = _parsed(text, path)
    return Document(path, copy.deepcopy(data), lines)


@functools.lru_cache(maxsize=8)
def _parsed(text: str, path: Path) -> tuple[dict[str, Any], Mapping[Where, int]]:
    """Remembered, because a run process that was forked from the command reads the recipe that the command has read."""
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    try:
        return _Builder(text, path).document()
    except MarkedYAMLError as error:
        refuse(path, [_marked(error)])
    except (YAMLError, ValueError) as error:
        refuse(path, [Problem(0, "", str(error).splitlines()[0])])
    raise AssertionError


class _Builder:
    """Builds plain data from YAML's events, in one pass: a value's line is at hand, and what is refused is never built.

    A few lines of aliases can expand to gigabytes, a tag can name code.
    """

    def __init__(self, text: str, path: Path) -> None:
        from ruamel.yaml import YAML

        self._path = path
        self._yaml = YAML(typ="safe", pure=True)
        self._events = self._yaml.parse(io.StringIO(text))
        self._lines: dict[Where, int] = {}
        self._depth = 0

    def document(self) -> tuple[dict[str, Any], Mapping[Where, int]]:
        from ruamel.yaml.events import DocumentStartEvent, NodeEvent

        found: list[Any] = []
        for event in self._events:
            if found and isinstance(event, DocumentStartEvent):
                self._refuse(event, "only one document may stand in a file")
            if isinstance(event, NodeEvent):
                found.append(self._value(event, ()))
        if not found or not isinstance(found[0], dict):
            refuse(self._path, [Problem(1, "", "must be a mapping of keys to values")])
        return found[0], self._lines

    def _refuse(self, event: Any, message: str) -> NoReturn:
        refuse(self._path, [Problem(event.start_mark.line + 1, "", message)])
        raise AssertionError

    def _value(self, event: Any, where: Where) -> Any:
        from ruamel.yaml.events import AliasEvent, MappingStartEvent, SequenceStartEvent

        if isinstance(event, AliasEvent) or event.anchor:
            self._refuse(event, "anchors and aliases (& and *) are not allowed; write the value out")
        if event.tag is not None and str(event.tag) not in ("None", "!"):
            self._refuse(event, f"tags ({event.tag}) are not allowed")
        if not isinstance(event, MappingStartEvent | SequenceStartEvent):
            return self._scalar(event)
        self._depth += 1
        if self._depth > MAX_DEPTH:
            self._refuse(event, f"nested more than {MAX_DEPTH} levels deep")
        found: Any = self._mapping(where) if isinstance(event, MappingStartEvent) else self._sequence(where)
        self._depth -= 1
        return found

    def _mapping(self, where: Where) -> dict[str, Any]:
        from ruamel.yaml.events import MappingEndEvent, ScalarEvent

        found: dict[str, Any] = {}
        while not isinstance(event := next(self._events), MappingEndEvent):
            key = str(self._value(event, where)) if isinstance(event, ScalarEvent) else self._bad_key(event, where)
            if key in found:
                self._refuse(event, f"duplicate key {key!r}; it stands in line {self._lines[*where, key]} already")
            self._lines[*where, key] = event.start_mark.line + 1
            found[key] = self._value(next(self._events), (*where, key))
        return found

    def _bad_key(self, event: Any, where: Where) -> NoReturn:
        self._value(event, where)  # what is wrong with it besides comes first
        self._refuse(event, "a key must be a plain word")

    def _sequence(self, where: Where) -> list[Any]:
        from ruamel.yaml.events import SequenceEndEvent

        found: list[Any] = []
        while not isinstance(event := next(self._events), SequenceEndEvent):
            self._lines[*where, len(found)] = event.start_mark.line + 1
            found.append(self._value(event, (*where, len(found))))
        return found

    def _scalar(self, event: Any) -> Any:
        """The value by YAML 1.2's rules; dates, which JSON does not know, stay words."""
        from ruamel.yaml.nodes import ScalarNode

        tag = self._yaml.resolver.resolve(ScalarNode, event.value, event.implicit)
        kind = str(tag).rpartition(":")[2]
        build = _SCALARS.get(kind)
        if build is None:
            return event.value
        return getattr(self._yaml.constructor, build)(ScalarNode(tag, event.value, event.start_mark, event.end_mark))


_SCALARS = {
    "null": "construct_yaml_null",
    "bool": "construct_yaml_bool",
    "int": "construct_yaml_int",
    "float": "construct_yaml_float",
}


def _marked(error: Any) -> Problem:
    mark = error.problem_mark or error.context_mark
    first = str(error.problem or error.context).strip().splitlines()[0]
    return Problem(mark.line + 1 if mark else 0, "", first)


def write(path: Path, data: Mapping[str, Any], heading: str = "") -> None:
    """Writes ``data`` as YAML to ``path`` in the order given, atomically. ``heading`` becomes a comment on top."""
    from workbench.store import write_atomically

    write_atomically(path, render(data, heading).encode())


def render(data: Mapping[str, Any], heading: str = "") -> str:
    """``data`` as YAML text in the order given."""
    from ruamel.yaml import YAML

    yaml = YAML(typ="rt")
    yaml.width = 4096
    yaml.indent(mapping=2, sequence=4, offset=2)
    stream = io.StringIO()
    for line in heading.splitlines():
        stream.write(f"# {line}\n")
    yaml.dump(data, stream)
    return stream.getvalue()
