"""``python bare.py MODEL INPUT.npy SECONDS``: the model by itself, run after run; JSON on stdout.

What a server adds is measured against this.
"""

from __future__ import annotations

import json
import statistics
import sys
import time

import numpy as np

from workbench.server.session import open_session

WARM_UP = 20


def main() -> None:
    model, input_file, seconds = sys.argv[1:]
    session = open_session(model)
    feed = {"x": np.load(input_file)}
    for _ in range(WARM_UP):
        session.run(None, feed)
    clock = time.perf_counter_ns
    taken = []
    begun = before = clock()
    end = begun + round(float(seconds) * 1e9)
    while before < end:
        session.run(None, feed)
        now = clock()
        taken.append(now - before)
        before = now
    print(json.dumps({"rate": len(taken) / (before - begun) * 1e9, "median": statistics.median(taken) / 1e9}))


if __name__ == "__main__":
    main()
