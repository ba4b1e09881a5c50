"""Elements of an HTML page. Texts and attributes are escaped where the page is written, so nothing can be forgotten."""

from __future__ import annotations

from collections.abc import Iterator
from xml.etree.ElementTree import Element, tostring

from screens.blocks import Block, Cell
from screens.words import safe

Child = Element | str | None


def el(tag: str, /, *children: Child, **attributes: object) -> Element:
    """An element. ``class_`` is the attribute class, ``stroke_width`` stroke-width; None leaves one out."""
    made = Element(tag, {_named(key): safe(value) for key, value in attributes.items() if value is not None})
    last: Element | None = None
    for child in children:
        if isinstance(child, Element):
            made.append(child)
            last = child
        elif child:
            if last is None:
                made.text = (made.text or "") + safe(child)
            else:
                last.tail = (last.tail or "") + safe(child)
    return made


def _named(key: str) -> str:
    return key.rstrip("_").replace("_", "-") if key != "viewBox" else key


def written(root: Element) -> str:
    """The page, from its root on."""
    return f"<!doctype html>\n{tostring(root, encoding='unicode', method='html')}\n"


def lines_of(cell: Cell) -> Iterator[Child]:
    """A cell's first line, and what stands below it."""
    first, _, rest = cell.text.partition("\n")
    yield el("span", first, class_=cell.tone or None)
    for line in rest.split("\n") if rest else ():
        yield el("small", line)


def table(block: Block) -> Element:
    """The rows of a block."""
    width = max(len(block.columns), *(len(row) for row in block.rows))
    heads = [*block.columns, *[""] * (width - len(block.columns))]
    right = ["right" if column in block.right else None for column in range(width)]
    found = el("table")
    if block.columns:
        cells = (el("th", head, class_=side, scope="col") for head, side in zip(heads, right, strict=True))
        found.append(el("thead", el("tr", *cells)))
    body = el("tbody")
    for row in block.rows:
        cells = (
            el("td", *lines_of(cell), class_=right[column], data_head=heads[column] or None)
            for column, cell in enumerate(row)
        )
        body.append(el("tr", *cells))
    found.append(body)
    return el("div", found, class_="wide")


def block(found: Block, level: str = "h3") -> Iterator[Element]:
    """A block: its title, its table, and the sentences below."""
    if found.title:
        yield el(level, found.title)
    if found.rows:
        yield table(found)
    for sentence in found.below:
        yield el("p", *lines_of(sentence), class_="said")
