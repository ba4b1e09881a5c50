"""The harness itself: what it adds to a query, and whether it finds a difference where there is none."""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from pathlib import Path

from ground import Ground, tell
from measure import Row, Section

from workbench.bench import child
from workbench.bench.aa import same_model
from workbench.bench.loadgen import Load
from workbench.bench.recorder import Recorder

PROCESSES = 12
SECONDS = 1.0
TRIALS = 20
AIM_NO_DIFFERENCE = 19


def overhead(ground: Ground) -> Section:
    """LoadGen's single-stream scenario on a call that does nothing, in fresh processes."""
    seen, whole = [], []
    for _ in range(PROCESSES):
        with tempfile.TemporaryDirectory(dir=ground.folder) as logs:
            load = Load("single-stream", SECONDS, 2 * SECONDS, expected_ns=0.0, samples=0)
            request = {"target": {"kind": "null"}, "load": asdict(load), "samples": "", "logs": logs}
            recorder = Recorder.create(1 << 22)
            try:
                result = child.run("workbench.bench.driver", request, recorder, patience_s=60)
            finally:
                recorder.close()
        if result["failed"] or not result["queries"]:
            raise SystemExit(f"The null responder failed: {result}")
        seen.append(result["percentiles"]["0.5"] / 1e3)
        whole.append(1e6 / result["qps"])
    rows = [
        Row("median latency of a query that does nothing", tuple(seen), "µs", aim=2.0),
        Row("time from one query to the next", tuple(whole), "µs"),
    ]
    said = "The first is what a figure in process holds of the harness, the second also what LoadGen does in between."
    return Section("LoadGen harness, in process", rows, [said])


def no_difference(ground: Ground) -> Section:
    """The shipped model against itself, as the latency step compares a variant with its original."""
    model, evaluate = ground.artifact("model", "model"), ground.artifact("data", "evaluate")
    verdicts: list[bool] = []
    ratios: list[float] = []
    covered = 0
    for trial in range(TRIALS):
        tell(f"A model against itself: {trial} of {TRIALS}")
        found = same_model(Path(model), Path(evaluate), trials=1)
        verdicts.append(found["no_difference"] == 1)
        covered += found["covered"]
        ratios.append(found["ratios"][0][0])
    differed = TRIALS - sum(verdicts)
    rows = [
        Row(f"verdicts of a difference, of {TRIALS}", (float(differed),), "", aim=float(TRIALS - AIM_NO_DIFFERENCE)),
        Row("ratios", tuple(ratios), "x"),
    ]
    said = f"no difference: {sum(verdicts)} of {TRIALS}; the 95% interval held 1 in {covered} of {TRIALS}."
    return Section("A model against itself", rows, [said])
