"""Nested lists of numbers in JSON, read without making them.

A list of Python takes 64 bytes where ``[],`` takes three, so a body of nested lists would become thirty times its size.
Their brackets and commas, the skeleton, say which shape they have; what is left without the brackets is one flat list.
Not for strings, which may have brackets in them.
"""

from __future__ import annotations

from collections.abc import Sequence

_NO_BRACKETS = bytes.maketrans(b"[]", b"  ")
_ELEMENTS = bytes(set(range(256)) - set(b"[],"))
_NOTHING = b"[], \t\r\n"


def flat(raw: bytes) -> bytes:
    """The JSON list of the elements of ``raw``; malformed where one is missing in the shape that was found."""
    if not raw.translate(None, _NOTHING):
        return b"[]"
    return b"[%b]" % raw.translate(_NO_BRACKETS)


def depth(raw: bytes) -> int:
    """How deep the first element lies."""
    bones = _bones(raw)
    return len(bones) - len(bones.lstrip(b"["))


def has_shape(raw: bytes, shape: Sequence[int]) -> bool:
    """Whether lists are nested as ``shape`` says."""
    bones = _bones(raw)
    return len(bones) == _length(shape) and bones == _skeleton(shape)


def shape_of(raw: bytes, extents: Sequence[int]) -> list[int] | None:
    """The shape of lists as deep as there are ``extents``; None where they have none.

    Where lists are empty, what would lie below is as long as ``extents`` says, and 0 for a negative one.
    """
    bones = _bones(raw)
    lead = len(bones) - len(bones.lstrip(b"["))
    nothing = not raw.translate(None, _NOTHING)
    if not 0 < lead <= len(extents) or lead < len(extents) and not nothing:
        return None
    shape: list[int] = []
    length = 0  # of the list at this level, that before the first of its kind ends
    for level in reversed(range(lead)):
        end = bones.find(b"]" * (lead - level), level)
        if end < 0:
            return None
        inside = end + lead - level - 1 - (level + 1)
        count = (inside + 1) // (length + 1) if length or not nothing else 0
        shape.insert(0, count)
        length = inside + 2
    if len(bones) != _length(shape) or bones != _skeleton(shape):
        return None
    return shape + [max(extent, 0) for extent in extents[lead:]]


def _bones(raw: bytes) -> bytes:
    return raw.translate(None, _ELEMENTS)


def _length(shape: Sequence[int]) -> int:
    length = 0
    for extent in reversed(shape):
        length = 2 + extent * length + max(extent - 1, 0)
    return length


def _skeleton(shape: Sequence[int]) -> bytes:
    bones = b""
    for extent in reversed(shape):
        bones = b"[%b]" % ((bones + b",") * extent)[:-1]  # join would take eighty bytes for each
    return bones
