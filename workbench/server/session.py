"""The one way to open an onnxruntime session: for scoring, parity, benchmark and server alike.

Two sessions with other options are two different systems: on a 2-core machine spinning threads alone moved a latency
ratio anywhere between 0.39 and 0.66 (0.38 to 0.45 without).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

# onnxruntime >= 1.29 reports usage unless this is set before it is imported.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import onnxruntime as ort

CPU = ("CPUExecutionProvider",)


QUIET = ort.RunOptions()
"""For runs whose values come from clients: what the model refuses is told to them, not to the log."""
QUIET.log_severity_level = 4


def session_options(threads: int) -> Any:
    """The options of every session: ``threads`` intra-op threads, one inter-op thread, no spinning, no log chatter."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return options


def open_session(model: str | Path, threads: int = 1, providers: tuple[str, ...] = CPU) -> Any:
    """An ``onnxruntime.InferenceSession`` over the model file, with :func:`session_options`."""
    return ort.InferenceSession(str(model), session_options(threads), providers=list(providers))


def available_providers() -> list[str]:
    """The execution providers that this onnxruntime was built with."""
    return list(ort.get_available_providers())
