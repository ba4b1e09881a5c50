"""Nested lists of JSON are read by their brackets, as one that makes the lists would."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.server.nested import depth, flat, has_shape, shape_of


@settings(max_examples=300, deadline=None)
@given(shape=st.lists(st.integers(0, 4), min_size=1, max_size=4), spaces=st.sampled_from([None, 1]))
def test_lists_have_the_shape_that_they_were_made_of(shape: list[int], spaces: int | None) -> None:
    array = np.arange(np.prod(shape)).reshape(shape)
    raw = json.dumps(array.tolist(), indent=spaces).encode()
    assert has_shape(raw, shape) or 0 in shape[:-1]
    assert shape_of(raw, shape) == shape
    assert json.loads(flat(raw)) == array.ravel().tolist()


def test_what_lies_below_empty_lists_is_as_the_model_says() -> None:
    assert shape_of(b"[]", [-1, 3, -1]) == [0, 3, 0]
    assert shape_of(b"[[], [ ]]", [-1, -1, 5]) == [2, 0, 5]


trees = st.recursive(st.integers(0, 9), lambda inner: st.lists(inner, max_size=3), max_leaves=12)


def made(tree: Any) -> list[int] | None:
    """The shape that numpy finds, None where lists are unequal."""
    try:
        return list(np.array(tree).shape)
    except ValueError:
        return None


@settings(max_examples=1000, deadline=None)
@given(tree=trees)
def test_unequal_lists_have_no_shape(tree: Any) -> None:
    raw = json.dumps(tree).encode()
    for rank in (1, 2, 3):
        found = shape_of(raw, [-1] * rank)
        if made(tree) is None and found is not None:
            with pytest.raises(json.JSONDecodeError):  # an element is missing
                json.loads(flat(raw))
        elif found is not None and 0 not in found:
            assert found == made(tree)


@pytest.mark.parametrize(
    "raw", [b"[1[2],[3]]", b"[[1]2,[3]]", b"[[1],[2]]3", b"1[[2],[3]]", b"[[1][,2]]", b"[[[1],[2]"]
)
def test_what_is_no_json_has_no_shape_or_is_no_list(raw: bytes) -> None:
    if has_shape(raw, [2, 1]):
        with pytest.raises(json.JSONDecodeError):
            json.loads(flat(raw))


@pytest.mark.parametrize("shape", [[2**62, 3], [2**70], [1] * 1000, [0, 2**40]])
def test_an_absurd_shape_costs_nothing(shape: list[int]) -> None:
    assert not has_shape(b"[[1, 2, 3]]", shape)


def test_the_depth_is_that_of_the_first_element() -> None:
    assert [depth(raw) for raw in (b"1", b"[1]", b" [ [1], 2]", b"[]")] == [0, 1, 2, 1]
