"""The layer with the image's bytecode, which the image's own Python makes."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from workbench.errors import MachineLacks, StepFailed
from workbench.image import compile_sources, tools
from workbench.image.layers import file_from, write_layer, written_json
from workbench.image.oci import interpreter
from workbench.image.sandbox import Method, by_loader, fenced, method_here
from workbench.image.unpacked import unpacked_for_now
from workbench.steps import Emit, Outputs

BELOW = ("base", "wheels", "server")
"""The layers whose sources are compiled, lowest first."""


def layer(inputs: Mapping[str, Path], params: Mapping[str, Any], emit: Emit) -> Outputs:
    """Compiles the sources in the layers :data:`BELOW` (descriptors, and the blobs as ``base_blob`` …).

    ``params``: ``created`` (seconds since 1970). Raises the errors of :func:`compiled`.
    """
    below = [json.loads(inputs[name].read_bytes()) for name in BELOW]
    config = written_json(emit.scratch / "config", {"rootfs": {"diff_ids": [one["diff_id"] for one in below]}})
    out = emit.scratch / "out"
    out.mkdir()
    with unpacked_for_now(config, [inputs[f"{name}_blob"] for name in BELOW], emit.scratch) as root:
        compiled(root, interpreter(below[1]["python"]), out, params["created"], method_here())
    entries = [file_from(path.relative_to(out).as_posix(), path) for path in out.rglob("*.pyc")]
    return write_layer("bytecode", entries, emit.scratch, created=params["created"])


def compiled(root: Path, python: str, out: Path, created: int, method: Method) -> None:
    """Has the interpreter ``python`` of the image unpacked in ``root`` write the bytecode of its sources into ``out``.

    It is a program of the image, so it is fenced where this machine can; by either ``method`` the bytes are the same.
    Raises MachineLacks where it cannot be started here, StepFailed where it fails.
    """
    script = Path(compile_sources.__file__)
    if method == "bubblewrap":
        words = compile_sources.command(python, "/tmp/compile.py", "/", "/tmp/out", created)  # noqa: S108
        command = fenced(root, words, {"/tmp/compile.py": script}, {"/tmp/out": out})  # noqa: S108
        env = {"PATH": os.environ.get("PATH", os.defpath)}
    else:
        command = by_loader(root, compile_sources.command(python, str(script), str(root), str(out), created))
        env = {"PYTHONHOME": str(root / "usr")}
    try:
        done = tools.run(command, env)
    except OSError as error:
        raise MachineLacks(
            f"The image's Python cannot be started in {root}: {error.strerror or error}.",
            "Have the project on a file system that programs can be started from.",
        ) from error
    if done.returncode:
        raise StepFailed(f"The image's Python did not compile its sources: {tools.last_words(done.stderr, 1)}")
