"""A request that was answered before is answered from the cache, and never with another request's answer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from prometheus_client.parser import text_string_to_metric_families
from server_models import TYPES, affine, asker, identity, load_models, lookup

from workbench.server import metrics
from workbench.server.app import App
from workbench.server.cache import ResponseCache, request_digest
from workbench.server.datatypes import BY_NAME
from workbench.server.protocol import Asked
from workbench.server.repository import Loader, Repository, find_models
from workbench.server.tensors import TensorSpec

INFER = "/v2/models/m/infer"


def body(*values: float, **more: Any) -> dict[str, Any]:
    tensor = {"name": "x", "shape": [len(values) // 3, 3], "datatype": "FP32", "data": values}
    return {"inputs": [tensor], **more}


@pytest.fixture
def cached(tmp_path: Path) -> Callable[..., App]:
    """An application with a cache over affine models by version."""

    def made(limit: int = 1 << 20, **factors: float) -> App:
        for version, factor in factors.items():
            affine(tmp_path / "m" / version[1:] / "model.onnx", factor)
        loader = Loader(1)
        app = App(
            Repository(loader, loader.load_all(find_models(tmp_path), {}), tmp_path), 10_000, change_repository=True
        )
        app.cache = ResponseCache(limit)
        return app

    return made


def counted(app: App) -> list[tuple[int, int]]:
    return [(each.meter.cache_hits, each.meter.cache_misses) for each in app.repository]


def runs(app: App) -> list[int]:
    return [each.meter.compute.count for each in app.repository]


def test_the_same_request_is_computed_once(cached: Callable[..., App]) -> None:
    app = cached(v1=2.0)
    ask = asker(app)
    answers = [ask(INFER, body(1, 2, 3, id=str(number))) for number in range(3)]
    assert [answer["outputs"][0]["data"] for _, answer in answers] == [[2, 4, 6]] * 3
    assert [answer["id"] for _, answer in answers] == ["0", "1", "2"]
    assert counted(app) == [(2, 1)]
    assert runs(app) == [1]
    (batcher,) = app.repository
    assert batcher.meter.answered == 3


def test_json_and_binary_share_answers(cached: Callable[..., App]) -> None:
    app = cached(v1=2.0)
    ask = asker(app)
    ask(INFER, body(1, 2, 3))
    _, content, length = ask(INFER, body(1, 2, 3, parameters={"binary_data_output": True}))
    assert np.frombuffer(content[length : length + 12], np.float32).tolist() == [2, 4, 6]
    assert counted(app) == [(1, 1)]


@pytest.mark.parametrize(
    "other",
    [
        body(1, 2, 4),
        body(1, 2, 3, 1, 2, 3),
        body(1, 2, 3, outputs=[{"name": "total"}]),
        body(1, 2, 3, outputs=[{"name": "total"}, {"name": "double"}]),
    ],
)
def test_another_request_is_computed(cached: Callable[..., App], other: Any) -> None:
    app = cached(v1=2.0)
    plain = asker(cached(v1=2.0))
    ask = asker(app)
    ask(INFER, body(1, 2, 3))
    assert ask(INFER, other) == plain(INFER, other)
    assert counted(app) == [(0, 2)]


def test_versions_do_not_share_answers(cached: Callable[..., App]) -> None:
    app = cached(v1=1.0, v2=2.0)
    ask = asker(app)
    for _ in range(2):
        for version, total in (("1", 6), ("2", 12)):
            _, answer = ask(f"/v2/models/m/versions/{version}/infer", body(1, 2, 3))
            assert answer["outputs"][0]["data"] == [total / 6, total / 3, total / 2]
    assert counted(app) == [(1, 1), (1, 1)]


def test_a_version_that_is_loaded_anew_gives_no_old_answer(cached: Callable[..., App], tmp_path: Path) -> None:
    ask = asker(cached(v1=2.0))
    assert ask(INFER, body(1, 2, 3))[1]["outputs"][0]["data"] == [2, 4, 6]
    affine(tmp_path / "new.onnx", 5.0).replace(tmp_path / "m" / "1" / "model.onnx")
    assert ask("/v2/repository/models/m/load", {})[0] == 200
    assert ask(INFER, body(1, 2, 3))[1]["outputs"][0]["data"] == [5, 10, 15]


def test_what_was_not_asked_for_the_longest_goes_first(cached: Callable[..., App]) -> None:
    one = 600 + 3 * 4 + 4
    app = cached(limit=2 * one, v1=2.0)
    ask = asker(app)
    for value in (1, 2, 1, 3, 1, 2):  # 3 takes the place of 2, for 1 was asked again
        ask(INFER, body(value, 0, 0))
    assert counted(app) == [(2, 4)]
    cache = app.cache
    assert cache is not None
    assert (len(cache), cache.held, cache.evicted) == (2, 2 * one, 2)


def test_an_answer_larger_than_the_cache_is_not_kept(cached: Callable[..., App]) -> None:
    app = cached(limit=600, v1=2.0)
    ask = asker(app)
    assert [ask(INFER, body(1, 2, 3))[0] for _ in range(2)] == [200, 200]
    assert counted(app) == [(0, 2)]
    assert app.cache is not None
    assert app.cache.held == 0


def test_a_part_of_a_joined_run_does_not_hold_the_whole(cached: Callable[..., App]) -> None:
    import asyncio

    app = cached(v1=2.0)
    (batcher,) = app.repository

    async def work() -> None:
        asked = [Asked({"x": np.full((1, 3), value, np.float32)}, ["double"]) for value in range(8)]
        await asyncio.gather(*[app.run(batcher, each) for each in asked])
        for each in asked:
            (found,) = await app.run(batcher, each)
            assert found.base is None
            assert not found.flags.writeable

    asyncio.run(work())
    assert batcher.meter.compute.count < 8
    assert counted(app) == [(8, 8)]


def test_errors_are_not_kept(tmp_path: Path) -> None:
    app = App(load_models({"m": {"1": lookup(tmp_path / "m.onnx")}}), 10_000)
    app.cache = ResponseCache(1 << 20)
    ask = asker(app)
    wrong = {"inputs": [{"name": "index", "shape": [1], "datatype": "INT64", "data": [9]}]}
    assert [ask(INFER, wrong)[0] for _ in range(2)] == [400, 400]
    assert counted(app) == [(0, 2)]


def test_every_datatype_comes_back_as_it_was(tmp_path: Path) -> None:
    app = App(load_models({"m": {"1": identity(tmp_path / "m.onnx")}}), 10_000)
    app.cache = ResponseCache(1 << 20)
    ask = asker(app)
    values: dict[str, Any] = {"BOOL": [True, False], "BYTES": ["ä\0", ""]}
    tensors = [
        {"name": f"in_{name}", "shape": [2], "datatype": name, "data": values.get(name, [1, 2])} for name in TYPES
    ]
    first, second = (ask(INFER, {"inputs": tensors}) for _ in range(2))
    assert first == second
    assert counted(app) == [(1, 1)]
    tensors[-1]["data"] = ["ä", "\0"]
    assert ask(INFER, {"inputs": tensors})[1]["outputs"][-1]["data"] == ["ä", "\0"]


SPECS = {
    "a": TensorSpec("a", BY_NAME["FP32"], (-1, -1)),
    "s": TensorSpec("s", BY_NAME["BYTES"], (-1,)),
}
REQUESTS = st.tuples(
    hnp.arrays(np.float32, hnp.array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=3)),
    st.lists(st.text(st.sampled_from("a)\0]'"), max_size=3), max_size=3),
    st.lists(st.sampled_from(["y", "z", "y', 'z"]), unique=True, min_size=1),
)


@given(REQUESTS, REQUESTS)
def test_the_digest_tells_all_requests_apart(one: Any, other: Any) -> None:
    def digest(array: Any, strings: list[str], outputs: list[str]) -> bytes:
        return request_digest(Asked({"a": array, "s": np.array(strings, object)}, outputs), SPECS)

    def told(array: Any, strings: list[str], outputs: list[str]) -> Any:
        return array.shape, array.tobytes(), strings, outputs

    assert (digest(*one) == digest(*other)) == (told(*one) == told(*other))


def test_metrics_tell_hits_and_misses(cached: Callable[..., App]) -> None:
    app = cached(v1=2.0)
    ask = asker(app)
    for value in (1, 1, 1, 2):
        ask(INFER, body(value, 0, 0))
    text = metrics.text(metrics.exposition(app.repository, app.cache)).decode()
    found = {s.name: s.value for family in text_string_to_metric_families(text) for s in family.samples}
    assert (found["cache_hits_total"], found["cache_misses_total"]) == (2, 2)
    assert (found["cache_entries"], found["cache_evictions_total"]) == (2, 0)
    assert found["cache_bytes"] == 2 * (600 + 16)
    assert "cache_" not in metrics.text(metrics.exposition(app.repository)).decode()


def test_statistics_count_hits_as_answers_and_not_as_runs(cached: Callable[..., App]) -> None:
    ask = asker(cached(v1=2.0))
    for _ in range(3):
        ask(INFER, body(1, 2, 3))
    (found,) = ask("/v2/models/m/stats")[1]["model_stats"]
    assert (found["inference_count"], found["execution_count"]) == (1, 1)
    stats = found["inference_stats"]
    assert [stats[name]["count"] for name in ("success", "cache_hit", "cache_miss")] == [3, 2, 1]
