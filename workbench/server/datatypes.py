"""The datatypes that ONNX and the Open Inference Protocol share.

Protocol names: https://github.com/kserve/open-inference-protocol, section "Tensor Data Types".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np


@dataclass(frozen=True)
class Datatype:
    """One datatype: its protocol name, numpy dtype, and how the flat JSON list of its elements is read."""

    name: str
    dtype: np.dtype[Any]
    decode: Callable[[msgspec.Raw], list[Any]]
    element: type


def _datatype(name: str, dtype: str, element: type) -> Datatype:
    decoder = msgspec.json.Decoder(list[element])  # type: ignore[valid-type]
    return Datatype(name, np.dtype(dtype), decoder.decode, element)


BY_ONNX_TYPE: Mapping[str, Datatype] = {
    "tensor(bool)": _datatype("BOOL", "bool", bool),
    "tensor(uint8)": _datatype("UINT8", "uint8", int),
    "tensor(uint16)": _datatype("UINT16", "uint16", int),
    "tensor(uint32)": _datatype("UINT32", "uint32", int),
    "tensor(uint64)": _datatype("UINT64", "uint64", int),
    "tensor(int8)": _datatype("INT8", "int8", int),
    "tensor(int16)": _datatype("INT16", "int16", int),
    "tensor(int32)": _datatype("INT32", "int32", int),
    "tensor(int64)": _datatype("INT64", "int64", int),
    "tensor(float16)": _datatype("FP16", "float16", float),
    "tensor(float)": _datatype("FP32", "float32", float),
    "tensor(double)": _datatype("FP64", "float64", float),
    "tensor(string)": _datatype("BYTES", "object", str),
}
"""Datatypes by the name that onnxruntime gives them. bfloat16 has no numpy dtype and no JSON form: not here."""

BY_NAME: Mapping[str, Datatype] = {each.name: each for each in BY_ONNX_TYPE.values()}
"""Datatypes by protocol name."""
