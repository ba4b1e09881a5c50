"""The events of a run and of a replay of the digits recipe, with the values that the steps give."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from workbench import events
from workbench.events import AnyEvent, RunState, replay_state

MACHINE = {
    "class": {"cpu": "Example CPU @ 2.00GHz", "cores": 2, "memory_gib": 24, "gpus": []},
    "facts": {"kernel": "6.1.0", "os": "Debian GNU/Linux 12 (bookworm)", "machine": "x86_64", "isa": "x86-64-v4+vnni"},
}
CONFIG = "sha256:" + "0123456789abcdef" * 4
MANIFEST = "sha256:" + "fedcba9876543210" * 4
COMMIT = "1234567890abcdef1234567890abcdef12345678"

CONDITIONS = {"threads": 1, "spinning": False, "cpus": [0, 1], "steal": 0.0, "foreign_load": 0.02, "disturbed": False}


def p(level: str, value: int, low: int, high: int) -> dict[str, Any]:
    """A percentile and its interval in ns."""
    return {f"{level}_ns": value, f"{level}_interval_ns": [low, high]}


def gate(name: str, state: str, value: str, limit: str, why: str) -> dict[str, str]:
    """A decision of workbench.evaluate.gates."""
    return {"gate": name, "state": state, "limit": limit, "value": value, "why": why}


def layer(name: str, size: int, uncompressed: int, files: int, omitted: int) -> dict[str, Any]:
    """What the image step says of a layer."""
    return {"name": name, "size": size, "uncompressed": uncompressed, "files": files, "omitted_bytes": omitted}


ORIGINAL = {"queries": 20_000, **p("p50", 310_200, 304_700, 315_900), **p("p99", 402_000, 380_000, 425_000)}
VALUES: dict[str, dict[str, Any]] = {
    "model": {"opset": 17, "size": 1_400_000, "parameters": 350_000, "flops": None, "operators": {"Conv": 4}},
    "data": {"evaluate": {"samples": 360}, "calibrate": {"samples": 128}},
    "int8/quantize": {
        "operators": {"QLinearConv": 4},
        "quantized_nodes": 6,
        "notes": ["1 node stays in float32: Softmax."],
    },
    "int8-dynamic/quantize": {"operators": {"ConvInteger": 4}, "quantized_nodes": 4, "notes": []},
    "evaluate/original": {
        "samples": 360,
        "size": 1_400_000,
        "metric": {"name": "accuracy", "value": 0.98889, "higher_is_better": True, "interval": [0.97181, 0.99567]},
    },
    "evaluate/int8": {
        "samples": 360,
        "size": 358_400,
        "metric": {"name": "accuracy", "value": 0.98611, "higher_is_better": True, "interval": [0.96792, 0.99407]},
        "compare": {
            "drop": 0.00278,
            "interval": [0.0, 0.00833],
            "flipped": 2,
            "p_value": 1.0,
            "method": "paired bootstrap, 2000 resamples of 360 samples; McNemar exact",
            "fidelity": 0.99987,
        },
    },
    "evaluate/int8-dynamic": {
        "samples": 360,
        "size": 361_000,
        "metric": {"name": "accuracy", "value": 0.9, "higher_is_better": True, "interval": [0.865, 0.927]},
        "compare": {"drop": 0.08889, "interval": [0.06, 0.12], "flipped": 34, "p_value": 2e-8, "fidelity": 0.981},
    },
    "latency/original": {
        "confidence": 0.95,
        "pairs": 10,
        "samples": 20_000,
        "original": ORIGINAL,
        "conditions": CONDITIONS,
    },
    "latency/int8": {
        "confidence": 0.95,
        "pairs": 10,
        "samples": 19_500,
        "original": ORIGINAL,
        "variant": {"queries": 41_000, **p("p50", 148_000, 146_000, 151_000), **p("p99", 190_000, 180_000, 201_000)},
        "ratio": 0.4771,
        "ratio_interval": [0.4688, 0.4856],
        "verdict": "faster",
        "conditions": CONDITIONS,
    },
    "latency/int8-dynamic": {
        "confidence": 0.95,
        "pairs": 10,
        "samples": 480,
        "original": ORIGINAL,
        "variant": {"queries": 480, **p("p50", 2_100_000, 2_050_000, 2_190_000)},
        "ratio": 6.77,
        "ratio_interval": [6.61, 7.02],
        "verdict": "slower",
        "conditions": {
            **CONDITIONS,
            "disturbed": True,
            "sentence": "Disturbed: other processes used 0.8 cores while this was measured.",
        },
    },
    "choose": {
        "choice": "int8",
        "why": "median latency: 0.48 times the original's (0.47 to 0.49), the lowest of those that keep the gates",
        "decisions": {
            "original": [
                gate("metric_drop", "holds", "0", "at most 0.01", "it is the original itself"),
                gate("model_size", "fails", "1.3 MiB", "at most 1.0 MiB", "343 KiB too much"),
            ],
            "int8": [
                gate(
                    "metric_drop",
                    "holds",
                    "0.00278 (0 to 0.00833)",
                    "at most 0.01",
                    "the whole interval of the drop in accuracy is within the limit; 2 of 360 decisions changed",
                ),
                gate("model_size", "holds", "350 KiB", "at most 1.0 MiB", "the file has 358400 bytes"),
            ],
            "int8-dynamic": [
                gate("metric_drop", "fails", "0.089 (0.06 to 0.12)", "at most 0.01", "beyond the limit"),
                gate("p99", "undecided", "unknown", "at most 5 ms", "too few samples for a 99th percentile"),
            ],
        },
        "remarks": {"int8": [], "int8-dynamic": ["slower than the original: 6.77 times its latency (6.61 to 7.02)"]},
    },
    "base": {},
    "wheels": {},
    "server-layer": {},
    "model-layer": {},
    "image": {
        "config": CONFIG,
        "manifest": MANIFEST,
        "size": 64_000_000,
        "uncompressed": 176_000_000,
        "layers": [
            layer("base", 16_000_000, 49_000_000, 2_310, 9_000_000),
            layer("wheels", 47_600_000, 126_600_000, 1_200, 0),
            layer("server", 20_000, 60_000, 11, 0),
            layer("model", 300_000, 361_000, 2, 0),
        ],
    },
    "parity": {
        "samples": 64,
        "bit_equal": True,
        "max_abs": 0.0,
        "max_rel": 0.0,
        "top1_equal": True,
        "method": "bubblewrap",
    },
    "benchmark/alone": {
        "benchmark": "alone",
        "scenario": "single-stream",
        "repetitions": 3,
        "confidence": 0.95,
        "process": {
            "valid": True,
            "reasons": [],
            "queries": 60_000,
            "failed": 0,
            **p("p50", 150_000, 147_000, 153_000),
            **p("p95", 160_000, 155_000, 165_000),
            **p("p99", 181_000, 170_000, 193_000),
            "throughput_qps": 6_500.0,
            "throughput_interval_qps": [6_400.0, 6_600.0],
            "client_cost_ns": {"p50": 1_200},
        },
        "image": {
            "valid": True,
            "reasons": [],
            "queries": 400,
            "failed": 0,
            **p("p50", 420_000, 400_000, 441_000),
            **p("p95", 520_000, 480_000, 560_000),
            "throughput_qps": 2_300.0,
            "throughput_interval_qps": [2_200.0, 2_400.0],
            "client_cost_ns": {"p50": 36_000},
            "start_to_first_answer_s": 0.41,
            "start_to_first_answer_interval_s": [0.38, 0.44],
            "peak_memory_bytes": 91_000_000,
        },
        "conditions": CONDITIONS,
    },
    "benchmark/busy": {
        "benchmark": "busy",
        "scenario": "server",
        "repetitions": 3,
        "process": {
            "valid": True,
            "reasons": [],
            "queries": 2_000,
            "failed": 0,
            "rate": 200.0,
            "bound_ms": 10.0,
            **p("p50", 152_000, 149_000, 155_000),
            "client_cost_ns": {"p50": 1_200},
        },
        "image": {
            "valid": False,
            "reasons": ["3 of 2000 requests failed (the first: HTTP 503)."],
            "queries": 2_000,
            "failed": 3,
            "rate": 200.0,
            "bound_ms": 10.0,
            # No step writes figures beside an invalid verdict; if one did, no face would show them.
            **p("p50", 777_777, 777_000, 778_000),
            "throughput_qps": 77_777.0,
        },
        "conditions": {**CONDITIONS, "disturbed": True, "sentence": "Disturbed: the hypervisor took 3.0% of the time."},
    },
    "gates": {"decisions": []},
    "push": {
        "reference": "oci:.workbench/registry:digits:latest",
        "digest": MANIFEST,
        "sent": 2,
        "skipped": 4,
        "bytes_sent": 300_500,
    },
}

KINDS = {"base", "wheels", "server-layer", "model-layer"}
PLAN = [(name, name.split("/")[-1] if name.endswith("quantize") else name.split("/")[0]) for name in VALUES]
MODEL_FILE = {"model": {"digest": "sha256:" + "ab" * 32, "size": 358_400}}


def started(mode: str = "run") -> list[AnyEvent]:
    return [
        events.RunStarted(
            run="20260101-120000-digits-beef",
            recipe="recipes/digits.yaml",
            name="digits",
            mode=mode,  # type: ignore[arg-type]
            command=["workbench", mode, "recipes/digits.yaml"],
            pid=4242,
            machine=copy.deepcopy(MACHINE),
            workbench="0.1.0",
        ),
        events.Planned(steps=PLAN),
    ]


def step(name: str, values: Mapping[str, Any] | None = None, *, reused: bool = False) -> list[AnyEvent]:
    """A step from start to end; one that is reused never starts."""
    files = MODEL_FILE if name.endswith("quantize") or name == "model" else {}
    end = events.StepFinished(
        step=name,
        key="sha256:" + "12" * 32,
        reused=reused,
        files=copy.deepcopy(files),
        values=copy.deepcopy(dict(VALUES[name] if values is None else values)),
        ingredients={},
        seconds=0.0 if reused else 1.25,
    )
    if reused:
        return [end]
    return [
        events.StepStarted(step=name, key="sha256:" + "12" * 32, ingredients={}),
        events.StepProgress(step=name, done=1, total=4, text="at it"),
        end,
    ]


def run_events(changed: Mapping[str, Mapping[str, Any]] | None = None) -> list[AnyEvent]:
    """A whole run; ``changed`` gives steps other values."""
    found = started()
    for name in VALUES:
        found += step(name, (changed or {}).get(name), reused=name in KINDS)
        if name == "parity":
            found.insert(-1, events.StepNote(step=name, text="The image took requests 0.41 s after its start."))
    found.append(events.LockWritten(path="recipes/digits.lock.yaml", changes=["first lock"], commit=COMMIT))
    found.append(events.Note(text="Recipe and lock were committed."))
    found.append(events.RunFinished(status="done", exit_code=0))
    return stamped(found)


def failed_events(name: str, message: str, cure: str = "") -> list[AnyEvent]:
    """A run that ends in step ``name``."""
    error = {"kind": "StepFailed", "message": message, "cure": cure}
    found = started()
    for before in VALUES:
        if before == name:
            break
        found += step(before)
    found.append(events.StepStarted(step=name, key="", ingredients={}))
    found.append(events.StepFailed(step=name, error=error))
    found.append(events.RunFinished(status="failed", exit_code=7, error=error))
    return stamped(found)


def replay_events(**verdict: Any) -> list[AnyEvent]:
    """A whole replay with a verdict; as locked, unless ``verdict`` says otherwise."""
    found = started("replay")
    for name in VALUES:
        found += step(name)
    same = ["model", "int8/quantize", "layer base", "layer wheels", "layer server", "layer model", "image config"]
    facts: dict[str, Any] = {
        "level": "exact",
        "reproduced": 7,
        "reused": 0,
        "differences": [],
        "worse": [],
        "same": same,
        "compared": ["int8.p50", "image.size"],
        **verdict,
    }
    found.append(events.Verdict(**facts))
    end = events.RunFinished(status="done", exit_code=0)
    if facts["worse"] or (facts["differences"] and facts["level"] == "exact"):
        error = {"kind": "ArtifactDiffers", "message": "model differs from the lock.", "cure": "Find out why."}
        end = events.RunFinished(status="failed", exit_code=4, error=error)
    return stamped([*found, end])


def stamped(found: Iterable[AnyEvent]) -> list[AnyEvent]:
    """``found`` numbered, a second apart."""
    return [msgspec.structs.replace(e, seq=n, time=1_700_000_000.0 + n) for n, e in enumerate(found)]


def state(found: Iterable[AnyEvent]) -> RunState:
    return replay_state(found)


def record(found: Iterable[AnyEvent], folder: Path) -> Path:
    """The run folder of a run that is over, with its events."""
    folder.mkdir(parents=True)
    (folder / "request.json").write_text("{}")
    (folder / "lock").touch()
    lines = [msgspec.json.encode(event) + b"\n" for event in found]
    (folder / "events.jsonl").write_bytes(b"".join(lines))
    return folder
