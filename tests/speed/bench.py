"""``make bench``: how fast and how large things are, side by side in one run, with spread, conditions and the aims.

It reports and asserts nothing: a shared machine is no judge. ``--only help,noop`` takes some of it, ``--json FILE``
also writes it down. What it needs is made in ``.workbench/bench`` of the checkout and reused.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import against
import commands
import engine
import harness
import memory
import options
import pushing
import rebuild
import report
from ground import ROOT, Ground, tell
from measure import Section

from workbench import __version__
from workbench.bench.conditions import Watch
from workbench.process import adopt_orphans, die_with_parent

GROUND = ROOT / ".workbench" / "bench"

PARTS: Mapping[str, Callable[[Ground], Section]] = {
    "help": commands.help_text,
    "noop": commands.nothing_changed,
    "rebuild": rebuild.new_model,
    "harness": harness.overhead,
    "image": rebuild.size,
    "memory": memory.leading,
    "aa": harness.no_difference,
    "peers": against.others,
    "push": pushing.to_registry,
}


def main() -> None:
    asked = options.parser(__doc__, PARTS, GROUND).parse_args()
    asked.ground.mkdir(parents=True, exist_ok=True)
    with engine.running(asked.ground, wanted="peers" in asked.only) as running:
        # In a process of its own: it adopts and waits for what its commands leave, and the engine is none of that.
        child = multiprocessing.get_context("fork").Process(target=_measure, args=(asked, running))
        child.start()
        child.join()
    sys.exit(child.exitcode)


def _measure(asked: argparse.Namespace, running: engine.Engine | None) -> None:
    die_with_parent()
    adopt_orphans()  # a run outlives its command: its time counts too, and it must be over before the next measurement
    ground = Ground(asked.ground, running)
    machine = report.machine()
    found: dict[str, Any] = {}
    for name in asked.only:
        _prepare(name, ground)
        tell(f"Measuring: {name}")
        section = _watched(PARTS[name], ground)
        found[name] = section.as_json()
        report.show(section)
    if asked.json:
        whole = {"workbench": __version__, "machine": machine, "time": round(time.time()), "sections": found}
        asked.json.write_text(json.dumps(whole, indent=2) + "\n")


def _prepare(name: str, ground: Ground) -> None:
    """Makes what a part stands on before the watch over it begins: that is no part of what is measured."""
    if name in ("help", "noop"):
        _ = ground.dvc
    if name not in ("help", "harness", "memory"):
        _ = ground.project
    if name == "noop":
        _ = ground.dvc_project


def _watched(part: Callable[[Ground], Section], ground: Ground) -> Section:
    with Watch(threads=1) as watch:
        section = part(ground)
    section.conditions = watch.values()
    return section


if __name__ == "__main__":
    main()
