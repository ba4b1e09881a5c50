"""Versions side by side: chosen by weight, in the shadow, loaded and unloaded while requests are answered."""

from __future__ import annotations

import asyncio
import gc
import json
import threading
import urllib.request
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from server_models import Ask, affine, asker, chain, lookup, write_model
from server_process import Process, running

from workbench.server import batcher as batcher_module
from workbench.server import model as model_module
from workbench.server.app import App
from workbench.server.errors import ServerError
from workbench.server.model import Model
from workbench.server.repository import Loader, Repository, Split, Traffic, find_models
from workbench.server.routes import openapi_route

BODY = {"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 1, 1]}]}
INFER = "/v2/models/m/infer"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a model in versions 1, 2 and 3, of which n multiplies by n."""
    for version in (1, 2, 3):
        affine(tmp_path / "m" / str(version) / "model.onnx", float(version))
    return tmp_path


@pytest.fixture
def serve(folder: Path) -> Callable[..., App]:
    """Serves that folder, with some traffic, open to changes."""

    def served(**traffic: Any) -> App:
        loader = Loader(1)
        spread = {"m": Traffic(**traffic)} if traffic else {}
        return App(
            Repository(loader, loader.load_all(find_models(folder), spread), folder), 10_000, change_repository=True
        )

    return served


def versions_of(ask: Ask, times: int, path: str = INFER) -> list[str]:
    return [ask(path, BODY)[1]["model_version"] for _ in range(times)]


def load(ask: Ask, name: str = "m", **config: Any) -> Any:
    return ask(f"/v2/repository/models/{name}/load", {"parameters": {"config": json.dumps(config)}})


def test_weights_spread_requests_evenly_in_time() -> None:
    split = Split({"a": 3, "b": 1, "c": 0})
    seen = [split.next() for _ in range(400)]
    assert (seen.count("a"), seen.count("b")) == (300, 100)
    assert all("b" in seen[at : at + 4] for at in range(0, 400, 4))


def test_traffic_is_shared_by_weight_and_a_named_version_is_that_one(serve: Callable[..., App]) -> None:
    ask = asker(serve(traffic={"1": 90, "2": 10}))
    seen = versions_of(ask, 100)
    assert (seen.count("1"), seen.count("2")) == (90, 10)
    assert versions_of(ask, 2, "/v2/models/m/versions/3/infer") == ["3", "3"]


@pytest.mark.parametrize("path", ["/v2/models/m", "/v2/models/m/ready", "/v2/models/m/config", "/v1/models/m", "/doc"])
def test_who_asks_how_a_model_is_takes_no_turn(serve: Callable[..., App], path: str) -> None:
    """Else a client that asks before each request would get all its answers from one of two versions."""
    app = serve(traffic={"1": 1, "2": 1})
    app.routes["/doc"] = openapi_route(app)
    ask = asker(app)
    seen = []
    for _ in range(4):
        assert ask(path)[0] == 200
        seen += versions_of(ask, 1)
    assert sorted(seen) == ["1", "1", "2", "2"]


def test_a_shadow_gets_a_copy_that_nobody_sees(serve: Callable[..., App]) -> None:
    app = serve(traffic={"1": 1}, shadow="2")
    first, second, third = app.repository

    async def work() -> None:
        for _ in range(3):
            batcher = app.repository.get("m")
            asked = _asked()
            await app.run(batcher, asked, app.repository.served("m"))
        await second.drained()

    asyncio.run(work())
    assert [each.meter.answered for each in (first, second, third)] == [3, 3, 0]


def test_a_shadow_that_fails_is_counted_and_harms_nobody(serve: Callable[..., App], monkeypatch: Any) -> None:
    app = serve(traffic={"1": 1}, shadow="2")
    shadow = app.repository.get("m", "2")

    async def work() -> Any:
        monkeypatch.setattr(shadow.model, "_session", None)
        found = await app.run(app.repository.get("m"), _asked(), app.repository.served("m"))
        await shadow.drained()
        return found

    assert asyncio.run(work())[0].tolist() == [[1, 1, 1]]
    assert shadow.meter.failed == {"model": 1}


def test_a_request_is_computed_before_its_copy_in_the_shadow(serve: Callable[..., App], monkeypatch: Any) -> None:
    """Slow models share a thread: else each request would wait for the shadow's run as well as for its own."""
    app = serve(traffic={"1": 1}, shadow="2")
    first, shadow, _ = app.repository
    first.model.slow = shadow.model.slow = True
    ran: list[str] = []
    run_ = Model.run

    def noted(self: Model, feed: Any, outputs: list[str]) -> Any:
        ran.append(self.version)
        return run_(self, feed, outputs)

    monkeypatch.setattr(Model, "run", noted)

    async def work() -> None:
        await app.run(first, _asked(), app.repository.served("m"))
        await shadow.drained()

    asyncio.run(work())
    assert ran == ["1", "2"]


def test_what_a_shadow_holds_is_bounded_as_bodies_are(
    serve: Callable[..., App], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The requests are answered, and their bodies not counted any more, while it still has them before it."""
    # However busy the machine: a run that took long would have the next one wait in the thread that is held here.
    monkeypatch.setattr(model_module, "SLOW_NS", 10**15)
    monkeypatch.setattr(batcher_module, "STUCK", 3600)
    app = serve(traffic={"1": 1}, shadow="2")
    first, shadow, _ = app.repository
    asked = _asked()
    app._max_bodies = 5 * asked.feed["x"].nbytes

    async def work() -> None:
        hold = threading.Event()
        shadow._pool.submit(hold.wait)
        shadow.model.slow = True
        try:
            for _ in range(8):
                await app.run(first, asked, app.repository.served("m"))
            assert (shadow.meter.waiting, shadow.meter.failed) == (5, {"full": 3})
        finally:
            hold.set()
        await shadow.drained()
        await app.run(first, asked, app.repository.served("m"))
        await shadow.drained()

    asyncio.run(work())
    assert (first.meter.answered, shadow.meter.answered) == (9, 6)
    assert app._shadowed == 0


def _asked() -> Any:
    from workbench.server.protocol import Asked

    return Asked({"x": np.ones((1, 3), np.float32)}, ["double"])


def test_a_new_version_is_loaded_and_the_traffic_switched(serve: Callable[..., App], folder: Path) -> None:
    ask = asker(serve())
    assert versions_of(ask, 1) == ["3"]
    affine(folder / "m" / "4" / "model.onnx", 4.0)
    assert load(ask)[0] == 200
    assert versions_of(ask, 1) == ["4"]
    assert load(ask, traffic={"1": 1, "4": 1}, versions=["1", "4"])[0] == 200
    assert sorted(versions_of(ask, 4)) == ["1", "1", "4", "4"]
    assert ask("/v2/models/m/versions/2/infer", BODY)[0] == 404


def test_a_file_that_changed_is_loaded_anew_and_others_stay(serve: Callable[..., App], folder: Path) -> None:
    app = serve()
    ask = asker(app)
    before = {each.model.version: each for each in app.repository}
    again = affine(folder / "new.onnx", 30.0)
    again.replace(folder / "m" / "3" / "model.onnx")
    assert load(ask)[0] == 200
    after = {each.model.version: each for each in app.repository}
    assert [after[version] is before[version] for version in "123"] == [True, True, False]
    assert ask(INFER, BODY)[1]["outputs"][0]["data"] == [30, 30, 30]


def test_a_version_whose_weights_lie_in_a_file_of_their_own_is_loaded_anew_when_that_changes(
    serve: Callable[..., App], folder: Path
) -> None:
    def write(to: Path, factor: float) -> Path:
        model = onnx.load(chain(to / "model.onnx", 1, 3))
        model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.full((3, 3), factor, np.float32), "w0"))
        onnx.save(model, to / "model.onnx", save_as_external_data=True, location="weights", size_threshold=0)
        return to

    write(folder / "m" / "4", 40.0)
    ask = asker(serve())
    assert ask(INFER, BODY)[1]["outputs"][0]["data"] == [120, 120, 120]
    (write(folder / "new", 50.0) / "weights").replace(folder / "m" / "4" / "weights")
    assert load(ask)[0] == 200
    assert ask(INFER, BODY)[1]["outputs"][0]["data"] == [150, 150, 150]


def test_a_file_that_changed_is_loaded_anew_though_another_failed_beside_it(
    serve: Callable[..., App], folder: Path
) -> None:
    """Of the loading that failed nothing came to serve, so nothing of it may pass for what is served."""
    app = serve()
    ask = asker(app)
    affine(folder / "new.onnx", 10.0).replace(folder / "m" / "1" / "model.onnx")
    other = folder / "m" / "2" / "model.onnx"
    other.unlink()
    other.write_bytes(b"nonsense")
    assert load(ask)[0] == 400
    other.unlink()
    affine(other, 20.0)
    assert load(ask)[0] == 200
    answers = [ask(f"/v2/models/m/versions/{version}/infer", BODY)[1]["outputs"][0]["data"] for version in "123"]
    assert answers == [[10, 10, 10], [20, 20, 20], [3, 3, 3]]


def test_unloading_takes_a_model_away_and_loading_brings_it_back(serve: Callable[..., App]) -> None:
    ask = asker(serve())
    assert {each["state"] for each in ask("/v2/repository/index", {})[1]} == {"READY"}
    assert ask("/v2/repository/models/m/unload", {})[0] == 200
    assert ask(INFER, BODY)[0] == 404
    assert ask("/v2/models/m/ready")[0] == 404
    listed = ask("/v2/repository/index", {})[1]
    assert [(each["name"], each["version"], each["state"]) for each in listed] == [
        ("m", version, "UNAVAILABLE") for version in "123"
    ]
    assert ask("/v2/repository/index", {"ready": True})[1] == []
    assert load(ask, versions=["2"])[0] == 200
    assert versions_of(ask, 1) == ["2"]


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"versions": ["7"]}, "no version '7'"),
        ({"traffic": {"1": 1}, "versions": ["2"]}, "no version '1'"),
        ({"shadow": "9"}, "no version '9'"),
        ({"versions": []}, "unload the model instead"),
        ({"traffic": {"1": -1}}, "weights"),
        ({"traffic": {"1": 0}}, "weights"),
        ({"nonsense": 1}, "nonsense"),
    ],
)
def test_what_cannot_be_loaded_changes_nothing(serve: Callable[..., App], config: Any, words: str) -> None:
    ask = asker(serve())
    status, answer = load(ask, **config)
    assert status == 400
    assert words in answer["error"]
    assert versions_of(ask, 1) == ["3"]


def test_a_file_that_is_no_model_changes_nothing(serve: Callable[..., App], folder: Path) -> None:
    ask = asker(serve())
    (folder / "m" / "4").mkdir()
    (folder / "m" / "4" / "model.onnx").write_bytes(b"nonsense")
    status, answer = load(ask)
    assert status == 400
    assert "cannot be loaded" in answer["error"]
    assert versions_of(ask, 1) == ["3"]


def test_versions_that_share_requests_have_the_same_tensors(serve: Callable[..., App], folder: Path) -> None:
    ask = asker(serve())
    lookup(folder / "m" / "4" / "model.onnx")
    assert load(ask)[0] == 200  # it may lie there, it may even be the newest
    status, answer = load(ask, traffic={"1": 1}, shadow="4")
    assert status == 400
    assert "differ in their tensors" in answer["error"]


def test_a_load_that_nobody_waits_for_goes_on_and_another_one_finds_it_done(
    serve: Callable[..., App], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with a deadline of gRPC that is shorter than a large model takes, and a client that tries again."""
    repository = serve().repository
    affine(folder / "m" / "4" / "model.onnx", 4.0)
    begun, go_on = threading.Event(), threading.Event()
    loads: list[str] = []
    load_ = Loader.load

    def held(self: Loader, name: str, version: str, path: Path) -> Any:
        loads.append(version)
        begun.set()
        assert go_on.wait(30)
        return load_(self, name, version, path)

    monkeypatch.setattr(Loader, "load", held)

    async def work() -> None:
        first = asyncio.create_task(repository.load("m"))
        await asyncio.to_thread(begun.wait)
        first.cancel()
        await asyncio.wait([first])
        second = asyncio.create_task(repository.load("m"))
        await asyncio.sleep(0)
        go_on.set()
        await second

    asyncio.run(work())
    assert loads == ["4"]
    assert repository.get("m").model.version == "4"


@pytest.mark.parametrize("name", ["..", "../m", "none", ""])
def test_only_models_of_the_folder_are_loaded(serve: Callable[..., App], name: str) -> None:
    assert load(asker(serve()), name)[0] == 404


def test_without_leave_clients_change_nothing(folder: Path) -> None:
    loader = Loader(1)
    ask = asker(App(Repository(loader, loader.load_all(find_models(folder), {}), folder), 10_000))
    status, answer = ask("/v2/repository/models/m/unload", {})
    assert status == 403
    assert "WORKBENCH_REPOSITORY=1" in answer["error"]
    assert versions_of(ask, 1) == ["3"]


def test_traffic_that_cannot_be_keeps_the_server_from_starting(folder: Path) -> None:
    for traffic, words in (({"other": Traffic()}, "'other'"), ({"m": Traffic(traffic={"9": 1})}, "'9'")):
        with pytest.raises(ServerError, match=words):
            Loader(1).load_all(find_models(folder), traffic)


def test_a_switch_of_versions_under_load_fails_no_request(tmp_path: Path) -> None:
    """Requests go on while versions come and go; each is answered by one of them."""
    for version in (1, 2):
        write_slow(tmp_path / "m" / str(version) / "model.onnx")
    loader = Loader(1)
    app = App(Repository(loader, loader.load_all(find_models(tmp_path), {}), tmp_path), 10_000, change_repository=True)

    async def work() -> list[str]:
        answered: list[str] = []
        done = False

        async def client() -> None:
            while not done:
                batcher = app.repository.get("m")
                await app.run(batcher, _asked_all(), app.repository.served("m"))
                answered.append(batcher.model.version)

        clients = [asyncio.create_task(client()) for _ in range(8)]
        for round_ in range(6):
            await app.repository.load("m", Traffic(versions=[str(1 + round_ % 2)]))
            seen = len(answered)
            while len(answered) < seen + 20:
                await asyncio.sleep(0)
        done = True
        await asyncio.gather(*clients)
        return answered

    answered = asyncio.run(asyncio.wait_for(work(), 60))
    assert set(answered) == {"1", "2"}


@pytest.mark.integration
@pytest.mark.parametrize(("layers", "width"), [(400, 100), (6, 1024)])
def test_memory_of_models_that_are_dropped_goes_back(tmp_path: Path, layers: int, width: int) -> None:
    """Of weights too small for mappings of their own, and of large ones."""
    weights = 4 * layers * width**2
    affine(tmp_path / "other" / "1" / "model.onnx")
    for version in (1, 2):
        chain(tmp_path / "m" / str(version) / "model.onnx", layers, width, version)

    def change(server: Process, what: str, **config: object) -> int:
        body = json.dumps({"parameters": {"config": json.dumps(config)}} if config else {}).encode()
        with urllib.request.urlopen(f"{server.url}/v2/repository/models/m/{what}", body, timeout=60):
            return server.memory("VmRSS")

    with running(tmp_path, WORKBENCH_THREADS="1", WORKBENCH_REPOSITORY="1", WORKBENCH_BATCH_ROWS="1") as server:
        without = change(server, "unload")
        sizes = [change(server, "load", versions=[str(1 + turn % 2)]) for turn in range(10)]
        assert max(sizes) < sizes[0] + weights  # where each version stayed it would be nine times that
        assert change(server, "unload") < without + weights
        assert sizes[0] > without + weights  # so it is seen whether a model is there


def test_nothing_of_a_version_outlives_it(serve: Callable[..., App]) -> None:
    """That is seen at once: nobody waits for a collection of cycles, which are rare in a server."""
    app = serve()
    ask = asker(app)
    assert load(ask, versions=["1"])[0] == 200
    gc.disable()
    try:
        for version in "212":
            assert versions_of(ask, 1)
            (before,) = app.repository
            parts = [weakref.ref(part) for part in (before, before.meter, before.model, before.model._session)]
            del before
            assert load(ask, versions=[version])[0] == 200
            assert [part() for part in parts] == [None] * 4
    finally:
        gc.enable()


def test_nothing_is_kept_of_names_that_clients_make_up(serve: Callable[..., App]) -> None:
    app = serve()
    ask = asker(app)
    assert load(ask, "made-up")[0] == 404
    assert ask("/v2/repository/models/too/unload", {})[0] == 404
    assert not app.repository._changing


def _asked_all() -> Any:
    from workbench.server.protocol import Asked

    return Asked({"x": np.ones((1, 64), np.float32)}, ["y"])


def write_slow(path: Path) -> Path:
    from onnx import TensorProto, helper, numpy_helper

    weights = numpy_helper.from_array(np.eye(64, dtype=np.float32), "w")
    return write_model(
        path,
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 64])],
        [weights],
    )
