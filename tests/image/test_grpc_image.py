"""An image whose recipe asks for gRPC has what it takes, and answers over it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
from digits_image import CREATED, Emit, Image

from workbench import recipe
from workbench.assets import asset
from workbench.image import oci, wheels
from workbench.image.sandbox import Container
from workbench.image.unpacked import unpack
from workbench.plan import Pins, plan, wheels_request
from workbench.server.session import open_session

TEXT = """\
workbench: 1
name: digits
model: {source: digits.onnx}
data: {evaluate: test.npz, metric: accuracy}
image: {base: {debian: bookworm}%s}
"""


def loaded(folder: Path, more: str) -> recipe.RecipeFile:
    """A recipe of the shipped digits."""
    (folder / ".workbench").mkdir(parents=True)
    for name in ("digits.onnx", "test.npz"):
        (folder / name).symlink_to(asset(f"digits/{name}"))
    path = folder / "recipes" / "digits.yaml"
    path.parent.mkdir()
    path.write_text(TEXT % more)
    return recipe.load(path)


def step(file: recipe.RecipeFile, name: str) -> Any:
    """A step of the recipe's plan."""
    return next(each for each in plan(file, Pins()) if each.id == name)


def test_only_a_recipe_that_asks_for_it_gets_it(tmp_path: Path) -> None:
    without, having = loaded(tmp_path / "a", ""), loaded(tmp_path / "b", ", grpc: 8001")
    packages = [
        {re.split(r"[=><]", line)[0] for line in wheels_request(each.recipe)["requirements"]}
        for each in (without, having)
    ]
    assert packages[1] - packages[0] == {"grpcio", "protobuf"}
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

    def emit(name: str) -> Emit:
        scratch = tmp_path / name
        scratch.mkdir()
        return Emit(scratch)

    pins = wheels.resolve({}, wheels_request(file.recipe), emit("pins")).files["pins"]
    layer = wheels.layer({"pins": pins}, {"created": CREATED}, emit("wheels"))
    manifest = json.loads(image.files["manifest"].read_bytes())
    config = json.loads(image.files["config"].read_bytes())
    config["config"] = oci.runtime_config(step(file, "image").params, "sha256:0")
    config["rootfs"]["diff_ids"][1] = json.loads(layer.files["descriptor"].read_bytes())["diff_id"]
    assert len(manifest["layers"]) == len(config["rootfs"]["diff_ids"])
    (tmp_path / "config").write_text(json.dumps(config))
    base, _, server, model = image.blobs
    unpack(tmp_path / "config", [base, layer.files["blob"], server, model], tmp_path / "root")

    session = open_session(asset("digits/digits.onnx"), 1)
    (given,), (gives,) = session.get_inputs(), session.get_outputs()
    with np.load(asset("digits/test.npz")) as data:
        rows = data["x"][:2].astype(np.float32)
    with Container(tmp_path / "root", tmp_path / "config") as container:
        while not (found := re.search(r"gRPC at 127\.0\.0\.1:(\d+)", container.last_words())):
            pass  # it is ready, so it has said so; what it says comes by way of a thread
        with tritonclient.grpc.InferenceServerClient(f"127.0.0.1:{found[1]}") as client:
            tensor = tritonclient.grpc.InferInput(given.name, list(rows.shape), "FP32")
            tensor.set_data_from_numpy(rows)
            answered = client.infer("digits", [tensor]).as_numpy(gives.name)
    np.testing.assert_allclose(answered, session.run(None, {given.name: rows})[0], rtol=1e-5, atol=1e-6)
