"""A client of the Open Inference Protocol V2 in JSON: one connection, one request at a time.

Numbers survive exactly: JSON carries the shortest decimal that reads back as the same double, and every float32 and
float16 is a double.
"""

from __future__ import annotations

import http.client
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any
from urllib.parse import quote

import msgspec
import numpy as np

from workbench.errors import StepFailed

_TYPES = {
    "float16": "FP16",
    "float32": "FP32",
    "float64": "FP64",
    "int8": "INT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "uint8": "UINT8",
    "uint16": "UINT16",
    "uint32": "UINT32",
    "uint64": "UINT64",
    "bool": "BOOL",
    "object": "BYTES",
}
_NUMPY = {name: dtype for dtype, name in _TYPES.items()}


def infer_body(inputs: Mapping[str, np.ndarray[Any, Any]]) -> bytes:
    """The body of an inference request: arrays by input name."""
    tensors = [
        {"name": name, "shape": list(array.shape), "datatype": _datatype(array), "data": array.ravel().tolist()}
        for name, array in inputs.items()
    ]
    return msgspec.json.encode({"inputs": tensors})


def _datatype(array: np.ndarray[Any, Any]) -> str:
    return "BYTES" if array.dtype.kind in "OUS" else _TYPES[array.dtype.name]


def arrays_of(body: bytes) -> dict[str, np.ndarray[Any, Any]]:
    """The outputs in the body of an answer, by name. JSON has no NaN; null stands for it."""
    answer = msgspec.json.decode(body)
    return {
        output["name"]: np.array(output["data"], dtype=_NUMPY[output["datatype"]]).reshape(output["shape"])
        for output in answer["outputs"]
    }


class Client:
    """A connection to a server at ``127.0.0.1:port`` that serves ``model``. A context manager."""

    def __init__(self, port: int, model: str, timeout_s: float = 60.0) -> None:
        self._path = f"/v2/models/{quote(model, safe='')}/infer"
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    def infer(self, inputs: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, np.ndarray[Any, Any]]:
        """One inference. Raises StepFailed where the server does not answer as the protocol says."""
        try:
            headers = {"Content-Type": "application/json"}
            self._connection.request("POST", self._path, infer_body(inputs), headers)
            answer = self._connection.getresponse()
            body = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise StepFailed(f"The image's server does not answer {self._path}: {error}.") from error
        if answer.status != 200:
            said = body[:500].decode("utf-8", "replace")
            raise StepFailed(f"The image's server answers {self._path} with status {answer.status}: {said}")
        try:
            return arrays_of(body)
        except (msgspec.DecodeError, KeyError, TypeError, ValueError) as error:
            raise StepFailed(
                f"The image's server answers {self._path} with no V2 inference response: {error}."
            ) from error


def names_of(arrays: Sequence[str]) -> str:
    """Names for a message."""
    return ", ".join(sorted(arrays)) or "none"
