"""What is kept of binary requests, whose JSON is the same each time, changes nothing of how they are read."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from workbench.server import reader as reader_module
from workbench.server.datatypes import BY_NAME
from workbench.server.errors import RequestError
from workbench.server.protocol import Asked, decode
from workbench.server.reader import MAX_LAYOUTS, Reader
from workbench.server.tensors import TensorSpec

INPUTS = {
    "x": TensorSpec("x", BY_NAME["FP32"], (-1, 2)),
    "on": TensorSpec("on", BY_NAME["BOOL"], (-1,)),
}
OUTPUTS = {name: TensorSpec(name, BY_NAME["FP32"], (-1,)) for name in ("sum", "mean")}
X = np.array([[1, 2], [3, 4]], "<f4").tobytes()
Y = np.array([[5, 6], [7, 8]], "<f4").tobytes()


class Counting(Reader):
    """A reader of which is known how often it read the JSON."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(INPUTS, OUTPUTS)
        self.decoded = 0

        def decoding(*request: Any) -> Asked:
            self.decoded += 1
            return decode(*request)

        monkeypatch.setattr(reader_module, "decode", decoding)

    def ask(self, request: dict[str, Any], *sections: bytes) -> Asked:
        head = json.dumps(request).encode()
        return self.read(head + b"".join(sections), len(head))


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch) -> Counting:
    return Counting(monkeypatch)


def section(name: str, size: int, *shape: int) -> dict[str, Any]:
    spec = INPUTS[name]
    return {"name": name, "shape": shape, "datatype": spec.datatype.name, "parameters": {"binary_data_size": size}}


BOTH = {"inputs": [section("on", 2, 2), section("x", 16, 2, 2)]}


def test_the_json_that_came_before_is_not_read_again_and_the_tensors_are_the_new_ones(reader: Counting) -> None:
    first = reader.ask(BOTH, b"\0\1", X)
    second = reader.ask(BOTH, b"\1\1", Y)
    assert reader.decoded == 1
    assert first.feed["on"].tolist() == [False, True]
    assert first.feed["x"].tolist() == [[1, 2], [3, 4]]
    assert second.feed["on"].tolist() == [True, True]
    assert second.feed["x"].tolist() == [[5, 6], [7, 8]]
    assert second.feed.keys() == first.feed.keys()


def test_outputs_how_they_are_sent_and_the_deadline_are_kept_with_it(reader: Counting) -> None:
    wanted = [{"name": "mean", "parameters": {"binary_data": True}}]
    request = {**BOTH, "outputs": wanted, "parameters": {"timeout": 2_000_000}}
    for _ in range(2):
        asked = reader.ask(request, b"\0\1", X)
        assert (asked.outputs, asked.binary, asked.timeout) == (["mean"], {"mean"}, 2)
    assert reader.decoded == 1
    assert reader.ask(BOTH, b"\0\1", X).outputs == ["sum", "mean"]


def test_requests_with_an_id_have_their_own(reader: Counting) -> None:
    for _ in range(2):
        for name in ("one", "two"):
            assert reader.ask({"id": name, **BOTH}, b"\0\1", X).id == name
    assert reader.ask(BOTH, b"\0\1", X).id is None
    assert reader.decoded == 5


@pytest.mark.parametrize("sections", [(b"\0\1", X[:-1]), (b"\0\1", X, b"?"), (), (b"\0\2", X)])
def test_wrong_sections_are_refused_as_if_nothing_like_it_had_come(reader: Counting, sections: tuple[bytes]) -> None:
    with pytest.raises(RequestError) as anew:
        reader.ask(BOTH, *sections)
    reader.ask(BOTH, b"\0\1", X)
    with pytest.raises(RequestError) as again:
        reader.ask(BOTH, *sections)
    assert (again.value.status, again.value.message) == (400, anew.value.message)


def test_a_tensor_in_the_json_is_read_each_time(reader: Counting) -> None:
    for size, data in ((2, [True, False]), (0, [])):
        mixed = {"name": "on", "shape": [size], "datatype": "BOOL", "data": data}
        for values in (X, Y):
            asked = reader.ask({"inputs": [mixed, section("x", 16, 2, 2)]}, values)
            assert asked.feed["on"].tolist() == data
            assert asked.feed["x"].tobytes() == values


def test_strings_are_read_each_time() -> None:
    reader = Reader({"s": TensorSpec("s", BY_NAME["BYTES"], (-1,))}, OUTPUTS)
    request = {"inputs": [{"name": "s", "shape": [2], "datatype": "BYTES", "parameters": {"binary_data_size": 16}}]}
    head = json.dumps(request).encode()
    for one, other in (("abcd", "efgh"), ("abcdefg", "h"), ("", "abcdefgh")):
        body = b"".join(len(each).to_bytes(4, "little") + each.encode() for each in (one, other))
        assert reader.read(head + body, len(head)).feed["s"].tolist() == [one, other]


def test_only_so_much_is_kept(reader: Counting) -> None:
    for number in range(3 * MAX_LAYOUTS):
        reader.ask({**BOTH, "number": number}, b"\0\1", X)
        assert len(reader._layouts) <= MAX_LAYOUTS
    reader.ask({**BOTH, "number": 3 * MAX_LAYOUTS - 1}, b"\0\1", X)
    assert reader.decoded == 3 * MAX_LAYOUTS
    for _ in range(2):
        reader.ask({**BOTH, "long": "x" * 5000}, b"\0\1", X)
    assert reader.decoded == 3 * MAX_LAYOUTS + 2
