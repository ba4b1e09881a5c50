"""Numeric preprocessing, folded into the graph as its first nodes, so that production cannot drift from training.

Order: cast, layout, then ``(x * scale - mean) / std``. What a caller sends is then the raw thing (a uint8 NHWC image,
pixel values 0..255), and every client, benchmark and server computes the same from it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from workbench.errors import UsageError
from workbench.model.read import all_nodes

KEYS = ("scale", "mean", "std", "layout", "cast")
_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)
_LAYOUTS = {
    # What a caller sends -> what the model takes: (permutation of the nodes, order of the caller's axes).
    "nhwc->nchw": ((0, 3, 1, 2), (0, 2, 3, 1)),
    "nchw->nhwc": ((0, 2, 3, 1), (0, 3, 1, 2)),
}


def fold(model: ModelProto, preprocess: Mapping[str, Any], location: str) -> None:
    """Put the operations of ``preprocess`` before the model's one floating-point input, in place.

    The input keeps its name; its shape follows ``layout`` and its dtype follows ``cast``. Raises :class:`UsageError`
    where the operations do not fit the input.
    """
    wanted = {key: value for key, value in preprocess.items() if value is not None}
    unknown = sorted(set(wanted) - set(KEYS))
    if unknown:
        raise UsageError(
            f"{location}: preprocess has the unknown key {unknown[0]!r}.", f"Allowed are {', '.join(KEYS)}."
        )
    value = _the_input(model, location)
    if not wanted:
        return
    chain = _Chain(model, value.name, value.type.tensor_type.elem_type)
    axes = [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
    _cast(chain, wanted.get("cast"), value, location)
    _layout(chain, wanted.get("layout"), value, location)
    if "scale" in wanted:
        chain.add("Mul", _number(wanted["scale"], "scale", location))
    if "mean" in wanted:
        chain.add("Sub", _per_channel(wanted["mean"], "mean", axes, wanted.get("layout"), location))
    if "std" in wanted:
        std = _per_channel(wanted["std"], "std", axes, wanted.get("layout"), location)
        if np.any(std == 0):
            raise UsageError(f"{location}: preprocess std is 0.", "Leave it out, or give the standard deviation.")
        chain.add("Div", std)
    _splice(model, chain)


@dataclass
class _Chain:
    """The new nodes, each taking what the one before gave."""

    model: ModelProto
    source: str
    element: int
    nodes: list[NodeProto] = field(default_factory=list)
    constants: list[TensorProto] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.taken = {name for node in all_nodes(self.model) for name in (*node.input, *node.output)}
        self.taken.update(tensor.name for tensor in self.model.graph.initializer)
        self.end = self.source

    def add(self, op: str, constant: NDArray[np.float64] | None = None, **attributes: Any) -> None:
        inputs = [self.end]
        if constant is not None:
            dtype = helper.tensor_dtype_to_np_dtype(self.element)
            name = self.fresh(f"{op.lower()}_value")
            self.constants.append(numpy_helper.from_array(constant.astype(dtype), name))
            inputs.append(name)
        self.end = self.fresh(op.lower())
        self.nodes.append(helper.make_node(op, inputs, [self.end], name=self.end, **attributes))

    def fresh(self, kind: str) -> str:
        """A name nothing in the model has."""
        stem = f"{self.source}/preprocess/{kind}"
        name = next(name for name in (stem, *(f"{stem}_{i}" for i in range(1, 10**6))) if name not in self.taken)
        self.taken.add(name)
        return name


def _the_input(model: ModelProto, location: str) -> ValueInfoProto:
    floats = [value for value in model.graph.input if value.type.tensor_type.elem_type in _FLOATS]
    if len(floats) != 1:
        raise UsageError(
            f"{location}: preprocess needs a model with one floating-point input; this one has {len(floats)}.",
            "Leave preprocess out and give the data as the model takes it.",
        )
    if any(output.name == floats[0].name for output in model.graph.output):
        raise UsageError(f"{location}: the input {floats[0].name!r} is an output too.", "Leave preprocess out.")
    value: ValueInfoProto = floats[0]
    return value


def _cast(chain: _Chain, to: Any, value: ValueInfoProto, location: str) -> None:
    if to is None:
        return
    if to != "uint8":
        raise UsageError(f"{location}: preprocess cast {to!r} is not known.", "The one cast is uint8.")
    chain.add("Cast", to=chain.element)
    value.type.tensor_type.elem_type = TensorProto.UINT8


def _layout(chain: _Chain, layout: Any, value: ValueInfoProto, location: str) -> None:
    if layout is None:
        return
    if layout not in _LAYOUTS:
        raise UsageError(
            f"{location}: preprocess layout {layout!r} is not known.", f"Allowed are {' and '.join(_LAYOUTS)}."
        )
    dims = value.type.tensor_type.shape.dim
    if len(dims) != 4:
        raise UsageError(
            f"{location}: preprocess layout needs an input of 4 axes; {value.name!r} has {len(dims)}.",
            "Leave layout out.",
        )
    permutation, order = _LAYOUTS[layout]
    chain.add("Transpose", perm=permutation)
    outer = [type(dims[i]).FromString(dims[i].SerializeToString()) for i in order]
    del dims[:]
    dims.extend(outer)


def _number(value: Any, key: str, location: str) -> NDArray[np.float64]:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise UsageError(f"{location}: preprocess {key} is {value!r}, not a finite number.", "Give a number.")
    return np.asarray(value, dtype=np.float64)


def _per_channel(
    value: Any, key: str, axes: Sequence[int | str], layout: str | None, location: str
) -> NDArray[np.float64]:
    """One number, or one a channel shaped to broadcast.

    The channels are where ``layout`` puts them. Without one they are axis 1 (NCHW, or the features of a table) where
    that has the size, else the last axis (NHWC).
    """
    if not isinstance(value, Sequence) or isinstance(value, str):
        return _number(value, key, location)
    numbers = np.asarray([_number(item, key, location) for item in value])
    count, rank = len(numbers), len(axes)
    if rank >= 2 and count and axes[1] == count and layout != "nchw->nhwc":
        return numbers.reshape((1, count, *([1] * (rank - 2))))
    if rank >= 2 and count and axes[-1] == count and layout != "nhwc->nchw":
        return numbers
    raise UsageError(
        f"{location}: preprocess {key} has {count} values, and the input of shape {list(axes)} has no such channels.",
        "Give one number, or one for each channel of the model's input.",
    )


def _splice(model: ModelProto, chain: _Chain) -> None:
    for node in all_nodes(model):
        for index, name in enumerate(node.input):
            if name == chain.source:
                node.input[index] = chain.end
    _prepend(model.graph, chain.nodes)
    model.graph.initializer.extend(chain.constants)


def _prepend(graph: GraphProto, nodes: Sequence[NodeProto]) -> None:
    rest = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *rest])
