"""What models a server takes, and where their inference runs."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper
from server_models import affine, asker, load_models, lookup, write_model
from support import ROOT

from workbench.server import model as model_module
from workbench.server import settings as settings_module
from workbench.server.app import App
from workbench.server.batcher import Limits
from workbench.server.cpus import default_threads
from workbench.server.errors import RequestError, ServerError
from workbench.server.model import Model
from workbench.server.model_config import model_config
from workbench.server.repository import Loader, find_models
from workbench.server.settings import Settings, from_environment


def test_models_lie_by_name_and_version(tmp_path: Path) -> None:
    one = affine(tmp_path / "a" / "1" / "model.onnx")
    two = affine(tmp_path / "b" / "3" / "model.onnx")
    assert find_models(tmp_path) == {"a": {"1": one}, "b": {"3": two}}


def test_an_empty_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(ServerError, match=str(tmp_path)):
        find_models(tmp_path)


def test_a_file_that_is_no_model_is_named(tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"not a model")
    with pytest.raises(ServerError, match=r"broken\.onnx cannot be loaded"):
        load_models({"m": {"1": broken}})


def test_a_type_that_the_protocol_lacks_is_named(tmp_path: Path) -> None:
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    sequence = helper.make_tensor_sequence_value_info("many", TensorProto.FLOAT, None)
    path = write_model(
        tmp_path / "m.onnx", [helper.make_node("SequenceConstruct", ["x"], ["many"])], [value], [sequence]
    )
    with pytest.raises(ServerError, match="'many' is a seq"):
        load_models({"m": {"1": path}})


def test_a_name_that_is_no_path_segment_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ServerError, match="cannot name a model"):
        load_models({"a/b": {"1": affine(tmp_path / "m.onnx")}})


def test_a_model_that_refuses_zeros_is_served_all_the_same(tmp_path: Path) -> None:
    reshape = write_model(
        tmp_path / "m.onnx",
        [helper.make_node("Reshape", ["x", "to"], ["y"])],
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [4]),
            helper.make_tensor_value_info("to", TensorProto.INT64, [3]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["a", "b", "c"])],
    )
    said: list[str] = []
    loaded = Loader(1, log=said.append).load("m", "1", reshape).model
    assert "no warm-up on zeros" in said[0]
    feed = {"x": np.ones(4, np.float32), "to": np.array([2, 1, 2])}
    assert loaded.run(feed, ["y"])[0].shape == (2, 1, 2)


@pytest.mark.parametrize(("rows", "batch", "dims"), [(16, 16, [3]), (1, 0, [-1, 3])])
def test_the_batch_of_a_configuration_is_what_is_joined(tmp_path: Path, rows: int, batch: int, dims: list[int]) -> None:
    repository = load_models({"m": {"1": affine(tmp_path / "m.onnx")}}, Limits(rows=rows))
    config = model_config(repository.get("m").model)
    assert (config["max_batch_size"], [each["dims"] for each in config["input"]]) == (batch, [dims])


def test_a_slow_model_leaves_the_event_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[str] = []
    run = model_module.Model.run

    def watched(self: Any, feed: Any, outputs: Any) -> Any:
        threads.append(threading.current_thread().name)
        return run(self, feed, outputs)

    repository = load_models({"m": {"1": lookup(tmp_path / "m.onnx")}})
    monkeypatch.setattr(model_module.Model, "run", watched)
    ask = asker(App(repository, 1000))
    body = {"inputs": [{"name": "index", "shape": [1], "datatype": "INT64", "data": [1]}]}
    for limit, where in ((10**15, "MainThread"), (-1, "MainThread"), (-1, "inference_0")):
        # The first run over the limit is found out by its own time, so the one after it is elsewhere.
        monkeypatch.setattr(model_module, "SLOW_NS", limit)
        assert ask("/v2/models/m/infer", body)[0] == 200
        assert threads[-1] == where


def test_settings_come_from_the_environment() -> None:
    assert from_environment({}) == Settings(threads=default_threads())
    settings = from_environment({"WORKBENCH_PORT": "0", "WORKBENCH_THREADS": "2", "WORKBENCH_MODELS": "/m"})
    assert (settings.port, settings.threads, settings.models) == (0, 2, Path("/m"))


@pytest.mark.parametrize(
    ("name", "value"), [("WORKBENCH_PORT", "65536"), ("WORKBENCH_PORT", "http"), ("WORKBENCH_THREADS", "0")]
)
def test_a_setting_that_cannot_be_is_named(name: str, value: str) -> None:
    with pytest.raises(ServerError, match=name):
        from_environment({name: value})


def test_the_server_needs_only_what_the_image_has() -> None:
    program = (
        "import sys, workbench.server.serve\n"
        "print(*sorted(name for name in sys.modules if name.startswith('workbench')))\n"
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    ours, tops = (set(line.split()) for line in shown.splitlines())
    assert all(name == "workbench" or name.startswith("workbench.server") for name in ours)
    assert not tops & {"psutil", "onnx", "scipy", "sklearn", "pydantic", "typer", "rich", "mlperf_loadgen"}


def test_the_readme_has_the_settings_as_they_are() -> None:
    table = str(settings_module.__doc__).partition("\n\n")[2].partition("\n\n")[0]
    assert table.startswith("=====")
    assert table in (ROOT / "README.md").read_text()


def test_what_a_model_refuses_is_told_to_the_client_and_not_to_the_log(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = Model("m", "1", lookup(tmp_path / "m.onnx"), 1)
    with pytest.raises(RequestError, match="does not take these values"):
        model.run({"index": np.array([99])}, ["row"])
    assert capfd.readouterr().err == ""
