"""Requests that are nearly right: valid ones as seeds, and what chance does to their bytes.

A case is told by two numbers, its seed's place and the state of the generator, so that each can be had again.
"""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from workbench.server.app import App
from workbench.server.errors import RequestError
from workbench.server.model import Model
from workbench.server.protocol import Asked, decode
from workbench.server.rows import read as read_csv
from workbench.server.v1 import read as read_v1

MOST = 4
"""Bytes of arrays for a byte of the body: ``0,`` is eight as FP64."""

INTERESTING = (
    *(
        b"0",
        b"-1",
        b"1e400",
        b"-0.0",
        b"NaN",
        b"null",
        b"true",
        b"[]",
        b"{}",
        b'""',
        b"[[1]]",
        b"9" * 25,
        b"2147483648",
    ),
    *(
        b"18446744073709551616",
        b'"\\ud800"',
        b'"\\u0000"',
        b"\xff",
        b"\0",
        b"\xc3\xa9",
        b",",
        b":",
        b"[",
        b"]",
        b"{",
        b"}",
    ),
    *(b'"', b"\\", b"1.5", b'"x"', b'"FP32"', b'"BYTES"', b'"BOOL"', b'"binary_data_size":', b'"data":', b"\r\n", b" "),
)


@dataclass(frozen=True)
class Seed:
    """A request that is right. ``header``: the length of its JSON where sections follow; ``read``: what reads it."""

    model: str
    path: str
    body: bytes
    header: int | None = None
    read: Callable[[bytes, Model], Asked] | None = None


def seeds() -> list[Seed]:
    """Requests to affine (one FP32 input) and identity (an input of each datatype) in every form."""
    numbers = ("UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64")
    plain = {name: [1, 2] for name in numbers} | {"BOOL": [True, False], "BYTES": ["ä\0", ""]}
    each = [{"name": f"in_{name}", "shape": [2], "datatype": name, "data": data} for name, data in plain.items()]
    x = {"name": "x", "shape": [2, 3], "datatype": "FP32", "data": [1, 2.5, -3e-7, 4, 5, 6]}
    nested = x | {"data": [[1, 2.5, 3], [4, 5, 6]]}
    asked = {"id": "a", "parameters": {"binary_data_output": True, "timeout": 10**12}, "outputs": [{"name": "total"}]}
    rows = [[1, 2, 3], [4, 5.5, 6]]
    affine = [
        Seed("affine", "/v2/models/affine/infer", json.dumps({"inputs": [x]}).encode()),
        Seed("affine", "/v2/models/affine/infer", json.dumps({"inputs": [nested], **asked}).encode()),
        Seed("affine", "/v1/models/affine:predict", json.dumps({"instances": rows}).encode(), read=read_v1),
        Seed("affine", "/v1/models/affine:predict", json.dumps({"inputs": {"x": rows}}).encode(), read=read_v1),
        Seed(
            "affine",
            "/v1/models/affine:predict",
            json.dumps({"instances": [{"x": r} for r in rows]}).encode(),
            read=read_v1,
        ),
        Seed("affine", "/invocations", b"1,2,3\r\n4,5.5,-6e-3\n", read=read_csv),
    ]
    identity = [Seed("identity", "/v2/models/identity/infer", json.dumps({"inputs": each}).encode())]
    raw = {name: np.array([1, 2]).astype(name.lower().replace("fp", "float")).tobytes() for name in numbers}
    raw |= {"BOOL": b"\1\0", "BYTES": struct.pack("<I", 3) + "ä\0".encode() + bytes(4)}
    for names in (["FP32", "BYTES", "BOOL"], list(plain)):
        tensors = [
            {"name": f"in_{name}", "shape": [2], "datatype": name, "parameters": {"binary_data_size": len(raw[name])}}
            if name in names
            else tensor
            for name, tensor in zip(plain, each, strict=True)
        ]
        head = json.dumps({"inputs": tensors}).encode()
        body = head + b"".join(raw[name] for name in plain if name in names)
        identity.append(Seed("identity", "/v2/models/identity/infer", body, len(head)))
    section = x | {"parameters": {"binary_data_size": 24}}
    del section["data"]
    data = np.arange(6, dtype="<f4").tobytes()
    heads = [json.dumps(request).encode() for request in ({"inputs": [section], **asked}, {"inputs": [section]})]
    return [*affine, *identity, *[Seed("affine", "/v2/models/affine/infer", head + data, len(head)) for head in heads]]


