"""The layers that are ours: the server's source and the model."""

from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np
import pytest
from image_helpers import CREATED, Emit

from workbench.errors import UsageError
from workbench.image import content


def names(blob: Path) -> list[str]:
    with tarfile.open(blob) as archive:
        return archive.getnames()


def model(folder: Path, data: bytes) -> dict[str, Path]:
    (folder / "model").write_bytes(data)
    (folder / "signature").write_bytes(b"{}")
    return {"model": folder / "model", "signature": folder / "signature"}


def test_the_server_and_nothing_else_of_workbench_goes_in(emit: Emit) -> None:
    found = names(content.server_layer({}, {"created": CREATED}, emit).files["blob"])
    assert "app/workbench/__init__.py" in found
    assert "app/workbench/server/__main__.py" in found
    files = [name for name in found if name.count("/") > 1 and "." in name]
    assert all(name.startswith("app/workbench/server/") for name in files if name != "app/workbench/__init__.py")
    assert not any("__pycache__" in name for name in found)


def test_the_model_lies_where_the_server_looks(emit: Emit, tmp_path: Path) -> None:
    params = {"name": "digits", "version": "1", "created": CREATED}
    outputs = content.model_layer(model(tmp_path, b"weights"), params, emit)
    assert {"models/digits/1/model.onnx", "models/digits/1/signature.json"} <= set(names(outputs.files["blob"]))


def test_weights_are_stored_and_what_repeats_is_compressed(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).standard_normal(1 << 19).astype(np.float32).tobytes()
    params = {"name": "a", "version": "1", "created": CREATED}
    for data, level in ((noise, "level 0"), (noise[: 1 << 18] + bytes(1 << 21), "level 1")):
        folder = tmp_path / level
        folder.mkdir()
        values = content.model_layer(model(tmp_path, data), params, Emit(folder)).values
        assert values["compressor"].endswith(level)


def test_an_empty_model_is_no_reason_to_fail(emit: Emit, tmp_path: Path) -> None:
    assert not content.compresses(model(tmp_path, b"")["model"])


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".hidden", "a b", "a" * 129])
def test_a_name_that_is_no_part_of_a_path_is_refused(emit: Emit, tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError):
        content.model_layer(model(tmp_path, b"x"), {"name": name, "version": "1", "created": CREATED}, emit)
