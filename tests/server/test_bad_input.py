"""Bad input to a real server: each is answered with the protocol's error that names what is wrong, and costs little."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import requests
from server_models import affine, identity
from server_process import Process, running

LIMIT = 1 << 20
"""Bytes of the longest body."""

MULTIPLE = 32
"""Most memory for a body, in its own bytes. ``{},`` takes the most, 27 times: in V1 an object, listed."""

AFFINE = "/v2/models/affine/infer"
IDENTITY = "/v2/models/identity/infer"
V1 = "/v1/models/affine:predict"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """A server over affine and identity that takes bodies up to LIMIT."""
    folder = tmp_path_factory.mktemp("models")
    affine(folder / "affine" / "1" / "model.onnx")
    identity(folder / "identity" / "1" / "model.onnx")
    with running(folder, WORKBENCH_MAX_BODY=str(LIMIT)) as found:
        yield found


@pytest.fixture(autouse=True)
def _well(server: Process) -> Iterator[None]:
    """After each request the server answers as before, and has held no more memory than a multiple of the limit."""
    assert requests.post(server.url + AFFINE, data=full({"inputs": [x()]}), timeout=60).status_code == 200
    before = server.memory("VmRSS")
    server.forget_peak()
    yield
    assert server.memory("VmHWM") - before < MULTIPLE * LIMIT
    answer = requests.post(server.url + AFFINE, data=full({"inputs": [x()]}), timeout=60)
    assert answer.json()["outputs"][1]["data"] == [6]


def x(**changed: Any) -> dict[str, Any]:
    return {"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3], **changed}


def section(size: int, name: str = "x", datatype: str = "FP32", shape: Any = (1, 3)) -> dict[str, Any]:
    return {"name": name, "shape": shape, "datatype": datatype, "parameters": {"binary_data_size": size}}


def full(request: Any) -> bytes:
    return request if isinstance(request, bytes) else json.dumps(request).encode()


def filled(begin: bytes, piece: bytes, end: bytes) -> bytes:
    """A body of pieces with commas between, as long as the limit allows."""
    count = (LIMIT - len(begin) - len(end)) // (len(piece) + 1)
    return begin + b",".join([piece] * count) + end


MANY = b'{"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": %b}]}'
IN_DATA = (b'{"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [', b"]}]}")
TINY = b'{"name":"x","shape":[0,3],"datatype":"FP32","data":[]}'


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        pytest.param(AFFINE, b"", "truncated", id="nothing"),
        pytest.param(AFFINE, b'{"inputs": [', "truncated", id="half of JSON"),
        pytest.param(AFFINE, b'{"inputs": [}]', "malformed", id="malformed JSON"),
        pytest.param(AFFINE, b'{"inputs": [{"name": "\xff"}]}', "utf-8", id="not UTF-8"),
        pytest.param(AFFINE, b"\0" * 1000, "malformed", id="zeros"),
        pytest.param(AFFINE, b"[" * LIMIT, "Expected `object`", id="a nest as deep as the body"),
        pytest.param(AFFINE, b'{"no": ' + b"[" * (LIMIT - 10), "recursion", id="a nest in an unknown field"),
        pytest.param(AFFINE, MANY % (b"[" * (LIMIT - 100)), "recursion", id="a nest in the data"),
        pytest.param(AFFINE, {"inputs": [x(shape=[3])]}, "shape [3]", id="too few axes"),
        pytest.param(AFFINE, {"inputs": [x(shape=[1, 4])]}, "shape [1, 4]", id="wrong extent"),
        pytest.param(AFFINE, {"inputs": [x(shape=[-1, 3])]}, "shape [-1, 3]", id="negative extent"),
        pytest.param(AFFINE, {"inputs": [x(shape=[1.5, 3])]}, "int", id="half an extent"),
        pytest.param(AFFINE, {"inputs": [x(shape="1,3")]}, "shape", id="a shape that is text"),
        pytest.param(AFFINE, {"inputs": [x(shape=[1] * 10_000)]}, "does not fit", id="thousands of axes"),
        pytest.param(AFFINE, {"inputs": [x(shape=[1] * 65)]}, "shape of 65 axes", id="more axes than are told"),
        pytest.param(AFFINE, {"inputs": [x(shape=[2**62, 3])]}, "elements", id="absurd product"),
        pytest.param(AFFINE, {"inputs": [x(shape=[2**70, 3])]}, "elements", id="extent beyond 64 bits"),
        pytest.param(AFFINE, {"inputs": [x(shape=[2**40, 0], data=[])]}, "shape", id="absurd product times zero"),
        pytest.param(AFFINE, {"inputs": [x(datatype="FP64")]}, "FP32", id="another datatype"),
        pytest.param(AFFINE, {"inputs": [x(datatype="complex")]}, "does not know", id="unknown datatype"),
        pytest.param(AFFINE, {"inputs": [x(datatype=7)]}, "datatype", id="a datatype that is a number"),
        pytest.param(AFFINE, {"inputs": [x(data=[1, 2])]}, "the data has 2", id="too few elements"),
        pytest.param(AFFINE, {"inputs": [x(data=[1, "2", 3])]}, "FP32", id="text among numbers"),
        pytest.param(AFFINE, {"inputs": [x(data={"0": 1})]}, "FP32", id="data that is an object"),
        pytest.param(AFFINE, {"inputs": [x(data=[1, None, 3])]}, "FP32", id="null"),
        pytest.param(AFFINE, MANY % b"[1, NaN, 3]", "malformed", id="NaN"),
        pytest.param(AFFINE, MANY % b"[1, -Infinity, 3]", "malformed", id="infinity"),
        pytest.param(AFFINE, MANY % b"[1, 1e999, 3]", "out of range", id="a number beyond all"),
        pytest.param(AFFINE, MANY % b"[1, 1e39, 3]", "range of FP32", id="a number beyond the datatype"),
        pytest.param(AFFINE, MANY % (b"[" + b"9" * 900_000 + b"]"), "range", id="a number of a million digits"),
        pytest.param(AFFINE, {"inputs": [x(name="y")]}, "no input 'y'", id="unknown input"),
        pytest.param(AFFINE, {"inputs": [x(name="y" * 900_000)]}, "no input 'yyy", id="an unknown name of a megabyte"),
        pytest.param(AFFINE, {"inputs": [x()], "outputs": [{"name": "z"}]}, "no output 'z'", id="unknown output"),
        pytest.param(AFFINE, {"inputs": []}, "missing: 'x'", id="no input"),
        pytest.param(AFFINE, {"inputs": [x(), x()]}, "twice", id="an input twice"),
        pytest.param(AFFINE, filled(b'{"inputs": [', TINY, b"]}"), "twice", id="thousands of tiny tensors"),
        pytest.param(IDENTITY, filled(b'{"inputs": [', TINY, b"]}"), "no input 'x'", id="thousands of unknown ones"),
        pytest.param(
            AFFINE,
            filled(full({"inputs": [x()]})[:-1] + b', "outputs": [', b'{"name":"total"}', b"]}"),
            "twice",
            id="an output thousands of times",
        ),
        pytest.param(AFFINE, filled(IN_DATA[0], b"0", IN_DATA[1]), "elements", id="numbers to the limit"),
        pytest.param(AFFINE, filled(IN_DATA[0], b"[1]", IN_DATA[1]), "nested", id="lists of one to the limit"),
        pytest.param(AFFINE, filled(IN_DATA[0], b"[]", IN_DATA[1]), "nested", id="empty lists to the limit"),
        pytest.param(AFFINE, filled(IN_DATA[0], b"{}", IN_DATA[1]), "FP32", id="empty objects to the limit"),
        pytest.param(V1, filled(b'{"instances": [', b"[]", b"]}"), "shape", id="V1, empty instances to the limit"),
        pytest.param(V1, filled(b'{"instances": [', b"[1]", b"]}"), "shape", id="V1, instances of one to the limit"),
        pytest.param(V1, filled(b'{"instances": [', b"{}", b"]}"), "missing", id="V1, empty objects to the limit"),
        pytest.param(V1, filled(b'{"instances": [', b'{"x":0}', b"]}"), "nested", id="V1, scalars to the limit"),
        pytest.param(V1, b'{"instances": ' + b"[" * (LIMIT - 20), "", id="V1, a nest as deep as the body"),
        pytest.param(V1, {"instances": [[1, 2, 3]], "inputs": {}}, "either", id="V1, rows and columns at once"),
    ],
)
def test_json_that_is_wrong_is_400_and_says_why(server: Process, path: str, body: Any, words: str) -> None:
    answer = requests.post(server.url + path, data=full(body), timeout=60)
    assert answer.status_code == 400
    assert list(answer.json()) == ["error"]
    assert words in answer.json()["error"]


@pytest.mark.parametrize(
    ("path", "inputs", "sections", "words"),
    [
        pytest.param(AFFINE, [section(12)], b"\0" * 11, "11 bytes are left", id="truncated section"),
        pytest.param(AFFINE, [section(8)], b"\0" * 8, "takes 12 bytes", id="too few bytes"),
        pytest.param(AFFINE, [section(16)], b"\0" * 16, "takes 12 bytes", id="too many bytes"),
        pytest.param(AFFINE, [section(12)], b"\0" * 13, "1 bytes follow", id="bytes left over"),
        pytest.param(AFFINE, [section(2**62)], b"\0" * 12, "bytes are left", id="a size beyond the body"),
        pytest.param(AFFINE, [section(-12)], b"\0" * 12, "binary_data_size is -12", id="a negative size"),
        pytest.param(AFFINE, [section(12, shape=(2**60, 3))], b"\0" * 12, "takes", id="absurd product"),
        pytest.param(AFFINE, [section(0, shape=(2**60, 0))], b"", "shape", id="absurd product times zero"),
        pytest.param(AFFINE, [section(12)] * 2, b"\0" * 24, "twice", id="a section twice"),
        pytest.param(AFFINE, [section(0, shape=(0, 3))] * 10_000, b"", "twice", id="thousands of empty sections"),
        pytest.param(
            IDENTITY, [section(5, "in_BYTES", "BYTES", (1,))], struct.pack("<I", 2**32 - 1) + b"x", "ends within",
            id="a string of four gigabytes",
        ),
        pytest.param(
            IDENTITY, [section(LIMIT // 2, "in_BYTES", "BYTES", (LIMIT,))], b"\0" * (LIMIT // 2), "ends within",
            id="more strings than bytes",
        ),
        pytest.param(
            IDENTITY, [section(5, "in_BYTES", "BYTES", (1,))], b"\1\0\0\0\xff", "not UTF-8", id="a string of no text"
        ),
        pytest.param(IDENTITY, [section(1, "in_BOOL", "BOOL", (1,))], b"\2", "neither 0 nor 1", id="no bool"),
    ],
)  # fmt: skip
def test_sections_that_are_wrong_are_400_and_say_why(
    server: Process, path: str, inputs: list[Any], sections: bytes, words: str
) -> None:
    head = full({"inputs": inputs})
    headers = {"Inference-Header-Content-Length": str(len(head))}
    answer = requests.post(server.url + path, data=head + sections, headers=headers, timeout=60)
    assert answer.status_code == 400
    assert words in answer.json()["error"]


@pytest.mark.parametrize("length", ["-1", "0x10", "1e3", "", "999999999999999", "9" * 400])
def test_a_header_length_that_is_none_is_400(server: Process, length: str) -> None:
    headers = {"Inference-Header-Content-Length": length}
    answer = requests.post(server.url + AFFINE, data=full({"inputs": [x()]}), headers=headers, timeout=60)
    assert answer.status_code == 400
    assert answer.json()["error"]


def test_what_binary_sections_carry_of_no_numbers_is_computed(server: Process) -> None:
    head = full({"inputs": [section(12)]})
    data = np.array([np.nan, np.inf, 1], "<f4").tobytes()
    headers = {"Inference-Header-Content-Length": str(len(head))}
    answer = requests.post(server.url + AFFINE, data=head + data, headers=headers, timeout=60)
    assert answer.json()["outputs"][0]["data"] == [None, None, 2]


@pytest.mark.parametrize("announced", [True, False], ids=["announced", "chunked"])
def test_a_body_over_the_limit_is_413(server: Process, announced: bool) -> None:
    body = filled(IN_DATA[0], b"0", IN_DATA[1]).ljust(LIMIT + 1)
    pieces = body if announced else iter([body[:1000], body[1000:]])
    assert requests.post(server.url + AFFINE, data=pieces, timeout=60).status_code == 413


def test_a_compressed_body_is_415(server: Process) -> None:
    answer = requests.post(server.url + AFFINE, data=b"x", headers={"Content-Encoding": "gzip"}, timeout=60)
    assert answer.status_code == 415
