"""YAML documents, read as data from strangers: size and depth bounded, no aliases, tags or duplicate keys; every value
keeps the line it stands on."""

from __future__ import annotations

import difflib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
        raise kind("\n  ".join([head, *map(str, sorted(problems))]))


def nearest(word: str, allowed: Sequence[str]) -> str:
    """``did you mean X?`` for the closest spelling among ``allowed``, or nothing."""
    close = difflib.get_close_matches(word, allowed, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else ""


def read(path: Path) -> Document:
    """The YAML mapping in the file at ``path``.

    Raises UsageError where the file cannot be read, RecipeError where it is not a plain YAML mapping.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise UsageError(f"There is no file {path}.", "Name a recipe, such as recipes/digits.yaml.") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.") from None
    if len(raw) > MAX_BYTES:
        raise RecipeError(f"{path} is larger than {MAX_BYTES >> 20} MiB; that is no recipe.")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path} is not UTF-8 text (byte {error.start}).", "Save it as UTF-8.") from None
    return parse(text, path)


def parse(text: str, path: Path) -> Document:
    """The YAML mapping in ``text``; ``path`` is for messages only. Raises RecipeError."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    _check_events(text, path)
    yaml = YAML(typ="rt")
    try:
        loaded = yaml.load(text)
    except MarkedYAMLError as error:
        refuse(path, [_marked(error)])
    except (YAMLError, ValueError) as error:
        refuse(path, [Problem(0, "", str(error).splitlines()[0])])
    if not isinstance(loaded, dict):
        refuse(path, [Problem(1, "", "must be a mapping of keys to values")])
    lines: dict[Where, int] = {}
    data = _plain(loaded, (), lines)
    return Document(path, data, lines)


def _check_events(text: str, path: Path) -> None:
    """Refuses what makes YAML dangerous before anything is built: a few lines of aliases can expand to gigabytes."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError
    from ruamel.yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent, NodeEvent

    depth = 0
    try:
        for event in YAML(typ="rt").parse(io.StringIO(text)):
            line = event.start_mark.line + 1
            if isinstance(event, AliasEvent) or (isinstance(event, NodeEvent) and event.anchor):
                refuse(path, [Problem(line, "", "anchors and aliases (& and *) are not allowed; write the value out")])
            tag = getattr(event, "tag", None)
            if tag is not None and str(tag) not in ("None", "!"):
                refuse(path, [Problem(line, "", f"tags ({tag}) are not allowed")])
            depth += isinstance(event, CollectionStartEvent) - isinstance(event, CollectionEndEvent)
            if depth > MAX_DEPTH:
                refuse(path, [Problem(line, "", f"nested more than {MAX_DEPTH} levels deep")])
    except MarkedYAMLError as error:
        refuse(path, [_marked(error)])


def _marked(error: Any) -> Problem:
    mark = error.problem_mark or error.context_mark
    first = str(error.problem or error.context).strip().splitlines()[0]
    return Problem(mark.line + 1 if mark else 0, "", first)


def _plain(node: Any, where: Where, lines: dict[Where, int]) -> Any:
    """``node`` without ruamel's types; the line of every key and item goes to ``lines``."""
    from ruamel.yaml.comments import CommentedMap, CommentedSeq

    if isinstance(node, CommentedMap):
        for key in node:
            lines[(*where, str(key))] = node.lc.key(key)[0] + 1
        return {str(key): _plain(value, (*where, str(key)), lines) for key, value in node.items()}
    if isinstance(node, CommentedSeq):
        for index in range(len(node)):
            lines[(*where, index)] = node.lc.item(index)[0] + 1
        return [_plain(value, (*where, index), lines) for index, value in enumerate(node)]
    for plain in (bool, int, float, str):
        if isinstance(node, plain):
            return plain(node)
    return node if node is None else str(node)


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


def edit(path: Path, where: Sequence[str], value: Any) -> None:
    """Sets the value at ``where`` in the YAML file at ``path``; comments, order and all the rest stay as they are."""
    from ruamel.yaml import YAML

    from workbench.store import write_atomically

    yaml = YAML(typ="rt")
    yaml.preserve_quotes = True
    yaml.brace_single_entry_mapping_in_flow_sequence = True
    yaml.width = 4096
    document = yaml.load(path.read_text())
    node = document
    for key in where[:-1]:
        node = node.setdefault(key, {})
    node[where[-1]] = value
    stream = io.StringIO()
    yaml.dump(document, stream)
    write_atomically(path, stream.getvalue().encode())
