"""``make soak``: minutes of overload, then of switching versions under load, against a real server process.

Prints what was seen, and ends with 1 where memory grows, health is not answered, or a request fails.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "server"))

import report
import soaking
import wrk
from ground import tell
from measure import Row, Section
from soaking import Seen
from wrk import Pace

from workbench.bench.conditions import Watch
from workbench.bench.statistics import percentile

KB = 1e3
MOST_GROWTH = 500.0
"""kB a minute: a byte or two for each request that comes in meanwhile."""
MOST_GROWTH_BY_SWITCH = 4.0
"""kB: a thousandth of the version that each switch drops. What malloc settles to is 1 kB a switch in the first 400."""
VERSION = 4.3
"""MB of weights that a version has: when a switch is done, nothing is there twice."""
FITTED = "fitted to all but the first third"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=3.0, help="of both together (3)")
    seconds = round(parser.parse_args().minutes * 60)
    if not wrk.is_there():
        raise SystemExit("wrk is missing: apt-get install wrk")
    report.machine()
    parts = {"Overload": (overload, seconds * 2 // 3), "Versions switched under load": (switching, seconds // 3)}
    met = True
    for title, (part, length) in parts.items():
        tell(f"{title}: {length} s")
        with Watch(threads=1) as watch:
            rows = list(part(max(length, 6)))
        report.show(Section(title, rows, conditions=watch.values()))
        met &= all(row.aim is None or row.verdict() == "met" for row in rows)
    sys.exit(0 if met else 1)


def overload(seconds: int) -> Iterator[Row]:
    """Many more connections than the queue holds, each asking again at once."""
    with tempfile.TemporaryDirectory() as folder:
        soaking.write_versions(Path(folder), layers=40)
        with soaking.served(Path(folder), WORKBENCH_THREADS="1", WORKBENCH_QUEUE="64") as server:
            seen = soaking.under_load(server, Pace(connections=256), seconds)
    taken = seen.taken
    unwell = sum(status != 200 for status, _ in seen.health)
    yield Row("answered", (taken.rate,), "/s", 1.0, at_least=True)
    yield Row("refused with 429", (taken.refused / taken.seconds,), "/s", 1.0, at_least=True)
    yield from _failures(seen)
    yield Row(f"health not answered, of {len(seen.health)}", (float(unwell),), "", 0.0)
    yield Row("health, 99th percentile", (percentile([took for _, took in seen.health], 0.99) * 1e3,), "ms")
    yield _memory(seen)
    yield Row("its growth", (seen.growth() / KB * 60,), "kB/min", MOST_GROWTH, note=FITTED)


def switching(seconds: int) -> Iterator[Row]:
    """As many connections as are answered without a queue, while versions come and go."""
    with tempfile.TemporaryDirectory() as folder:
        soaking.write_versions(Path(folder), layers=2, versions=2)
        with soaking.served(Path(folder), WORKBENCH_THREADS="1", WORKBENCH_REPOSITORY="1") as server:
            seen = soaking.while_switching(server, Pace(connections=16), seconds)
    yield Row("answered", (seen.taken.rate,), "/s", 1.0, at_least=True)
    yield Row("refused with 429", (float(seen.taken.refused),), "", 0.0)
    yield from _failures(seen)
    yield Row("switches", (float(len(seen.versions)),), "", 2.0, at_least=True)
    yield _memory(seen)
    sizes = [size for _, size in seen.memory]
    yield Row("more than after the first switch", ((max(sizes) - sizes[0]) / 1e6,), "MB", VERSION)
    yield Row("its growth", (seen.growth_by_switch() / KB,), "kB a switch", MOST_GROWTH_BY_SWITCH, note=FITTED)


def _failures(seen: Seen) -> Iterator[Row]:
    yield Row("other answers, and broken connections", (float(seen.taken.errors),), "", 0.0)


def _memory(seen: Seen) -> Row:
    sizes = [size for _, size in seen.memory]
    return Row("resident memory", (max(sizes) / 1e6,), "MB", note=f"{sizes[0] / 1e6:.0f} MB at the begin")


if __name__ == "__main__":
    main()
