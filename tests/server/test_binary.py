"""The binary tensor extension, in both directions."""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from server_models import TYPES, Ask, asker

from workbench.server.app import App

INFER = "/v2/models/affine/infer"
IDENTITY = "/v2/models/identity/infer"
ROW = np.array([[1, 2, 3]], "<f4")
DTYPES = {
    "BOOL": "?",
    "UINT8": "u1",
    "UINT16": "<u2",
    "UINT32": "<u4",
    "UINT64": "<u8",
    "INT8": "i1",
    "INT16": "<i2",
    "INT32": "<i4",
    "INT64": "<i8",
    "FP16": "<f2",
    "FP32": "<f4",
    "FP64": "<f8",
}


def strings(*elements: str) -> bytes:
    return b"".join(struct.pack("<I", len(each.encode())) + each.encode() for each in elements)


def put(ask: Ask, path: str, request: Any, *sections: bytes, said: int | None = None) -> Any:
    head = request if isinstance(request, bytes) else json.dumps(request).encode()
    length = str(len(head) if said is None else said).encode()
    return ask(path, head + b"".join(sections), headers=[(b"inference-header-content-length", length)])


def x(size: int, shape: tuple[int, ...] = (1, 3), **more: Any) -> dict[str, Any]:
    return {"name": "x", "shape": shape, "datatype": "FP32", "parameters": {"binary_data_size": size}, **more}


def test_a_section_is_the_input(ask: Ask) -> None:
    status, answer = put(ask, INFER, {"inputs": [x(12)], "outputs": [{"name": "total"}]}, ROW.tobytes())
    assert status == 200
    assert answer["outputs"] == [{"name": "total", "datatype": "FP32", "shape": [1, 1], "data": [6]}]


@pytest.mark.parametrize(
    ("asked", "binary"),
    [
        ({"parameters": {"binary_data_output": True}}, {"double", "total"}),
        ({"outputs": [{"name": "total", "parameters": {"binary_data": True}}, {"name": "double"}]}, {"total"}),
        (
            {
                "parameters": {"binary_data_output": True},
                "outputs": [{"name": "double", "parameters": {"binary_data": False}}, {"name": "total"}],
            },
            {"total"},
        ),
    ],
)
def test_outputs_come_as_sections_where_they_are_wanted_so(ask: Ask, asked: dict[str, Any], binary: set[str]) -> None:
    status, body, length = put(ask, INFER, {"inputs": [x(12)], **asked}, ROW.tobytes())
    assert status == 200
    expected = {"double": ROW * 10, "total": ROW.sum(axis=1, keepdims=True)}
    at = length
    for output in json.loads(body[:length])["outputs"]:
        assert ("data" not in output) == (output["name"] in binary)
        if "data" in output:
            values = np.array(output["data"], "<f4")
        else:
            size = output["parameters"]["binary_data_size"]
            values = np.frombuffer(body[at : at + size], "<f4")
            at += size
        assert np.array_equal(values.reshape(output["shape"]), expected[output["name"]])
    assert at == len(body)


