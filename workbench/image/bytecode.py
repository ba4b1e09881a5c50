"""The layer with the image's bytecode, which the image's own Python makes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from workbench.errors import MachineLacks, StepFailed
from workbench.image import compile_sources, tools
from workbench.image.layers import file_from, write_layer, written_json
from workbench.image.oci import interpreter
from workbench.image.sandbox import by_loader
from workbench.image.unpacked import unpacked_for_now
from workbench.steps import Emit, Outputs

BELOW = ("base", "wheels", "server")
"""The layers whose sources are compiled, lowest first."""


def layer(inputs: Mapping[str, Path], params: Mapping[str, Any], emit: Emit) -> Outputs:
    """Compiles the sources in the layers :data:`BELOW` (descriptors, and the blobs as ``base_blob`` …).

    The image's own loader starts its Python, as an ordinary process: it computes from files of the image alone.
    ``params``: ``created`` (seconds since 1970). Raises MachineLacks where it cannot be started here, StepFailed where
    it fails.
    """
    below = [json.loads(inputs[name].read_bytes()) for name in BELOW]
    config = written_json(emit.scratch / "config", {"rootfs": {"diff_ids": [one["diff_id"] for one in below]}})
    out = emit.scratch / "out"
    with unpacked_for_now(config, [inputs[f"{name}_blob"] for name in BELOW], emit.scratch) as root:
        python, script = interpreter(below[1]["python"]), compile_sources.__file__
        words = compile_sources.command(python, script, str(root), str(out), params["created"])
        try:
            done = tools.run(by_loader(root, words), {"PYTHONHOME": str(root / "usr")})
        except OSError as error:
            raise MachineLacks(
                f"The image's Python cannot be started in {root}: {error.strerror or error}.",
                "Have the project on a file system that programs can be started from.",
            ) from error
        if done.returncode:
            raise StepFailed(f"The image's Python did not compile its sources: {tools.last_words(done.stderr, 1)}")
    entries = [file_from(path.relative_to(out).as_posix(), path) for path in out.rglob("*.pyc")]
    return write_layer("bytecode", entries, emit.scratch, created=params["created"])
