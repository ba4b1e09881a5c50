"""An image whose recipe asks for gRPC has what it takes, and answers over it."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc
from digits_image import Image
from recipe_image import loaded, made, packages, step

from workbench.assets import asset
from workbench.image.sandbox import Container
from workbench.server.session import open_session


def test_only_a_recipe_that_asks_for_it_gets_it(tmp_path: Path) -> None:
    without, having = loaded(tmp_path / "a", ""), loaded(tmp_path / "b", ", grpc: 8001")
    assert packages(having) - packages(without) == {"grpcio", "protobuf"}
    assert "grpc" not in without.recipe.normal_form()["image"]
    assert "grpc" not in step(without, "image").params
    assert step(having, "image").params["grpc"] == 8001


@pytest.mark.parametrize(("more", "words"), [(", grpc: 0", "grpc"), (", grpc: 9000, port: 9000", "another port")])
def test_a_port_that_cannot_be_is_refused(tmp_path: Path, more: str, words: str) -> None:
    with pytest.raises(Exception, match=words) as refused:
        loaded(tmp_path / "a", more)
    assert type(refused.value).__module__ == "workbench.errors"


@pytest.mark.integration
def test_the_image_answers_over_grpc(image: Image, tmp_path: Path) -> None:
    file = loaded(tmp_path / "project", ", grpc: 8001")

    root, config = made(file, image, tmp_path)
    session = open_session(asset("digits/digits.onnx"), 1)
    (given,), (gives,) = session.get_inputs(), session.get_outputs()
    with np.load(asset("digits/test.npz")) as data:
        rows = data["x"][:2].astype(np.float32)
    with Container(root, config) as container:
        while not (found := re.search(r"gRPC at 127\.0\.0\.1:(\d+)", container.last_words())):
            pass  # it is ready, so it has said so; what it says comes by way of a thread
        with tritonclient.grpc.InferenceServerClient(f"127.0.0.1:{found[1]}") as client:
            tensor = tritonclient.grpc.InferInput(given.name, list(rows.shape), "FP32")
            tensor.set_data_from_numpy(rows)
            answered = client.infer("digits", [tensor]).as_numpy(gives.name)
    np.testing.assert_allclose(answered, session.run(None, {given.name: rows})[0], rtol=1e-5, atol=1e-6)