def test_json_may_be_answered_with_sections(ask: Ask) -> None:
    request = {"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}]}
    status, body, length = ask(INFER, request | {"parameters": {"binary_data_output": True}})
    assert status == 200
    assert body[length:] == (ROW * 10).tobytes() + np.float32(6).tobytes()


def test_every_datatype_goes_in_and_comes_out_bit_for_bit(ask: Ask) -> None:
    source = np.random.default_rng(0)
    raw = {}
    for name in TYPES:
        if name == "BYTES":
            raw[name] = strings("", "ä\0", "x" * 300)
        elif name == "BOOL":
            raw[name] = b"\0\1\1"
        else:  # any bits: not-a-number and the infinities come through as they are
            raw[name] = source.bytes(3 * np.dtype(DTYPES[name]).itemsize)
    inputs = [
        {"name": f"in_{name}", "shape": [3], "datatype": name, "parameters": {"binary_data_size": len(data)}}
        for name, data in raw.items()
    ]
    request = {"inputs": inputs, "parameters": {"binary_data_output": True}}
    status, body, length = put(ask, IDENTITY, request, *raw.values())
    assert status == 200
    at = length
    for output in json.loads(body[:length])["outputs"]:
        size = output["parameters"]["binary_data_size"]
        assert body[at : at + size] == raw[output["datatype"]], output
        at += size


@pytest.mark.parametrize(
    ("request_", "sections", "said", "words"),
    [
        ({"inputs": [x(12)]}, [ROW.tobytes()[:11]], None, "11 bytes are left"),
        ({"inputs": [x(8)]}, [ROW.tobytes()[:8]], None, "takes 12 bytes"),
        ({"inputs": [x(12)]}, [ROW.tobytes() + b"\0"], None, "1 bytes follow"),
        ({"inputs": [x(-1)]}, [], None, "binary_data_size is -1"),
        ({"inputs": [x(12, data=[1, 2, 3])]}, [ROW.tobytes()], None, "both data and"),
        ({"inputs": [x(12), x(12)]}, [ROW.tobytes() * 2], None, "given twice"),
        ({"inputs": [x(2**62, shape=(2**60, 3))]}, [ROW.tobytes()], None, "bytes are left"),
        ({"inputs": [x(12)]}, [ROW.tobytes()], 10_000, "is said to have 10000 bytes"),
        ({"inputs": [x(12)]}, [ROW.tobytes()], 3, "not an inference request"),
    ],
)
def test_what_does_not_fit_is_400_and_says_why(
    ask: Ask, request_: Any, sections: list[bytes], said: int | None, words: str
) -> None:
    status, answer = put(ask, INFER, request_, *sections, said=said)
    assert status == 400
    assert words in answer["error"]


@pytest.mark.parametrize("length", [b"-1", b"1.5", b"", b"x", b"9" * 40])
def test_a_header_length_that_is_none_is_400(ask: Ask, length: bytes) -> None:
    assert ask(INFER, b"{}", headers=[(b"inference-header-content-length", length)])[0] == 400


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (strings("a"), "ends within"),
        (strings("a", "b") + b"\0", "goes on after"),
        (strings("a") + b"\xff\xff\xff\xffb", "ends within"),
        (strings("a") + b"\1\0\0", "ends within"),
        (strings("a") + struct.pack("<I", 1) + b"\xff", "not UTF-8"),
    ],
)
def test_strings_that_are_none_are_400(ask: Ask, data: bytes, words: str) -> None:
    size = {"binary_data_size": len(data)}
    tensor = {"name": "in_BYTES", "shape": [2], "datatype": "BYTES", "parameters": size}
    status, answer = put(ask, IDENTITY, {"inputs": [tensor]}, data)
    assert status == 400
    assert words in answer["error"]


def test_a_byte_that_is_no_bool_is_400(ask: Ask) -> None:
    tensor = {"name": "in_BOOL", "shape": [1], "datatype": "BOOL", "parameters": {"binary_data_size": 1}}
    assert "neither 0 nor 1" in put(ask, IDENTITY, {"inputs": [tensor]}, b"\2")[1]["error"]


@pytest.mark.parametrize("parameter", [{"classification": 3}, {"shared_memory_region": "r"}])
def test_extensions_that_are_not_spoken_are_said(ask: Ask, parameter: dict[str, Any]) -> None:
    status, answer = put(ask, INFER, {"inputs": [x(12)], "outputs": [{"name": "total", "parameters": parameter}]}, b"")
    assert status == 400
    status, answer = put(
        ask, INFER, {"inputs": [x(12)], "outputs": [{"name": "total", "parameters": parameter}]}, ROW.tobytes()
    )
    assert status == 400
    assert "not spoken here" in answer["error"]


tensors = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["x", "in_BYTES", "in_BOOL", "in_FP16"]),
        "shape": st.lists(st.integers(-1, 2**40) | st.integers(0, 3), max_size=3),
        "datatype": st.sampled_from(["FP32", "BYTES", "BOOL", "FP16"]),
        "parameters": st.fixed_dictionaries({"binary_data_size": st.integers(-2, 40) | st.integers()}),
    },
    optional={"data": st.lists(st.integers(), max_size=3)},
)


@settings(max_examples=1000, deadline=None)
@given(
    inputs=st.lists(tensors, max_size=3),
    sections=st.binary(max_size=60),
    off=st.integers(-3, 3) | st.just(0),
    path=st.sampled_from([INFER, IDENTITY]),
)
def test_no_sections_are_answered_with_anything_but_200_or_400(
    app: App, inputs: list[Any], sections: bytes, off: int, path: str
) -> None:
    head = json.dumps({"inputs": inputs}).encode()
    assert put(asker(app), path, head, sections, said=max(0, len(head) + off))[0] in (200, 400)
