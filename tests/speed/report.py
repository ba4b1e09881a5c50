"""How the reports are printed: the machine first, then each section as a table with its conditions."""

from __future__ import annotations

from typing import Any

from measure import Row, Section

from screens.tables import print_table
from workbench import __version__
from workbench.host.fingerprint import host_class, host_facts


def machine() -> dict[str, Any]:
    """What it runs on, which is also printed."""
    found = {**host_class(), **host_facts()}
    print(f"workbench {__version__} on {found['cpu']}, {found['cores']} cores, {found['memory_gib']} GiB")
    print(f"{found['os']}, kernel {found['kernel']}, {found['isa']}")
    return found


def show(section: Section) -> None:
    """Prints a section."""
    print(f"\n{section.title}")
    print_table(["what", "median", "95%", "range", "n", "aim", "met", "note"], map(_cells, section.rows), json=False)
    for remark in section.remarks:
        print(f"  {remark}")
    seen = section.conditions
    foreign = f"{seen['foreign_load']:.2f} cores of foreign load, {seen['steal']:.1%} stolen"
    print(f"  Conditions: {foreign}, {seen['duration_s']:.0f} s. {seen.get('sentence', 'Undisturbed.')}", flush=True)


def number(value: float) -> str:
    """Three digits, or all before the point."""
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _cells(row: Row) -> dict[str, Any]:
    spread = f"{number(min(row.values))} .. {number(max(row.values))}"
    interval = row.interval
    return {
        "what": row.what,
        "median": f"{number(row.median)} {row.unit}".rstrip(),
        "95%": f"{number(interval[0])} .. {number(interval[1])}" if interval else "",
        "range": spread if len(row.values) > 1 else "",
        "n": len(row.values),
        "aim": "" if row.aim is None else f"{'>=' if row.at_least else '<='} {row.aim:g} {row.unit}".rstrip(),
        "met": row.verdict(),
        "note": row.note,
    }
