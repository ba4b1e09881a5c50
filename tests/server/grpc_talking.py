"""What gRPC clients say."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest
from server_process import Process
from tritonclient.grpc import service_pb2 as pb

FIELDS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
MAX_BODY = 100_000
INFER = "/inference.GRPCInferenceService/ModelInfer"
Code = grpc.StatusCode


@contextlib.contextmanager
def connected(server: Process, **options: Any) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(f"127.0.0.1:{server.ready['grpc_port']}", **options) as channel:
        yield channel


def typed(
    values: Any, name: str = "x", datatype: str = "FP32", shape: tuple[int, ...] = (1, 3), field: str = ""
) -> Any:
    """An input with typed contents."""
    tensor = pb.ModelInferRequest.InferInputTensor(name=name, datatype=datatype, shape=shape)
    getattr(tensor.contents, field or FIELDS[datatype]).extend(values)
    return tensor


def asking(*inputs: Any, model: str = "affine", **more: Any) -> Any:
    return pb.ModelInferRequest(model_name=model, inputs=inputs, **more)


def refused(call: Any) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as error:
        call()
    return error.value


GOOD = typed([1, 2, 3])
BARE = pb.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=[1, 3])
RAW = np.array([1, 2, 3], "<f4").tobytes()


def raw_call(channel: grpc.Channel, message: bytes, path: str = INFER, **more: Any) -> Code:
    """The code that a message of any bytes is answered with."""
    call = channel.unary_unary(path)
    try:
        call(message, timeout=60, **more)
    except grpc.RpcError as error:
        return error.code()
    return Code.OK
