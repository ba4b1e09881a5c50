"""The A/A test: a model against itself must come out as no difference.

``python -m workbench.bench.aa MODEL EVALUATE [TRIALS]`` prints one line of JSON: the trials, how often the verdict was
"no difference", and the ratios. What it shows is the coverage of the interval on this machine, under its load.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from workbench.bench.latency import compare


class Quiet:
    """An emit of nobody: ``scratch`` alone is used."""

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch

    def progress(self, done: float, total: float, text: str = "") -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Nothing."""

    def sample(self, kind: str, values: Mapping[str, Any]) -> None:
        """Nothing."""


def same_model(model: Path, evaluate: Path, trials: int = 20, pairs: int = 10, threads: int = 1) -> dict[str, Any]:
    """Compare ``model`` with itself ``trials`` times.

    Returns ``trials``, ``no_difference`` (how many came out so), ``covered`` (how many 95% intervals hold 1) and
    ``ratios`` with their intervals.
    """
    taken = []
    for _ in range(trials):
        with tempfile.TemporaryDirectory() as folder:
            inputs = {"original": model, "variant": model, "evaluate": evaluate}
            taken.append(compare(inputs, {"threads": threads, "pairs": pairs}, Quiet(Path(folder))).values)
    return {
        "trials": trials,
        "no_difference": sum(values["verdict"] == "no difference" for values in taken),
        "covered": sum(values["ratio_interval"][0] <= 1 <= values["ratio_interval"][1] for values in taken),
        "ratios": [[values["ratio"], *values["ratio_interval"]] for values in taken],
    }


if __name__ == "__main__":
    result = same_model(Path(sys.argv[1]), Path(sys.argv[2]), *map(int, sys.argv[3:4]))
    print(json.dumps(result))  # noqa: T201 - the answer of the command
