"""Tens of thousands of requests that are nearly right: to the readers, and as bytes on connections to a real server.

``make fuzz`` goes on with others.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from fuzz import Connections
from fuzzing import cases, check, expected, http_request, mutated, put, read, seeds
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from server_models import TYPES, affine, identity
from server_process import Process, running

from workbench.server.app import App
from workbench.server.datatypes import BY_NAME
from workbench.server.errors import RequestError
from workbench.server.tensors import TensorSpec, from_bytes, spec_of, to_bytes

MUTATIONS = 40
"""Of each seed, for each number that Hypothesis draws."""


def test_the_seeds_are_right(app: App) -> None:
    for seed in seeds():
        model = app.repository.get(seed.model).model
        asked = read(seed, seed.body, seed.header, model)
        check(asked, model, len(seed.body))
        if seed.read is None:
            for name, values in expected(seed).items():
                assert np.array_equal(asked.feed[name].ravel(), np.array(values, asked.feed[name].dtype)), name


@settings(max_examples=300, deadline=None)
@given(number=st.integers(0, 2**63))
def test_nearly_right_requests_are_understood_or_refused(app: App, number: int) -> None:
    for seed, chance, model in cases(app, number):
        for _ in range(MUTATIONS):
            put(seed, chance, model)


def test_some_of_them_are_understood_and_most_refused(app: App) -> None:
    understood = [put(seed, chance, model) for number in range(50) for seed, chance, model in cases(app, number)]
    assert 0.02 < np.mean(understood) < 0.7


names = st.sampled_from(sorted(set(TYPES) - {"BYTES"}))


@settings(max_examples=500, deadline=None)
@given(data=st.data(), name=names, shape=arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))
def test_any_array_comes_back_from_its_bytes(data: st.DataObject, name: str, shape: tuple[int, ...]) -> None:
    spec = TensorSpec("x", BY_NAME[name], (-1,) * len(shape))
    array = data.draw(arrays.arrays(BY_NAME[name].dtype, shape))
    plain = to_bytes(array, spec.datatype)
    back = from_bytes(memoryview(b"?" + plain)[1:], spec, shape)
    assert (back.tobytes(), back.shape, back.dtype) == (array.tobytes(), array.shape, array.dtype)


@settings(max_examples=300, deadline=None)
@given(elements=st.lists(st.text()))
def test_any_strings_come_back_from_their_bytes(elements: list[str]) -> None:
    spec = TensorSpec("x", BY_NAME["BYTES"], (-1,))
    plain = to_bytes(np.array(elements, object), spec.datatype)
    assert from_bytes(plain, spec, [len(elements)]).tolist() == elements


@settings(max_examples=800, deadline=None)
@given(
    name=st.sampled_from(sorted(TYPES)),
    shape=st.lists(st.integers(0, 2**64) | st.integers(0, 4), max_size=4),
    data=st.binary(max_size=80),
)
def test_any_bytes_are_a_tensor_of_that_size_or_refused(name: str, shape: list[int], data: bytes) -> None:
    spec = TensorSpec("x", BY_NAME[name], (-1,) * len(shape))
    try:
        array = from_bytes(data, spec_of("x", name, shape, {"x": spec}), shape)
    except RequestError as error:
        if error.status != 400:
            raise
        return
    assert list(array.shape) == shape
    assert to_bytes(array, spec.datatype) == data


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=10,
)
fields = {
    "name": st.sampled_from(["x", "y"]) | anything,
    "shape": st.just([1, 3]) | st.lists(st.integers(-1, 2**70), max_size=3) | anything,
    "datatype": st.just("FP32") | st.sampled_from(sorted(TYPES)) | anything,
    "data": st.lists(st.floats(width=32), min_size=3, max_size=3) | anything,
    "parameters": st.fixed_dictionaries({}, optional={"binary_data_size": st.integers(-1, 13) | anything}) | anything,
}
tensors = st.fixed_dictionaries({}, optional=fields)
documents = st.fixed_dictionaries(
    {"inputs": st.lists(tensors, max_size=2) | anything},
    optional={"id": anything, "outputs": st.lists(tensors, max_size=2) | anything, "parameters": anything},
)


@settings(max_examples=600, deadline=None)
@given(document=documents, sections=st.binary(max_size=13), off=st.integers(-2, 2))
def test_any_document_is_understood_or_refused(app: App, document: Any, sections: bytes, off: int) -> None:
    model = app.repository.get("affine").model
    head = json.dumps(document).encode()
    for header in (None, max(0, len(head) + off), len(head)):
        try:
            asked = model.reader.read(head + sections, header)
        except RequestError as error:
            if error.status != 400:
                raise
            continue
        check(asked, model, len(head) + len(sections))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """A server over affine and identity, with SageMaker's addresses."""
    folder = tmp_path_factory.mktemp("models")
    affine(folder / "affine" / "1" / "model.onnx")
    identity(folder / "identity" / "1" / "model.onnx")
    settings = {"SAGEMAKER_BIND_TO_PORT": "0", "WORKBENCH_PLATFORM_MODEL": "affine", "WORKBENCH_MAX_BODY": "100000"}
    with running(folder, "serve", **settings) as found:
        yield found


def test_a_right_request_on_a_connection_is_answered_with_200(server: Process) -> None:
    with Connections(server) as connections:
        for seed in seeds():
            assert connections.ask(http_request(seed)) == 200


@settings(max_examples=150, deadline=None)
@given(number=st.integers(0, 2**63))
@example(9194809)
def test_no_bytes_on_a_connection_harm_the_server(server: Process, number: int) -> None:
    chance = random.Random(number)
    with Connections(server) as connections:
        for seed in seeds():
            for _ in range(3):
                status = connections.ask(mutated(http_request(seed), chance))
                assert status is None or status < 500
    # On a connection of its own: bytes may have made two requests of one, and the second's answer comes next there.
    with Connections(server) as another:
        assert another.ask(http_request(seeds()[0])) == 200