def mutated(data: bytes, chance: random.Random) -> bytes:
    """``data`` after one to six changes of its bytes, pieces or numbers."""
    found = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 3, 6))):
        at = chance.randrange(len(found) + 1)
        end = min(len(found), at + chance.choice((1, 1, 2, 4, 16, 200)))
        match chance.randrange(8):
            case 0:
                found[at:end] = chance.randbytes(end - at)
            case 1 if at < len(found):
                found[at] ^= 1 << chance.randrange(8)
            case 2:
                del found[at:end]
            case 3:
                found[at:at] = found[at:end] * chance.choice((1, 2, 50))
            case 4:
                found[at:at] = chance.choice(INTERESTING)
            case 5:
                found[at:end] = chance.choice(INTERESTING)
            case 6:
                del found[at:]
            case _:
                other = chance.randrange(len(found) + 1)
                found[at:at] = found[other : other + end - at]
    return bytes(found)


def put(seed: Seed, chance: random.Random, model: Model) -> bool:
    """Has ``model`` read what chance makes of ``seed``: whether it could. Raises AssertionError (or what the reader
    raises) where it was neither refused with a status of the client's nor understood as the model takes it."""
    body = mutated(seed.body, chance)
    header = seed.header
    if header is not None and chance.random() < 0.3:
        header = max(0, chance.choice((header + chance.randrange(-3, 4), chance.randrange(2 * len(seed.body)), 10**14)))
    elif header is not None:
        header += len(body) - len(seed.body) if chance.random() < 0.5 else 0
        header = max(0, header)
    asked, said = _said(lambda: read(seed, body, header, model))
    if not seed.read:  # quick ways, and what the reader remembers of others, change nothing
        other, said_too = _said(lambda: decode(body, header, model.inputs, model.outputs))
        assert said == said_too
        assert repr(asked) == repr(other)
    if asked is None:
        return False
    check(asked, model, len(body))
    return True


def read(seed: Seed, body: bytes, header: int | None, model: Model) -> Asked:
    """What the server understands a body as."""
    return seed.read(body, model) if seed.read else model.reader.read(body, header)


def _said(reading: Callable[[], Asked]) -> tuple[Asked | None, str]:
    """What a body is understood as, or what is said of it."""
    try:
        return reading(), ""
    except RequestError as error:
        if error.status != 400 or not error.message:
            raise
        return None, error.message


def check(asked: Asked, model: Model, size: int) -> None:
    """That a request is one which the model takes, and has no more memory than its ``size`` in bytes explains."""
    assert asked.feed.keys() == model.inputs.keys()
    for name, array in asked.feed.items():
        spec = model.inputs[name]
        assert array.dtype == spec.datatype.dtype
        assert array.ndim == len(spec.shape)
        assert all(want in (-1, have) for have, want in zip(array.shape, spec.shape, strict=True))
        assert array.flags.aligned
        if array.dtype.kind == "b":
            assert (array.view(np.uint8) <= 1).all()
        if array.dtype.kind == "O":
            assert all(type(element) is str for element in array.flat)
    assert sum(array.nbytes for array in asked.feed.values()) <= MOST * size
    assert set(asked.outputs) <= model.outputs.keys()
    assert asked.timeout is None or asked.timeout > 0


def cases(app: App, number: int) -> Iterator[tuple[Seed, random.Random, Model]]:
    """A case of each seed, from ``number``."""
    for place, seed in enumerate(seeds()):
        yield seed, random.Random(f"{number}/{place}"), app.repository.get(seed.model).model


def http_request(seed: Seed, headers: Mapping[str, str] | None = None) -> bytes:
    """``seed`` as bytes on a connection."""
    given = {"Host": "here", "Content-Length": str(len(seed.body)), **(headers or {})}
    if seed.header is not None:
        given["Inference-Header-Content-Length"] = str(seed.header)
    if seed.path == "/invocations":
        given["Content-Type"] = "text/csv"
    head = f"POST {seed.path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in given.items())
    return head.encode() + b"\r\n" + seed.body


def expected(seed: Seed) -> Any:
    """What a reader nobody wrote here makes of a seed's JSON: values by input name."""
    request = json.loads(seed.body if seed.header is None else seed.body[: seed.header])
    at = seed.header or 0
    found = {}
    for tensor in request["inputs"]:
        name, kind = tensor["name"], tensor["datatype"]
        if "data" in tensor:
            found[name] = np.array(tensor["data"], object).ravel().tolist()
            continue
        data = seed.body[at : at + tensor["parameters"]["binary_data_size"]]
        at += len(data)
        if kind == "BYTES":
            found[name] = []
            while data:
                (length,) = struct.unpack_from("<I", data)
                found[name].append(data[4 : 4 + length].decode())
                data = data[4 + length :]
        else:
            found[name] = np.frombuffer(data, kind.lower().replace("fp", "float")).tolist()
    return found
