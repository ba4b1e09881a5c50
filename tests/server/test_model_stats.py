"""The protocol's statistics extension, asked with a client that nobody here wrote."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import tritonclient.http as triton
from server_models import Ask, affine
from server_process import running

from workbench.server.meter import Meter


def test_tritonclient_reads_what_was_answered(tmp_path: Path) -> None:
    affine(tmp_path / "affine" / "1" / "model.onnx", 1.0)
    affine(tmp_path / "affine" / "2" / "model.onnx", 2.0)
    affine(tmp_path / "other" / "1" / "model.onnx")
    begun = time.time_ns() // 1_000_000
    with (
        running(tmp_path) as server,
        triton.InferenceServerClient(f"127.0.0.1:{server.ready['port']}") as client,
    ):
        assert "statistics" in client.get_server_metadata()["extensions"]
        for rows in (1, 1, 5, 300):
            tensor = triton.InferInput("x", [rows, 3], "FP32").set_data_from_numpy(np.ones((rows, 3), np.float32))
            client.infer("affine", [tensor])
        with pytest.raises(triton.InferenceServerException):
            client.infer("affine", [triton.InferInput("y", [1], "FP32").set_data_from_numpy(np.ones(1, np.float32))])
        everything = client.get_inference_statistics()["model_stats"]
        of_model = client.get_inference_statistics("affine")["model_stats"]
        (found,) = client.get_inference_statistics("affine", "2")["model_stats"]
        with pytest.raises(triton.InferenceServerException, match="no version '9'"):
            client.get_inference_statistics("affine", "9")
        with pytest.raises(triton.InferenceServerException, match="no model 'none'"):
            client.get_inference_statistics("none")
    named = [(each["name"], each["version"]) for each in everything]
    assert named == [("affine", "1"), ("affine", "2"), ("other", "1")]
    assert [each["version"] for each in of_model] == ["1", "2"]
    assert of_model[0]["inference_count"] == of_model[0]["last_inference"] == 0
    assert found == of_model[1]
    assert begun <= found["last_inference"] <= time.time_ns() // 1_000_000
    assert (found["inference_count"], found["execution_count"]) == (307, 4)
    stats = found["inference_stats"]
    counts = {name: each["count"] for name, each in stats.items() if each["count"]}
    assert counts == {"success": 4, "fail": 1, "queue": 4, "compute_infer": 4}
    assert stats["success"]["ns"] == pytest.approx(stats["queue"]["ns"] + stats["compute_infer"]["ns"], abs=10)
    batches = {each["batch_size"]: each["compute_infer"] for each in found["batch_stats"]}
    assert {size: each["count"] for size, each in batches.items()} == {1: 2, 5: 1, 512: 1}
    assert sum(each["ns"] for each in batches.values()) == pytest.approx(stats["compute_infer"]["ns"], abs=10)


def test_the_addresses_are_those_of_the_extension(ask: Ask) -> None:
    assert ask("/v2/models/stats")[0] == 200
    assert ask("/v2/models/affine/versions/2/stats")[1]["model_stats"][0]["version"] == "2"
    for nothing in ("affine/versions", "affine/versions/", ""):
        assert ask(f"/v2/models/{nothing}/stats")[0] == 404
    assert ask("/v2/models/affine/stats", {})[0] == 405


def test_runs_of_any_size_take_a_bounded_number_of_counts() -> None:
    meter = Meter()
    for rows in range(1, 5000):
        meter.ran(rows, 0.5)
    assert len(meter.runs) == 256 + 5
    assert meter.joined.count == 4999
    assert meter.joined.total == sum(range(1, 5000))
    assert meter.joined.counts[:3] == [1, 1, 2]
