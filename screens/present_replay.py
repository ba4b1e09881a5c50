"""What a replay found, as blocks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from screens import words
from screens.blocks import Block, Cell, cell, row
from screens.words import ABSENT, DISTURBED, mapping, quantity, short
from workbench.events import RunState, Verdict


def verdict(state: RunState) -> Iterator[Block]:
    """The counts, what differs with its cause, what is worse, and remarks; nothing where there is no verdict yet."""
    found = state.verdict
    if found is None:
        return
    yield Block(
        f"reproduced {found.reproduced}, reused {found.reused}",
        below=(Cell(summary(found), "bad" if found.worse or _breaks(found) else "good"),),
    )
    if found.differences:
        yield Block(
            "Artifacts that differ from the lock",
            ("artifact", "locked", "found"),
            tuple(row(each.get("name", ABSENT), *_pair(each)) for each in found.differences),
            (cell(f"First differing input: {found.cause}"),) if found.cause else (),
        )
    if found.worse:
        yield Block(
            "Figures worse than locked, outside interval and tolerance",
            ("figure", "locked", "found"),
            tuple(row(*figure(each)) for each in found.worse),
            tuple(cell(sentence, "warn") for sentence in disturbances(state)),
        )
    if found.remarks:
        yield Block("Remarks", below=tuple(cell(remark) for remark in found.remarks))


def summary(found: Verdict) -> str:
    """A sentence on artifacts and one on figures."""
    differ = len(found.differences)
    artifacts = f"{quantity(differ, 'artifact')} {'differs' if differ == 1 else 'differ'} from the lock"
    if not differ:
        artifacts = "Every artifact is the locked one"
    elif found.level == "figures":
        artifacts += ", which level figures allows"
    compared = len(found.compared)
    worse = f"{len(found.worse) or 'none'} worse than locked"
    figures = f"{quantity(compared, 'figure')} compared, {worse}" if compared or found.worse else "No figure compared"
    return f"{artifacts}. {figures}."


def disturbances(state: RunState) -> Iterator[str]:
    """What else was at work while figures were measured: it may be what made one worse."""
    for step in state.steps.values():
        conditions = mapping(step.values, "conditions")
        if conditions.get("disturbed"):
            yield f"{step.id}: {conditions.get('sentence', DISTURBED)}"


def figure(each: Mapping[str, Any]) -> tuple[str, str, str]:
    """A worse figure: its name, and the locked and the found value with their intervals."""
    unit = str(each.get("unit", ""))
    locked, now = (_value(each.get(side), each.get(f"{side}_interval"), unit) for side in ("locked", "found"))
    return str(each.get("name", ABSENT)), locked, now


def _value(value: object, interval: object, unit: str) -> str:
    if unit == "ns":
        return words.latency(value, interval)
    if unit == "B":
        return words.size(value)
    return words.measured(value, interval, unit=f" {unit}" if unit else "")


def _pair(each: Mapping[str, Any]) -> tuple[str, str]:
    return short(each.get("locked")), short(each.get("found"))


def _breaks(found: Verdict) -> bool:
    return bool(found.differences) and found.level == "exact"
