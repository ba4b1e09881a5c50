"""The digits image as a recipe's ``image:`` has it: the parts that differ made anew, the rest those of the session."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from digits_image import CREATED, Emit, Image

from workbench import recipe
from workbench.assets import asset
from workbench.image import oci, wheels
from workbench.image.unpacked import unpack
from workbench.plan import Pins, plan, wheels_request

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


def packages(file: recipe.RecipeFile) -> set[str]:
    """The names of what the wheels are resolved from."""
    return {re.split(r"[=><]", line)[0] for line in wheels_request(file.recipe)["requirements"]}


def made(file: recipe.RecipeFile, image: Image, folder: Path) -> tuple[Path, Path]:
    """Root and config of the digits image with the recipe's own wheels and configuration."""

    def emit(name: str) -> Emit:
        scratch = folder / name
        scratch.mkdir()
        return Emit(scratch)

    pins = wheels.resolve({}, wheels_request(file.recipe), emit("pins")).files["pins"]
    layer = wheels.layer({"pins": pins}, {"created": CREATED}, emit("wheels"))
    manifest = json.loads(image.files["manifest"].read_bytes())
    config = json.loads(image.files["config"].read_bytes())
    config["config"] = oci.runtime_config(step(file, "image").params, "sha256:0")
    config["rootfs"]["diff_ids"][1] = json.loads(layer.files["descriptor"].read_bytes())["diff_id"]
    assert len(manifest["layers"]) == len(config["rootfs"]["diff_ids"])
    (folder / "config").write_text(json.dumps(config))
    base, _, *above = image.blobs
    unpack(folder / "config", [base, layer.files["blob"], *above], folder / "root")
    return folder / "root", folder / "config"
