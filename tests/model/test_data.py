"""Data fitted to the signature, or one sentence on why it does not fit."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from workbench.errors import UsageError
from workbench.model.data import prepare
from workbench.model.npz import read_npz, write_npz

SIGNATURE = {
    "inputs": [{"name": "pixels", "dtype": "float32", "shape": ["batch", 2]}],
    "outputs": [{"name": "y", "dtype": "float32", "shape": ["batch", 3]}],
    "opset": 17,
}
TWO = {
    "inputs": [
        {"name": "ids", "dtype": "int64", "shape": ["batch", "length"]},
        {"name": "mask", "dtype": "int64", "shape": ["batch", "length"]},
    ],
    "outputs": [],
    "opset": 17,
}
GOOD = {"x": np.arange(8, dtype=np.float32).reshape(4, 2), "y": np.array([0, 1, 2, 0])}


def fit(emit: Any, path: Path, signature: Any = SIGNATURE, metric: str = "accuracy", **more: Path) -> Any:
    described = emit.scratch / "signature.json"
    described.write_text(json.dumps(signature))
    locations = {"evaluate": str(path), **{name: str(file) for name, file in more.items()}}
    params = {"seed": 0, "locations": locations, "metric": metric}
    return prepare({"signature": described, "evaluate": path, **more}, params, emit)


def refused(emit: Any, path: Path, arrays: dict[str, Any] | None = None, **options: Any) -> UsageError:
    if arrays is not None:
        np.savez(path, **arrays)
    with pytest.raises(UsageError) as caught:
        fit(emit, path, **options)
    assert path.name in caught.value.message
    assert caught.value.cure
    return caught.value


def test_a_single_x_serves_a_model_with_one_input(emit: Any, tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", **GOOD)
    found = fit(emit, tmp_path / "d.npz")
    assert found.values == {"evaluate": {"samples": 4}, "calibrate": None}
    arrays = read_npz(found.files["evaluate"], "")
    assert list(arrays) == ["pixels", "y"]
    np.testing.assert_array_equal(arrays["pixels"], GOOD["x"])


@pytest.mark.parametrize("name", ["y", "label", "labels"])
def test_labels_have_three_names(emit: Any, tmp_path: Path, name: str) -> None:
    np.savez(tmp_path / "d.npz", **{"pixels": GOOD["x"], name: GOOD["y"]})
    assert list(read_npz(fit(emit, tmp_path / "d.npz").files["evaluate"], "")["y"]) == [0, 1, 2, 0]


def test_a_calibration_sample_needs_no_labels(emit: Any, tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", **GOOD)
    np.savez(tmp_path / "c.npz", x=GOOD["x"][:3])
    found = fit(emit, tmp_path / "d.npz", calibrate=tmp_path / "c.npz")
    assert found.values["calibrate"] == {"samples": 3}
    assert list(read_npz(found.files["calibrate"], "")) == ["pixels"]


def test_the_same_arrays_give_the_same_bytes_however_they_were_saved(emit: Any, tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", **GOOD)
    np.savez(tmp_path / "b.npz", label=GOOD["y"].astype(np.int32), pixels=np.asfortranarray(GOOD["x"].astype(">f4")))
    first = fit(emit, tmp_path / "a.npz").files["evaluate"].read_bytes()
    assert fit(emit, tmp_path / "b.npz").files["evaluate"].read_bytes() == first


def test_float64_is_rounded_and_said_so(emit: Any, tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=GOOD["x"] + np.float64(0.1), y=GOOD["y"])
    found = fit(emit, tmp_path / "d.npz")
    assert read_npz(found.files["evaluate"], "")["pixels"].dtype == np.float32
    assert "float64" in emit.notes[0]


@pytest.mark.parametrize("metric", ["fidelity", "mse"])
def test_metrics_against_the_original_need_no_labels(emit: Any, tmp_path: Path, metric: str) -> None:
    np.savez(tmp_path / "d.npz", x=GOOD["x"])
    assert fit(emit, tmp_path / "d.npz", metric=metric).values["evaluate"] == {"samples": 4}


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "objects": ({"x": np.array([{}, 1], dtype=object), "y": GOOD["y"]}, "objects"),
    "zero samples": ({"x": np.zeros((0, 2), np.float32), "y": np.zeros(0, int)}, "no samples"),
    "nan": ({"x": GOOD["x"] * np.nan, "y": GOOD["y"]}, "NaN"),
    "infinite": ({"x": GOOD["x"] + np.inf, "y": GOOD["y"]}, "infinite"),
    "wrong width": ({"x": np.zeros((4, 3), np.float32), "y": GOOD["y"]}, "[4, 3]"),
    "wrong rank": ({"x": np.zeros((4, 2, 1), np.float32), "y": GOOD["y"]}, "[4, 2, 1]"),
    "no labels": ({"x": GOOD["x"]}, "labels"),
    "too few labels": ({"x": GOOD["x"], "y": GOOD["y"][:3]}, "3 labels"),
    "fractional labels": ({"x": GOOD["x"], "y": GOOD["y"] + 0.5}, "class indices"),
    "negative labels": ({"x": GOOD["x"], "y": GOOD["y"] - 1}, "class indices"),
    "labels in words": ({"x": GOOD["x"], "y": np.array(["a", "b", "c", "d"])}, "numbers"),
    "another name": ({"images": GOOD["x"], "y": GOOD["y"]}, "'pixels'"),
    "one too many": ({"pixels": GOOD["x"], "extra": GOOD["x"], "y": GOOD["y"]}, "'extra'"),
    "strings": ({"x": np.full((4, 2), "a"), "y": GOOD["y"]}, "<U1"),
    "complex numbers": ({"x": GOOD["x"] + 1j, "y": GOOD["y"]}, "complex"),
    "a value that float32 lacks": ({"x": GOOD["x"].astype(int) + 2**53 + 1, "y": GOOD["y"]}, "int64"),
}


@pytest.mark.parametrize("case", BAD)
def test_data_that_does_not_fit_is_refused_in_words(emit: Any, tmp_path: Path, case: str) -> None:
    arrays, word = BAD[case]
    assert word in refused(emit, tmp_path / "bad.npz", arrays).message


def test_the_refusal_says_what_the_model_takes(emit: Any, tmp_path: Path) -> None:
    assert "pixels: float32[batch,2]" in refused(emit, tmp_path / "bad.npz", {"images": GOOD["x"]}).cure


def test_inputs_must_agree_on_samples_and_on_axes_of_one_name(emit: Any, tmp_path: Path) -> None:
    ids = np.zeros((4, 5), np.int64)
    options = {"signature": TWO, "metric": "fidelity"}
    assert "samples" in refused(emit, tmp_path / "a.npz", {"ids": ids, "mask": ids[:3]}, **options).message
    assert "length" in refused(emit, tmp_path / "b.npz", {"ids": ids, "mask": ids[:, :4]}, **options).message


def test_samples_must_fill_the_calls_of_a_fixed_batch(emit: Any, tmp_path: Path) -> None:
    fixed = {**SIGNATURE, "inputs": [{"name": "pixels", "dtype": "float32", "shape": [3, 2]}]}
    assert "calls of 3" in refused(emit, tmp_path / "d.npz", GOOD, signature=fixed).message


class TestHostileFiles:
    def test_every_truncation_is_refused(self, emit: Any, tmp_path: Path) -> None:
        write_npz(tmp_path / "whole.npz", GOOD)
        whole = (tmp_path / "whole.npz").read_bytes()
        path = tmp_path / "cut.npz"
        for length in range(0, len(whole), 7):
            path.write_bytes(whole[:length])
            refused(emit, path)

    def test_pickles_are_not_opened(self, emit: Any, tmp_path: Path) -> None:
        canary = tmp_path / "canary"

        class Evil:
            def __reduce__(self) -> Any:
                return (canary.touch, ())

        refused(emit, tmp_path / "evil.npz", {"x": np.array([Evil()], dtype=object)})
        assert not canary.exists()

    def test_a_shape_that_claims_terabytes_is_refused(self, emit: Any, tmp_path: Path) -> None:
        path = tmp_path / "bomb.npz"
        header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776, 2), }"
        header += b" " * (118 - len(header)) + b"\n"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(8))
        assert "shape" in refused(emit, path).message

    def test_a_zip_that_unpacks_beyond_the_limit_is_refused(
        self, emit: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("workbench.model.npz.MAX_BYTES", 10**6)
        np.savez_compressed(tmp_path / "bomb.npz", x=np.zeros((10**6, 2), np.float32), y=np.zeros(10**6, int))
        assert (tmp_path / "bomb.npz").stat().st_size < 10**6
        assert "unpacks to" in refused(emit, tmp_path / "bomb.npz").message

    def test_two_arrays_of_one_name_are_refused(self, emit: Any, tmp_path: Path) -> None:
        path = tmp_path / "twice.npz"
        np.savez(path, **GOOD)
        with pytest.warns(UserWarning, match="Duplicate name"), zipfile.ZipFile(path, "a") as archive:
            archive.writestr("x.npy", b"")
        refused(emit, path)

    @pytest.mark.parametrize("data", [b"", b"not a zip", b"\x93NUMPY\x01\x00"])
    def test_other_files_are_refused(self, emit: Any, tmp_path: Path, data: bytes) -> None:
        (tmp_path / "other.npz").write_bytes(data)
        assert "numpy.savez" in refused(emit, tmp_path / "other.npz").cure
