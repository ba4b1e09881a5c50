"""The protocol's model configuration extension: what a client has to know to make batches
(https://github.com/triton-inference-server/server, docs/protocol/extension_model_configuration.md).

Of Triton's configuration it has what says something of a model here. ``max_batch_size`` is the most rows that requests
are joined to; a request itself may have more. Where requests cannot join it is 0, and ``dims`` have all axes.
"""

from __future__ import annotations

from typing import Any

from workbench.server.model import PLATFORM, Model
from workbench.server.tensors import TensorSpec


def model_config(model: Model) -> dict[str, Any]:
    """The configuration of ``model``: the fields of Triton's message ModelConfig."""
    specs = (*model.inputs.values(), *model.outputs.values())
    # What is left of a tensor of nothing but rows would be no dims, which Triton does not have.
    rows = model.max_batch if all(len(spec.shape) > 1 for spec in specs) else 0
    return {
        "name": model.name,
        "platform": PLATFORM,
        "max_batch_size": rows,
        "input": [_tensor(spec, 1 if rows else 0) for spec in model.inputs.values()],
        "output": [_tensor(spec, 1 if rows else 0) for spec in model.outputs.values()],
    }


def _tensor(spec: TensorSpec, first: int) -> dict[str, Any]:
    name = spec.datatype.name
    return {
        "name": spec.name,
        "data_type": "TYPE_STRING" if name == "BYTES" else f"TYPE_{name}",
        "dims": list(spec.shape[first:]),
    }
