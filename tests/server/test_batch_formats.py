"""workbench batch gives what onnxruntime gives, from and to every format."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from batch_files import FORMATS, expected, read, same, write
from onnx import TensorProto, helper, numpy_helper
from server_models import TYPES, affine, identity, lookup, write_model
from support import workbench

from workbench.batch.score import Job, score
from workbench.errors import MachineLacks, UsageError

ROWS = 10_000
"""More than two chunks, and not a multiple of one."""


def numbers(rows: int = ROWS, width: int = 3) -> Any:
    return np.random.default_rng(7).standard_normal((rows, width)).astype(np.float32)


def info(name: str, kind: int, shape: list[Any]) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


@pytest.mark.parametrize("into", FORMATS)
@pytest.mark.parametrize("of", FORMATS)
def test_every_format_gives_what_onnxruntime_gives(tmp_path: Path, of: str, into: str) -> None:
    model = affine(tmp_path / "m.onnx")
    arrays = {"x": numbers()}
    out = tmp_path / f"out.{into}"
    summary = score(Job(model, write(tmp_path / f"in.{of}", arrays), out))
    assert (summary.rows, summary.rejected, summary.alone) == (ROWS, 0, False)
    like = expected(model, arrays)
    assert same(read(out, like), like)


@pytest.mark.parametrize("form", FORMATS)
def test_every_datatype_by_the_name_of_the_input(tmp_path: Path, form: str) -> None:
    model = identity(tmp_path / "m.onnx")
    dtypes = {name: helper.tensor_dtype_to_np_dtype(kind) for name, kind in TYPES.items()}
    arrays = {
        f"in_{name}": np.array([True, False, True])
        if name == "BOOL"
        else np.array(["ä", 'a "quoted", part', "two\nlines"], object)
        if name == "BYTES"
        else np.array([0, 1, np.iinfo(dtype).max if dtype.kind in "iu" else 0.1], dtype)
        for name, dtype in dtypes.items()
    }
    like = expected(model, arrays)
    out = tmp_path / f"out.{form}"
    job = Job(model, write(tmp_path / f"in.{form}", arrays), out)
    if form == "npz":
        # Only pickled objects would hold text of any length there.
        with pytest.raises(UsageError, match="out_BYTES"):
            score(job)
        like.pop("out_BYTES")
        job = Job(model, job.input, out, tuple(like))
    score(job)
    assert same(read(out, like), like)


def test_what_is_not_a_number_comes_through(tmp_path: Path) -> None:
    model = affine(tmp_path / "m.onnx")
    values = np.array([[np.nan, 1, 2], [np.inf, 1, 2], [0.1, -0.0, 1e-42]], np.float32)
    for of, into in (("npz", "csv"), ("csv", "npz"), ("parquet", "parquet")):
        out = tmp_path / f"{of}.{into}"
        score(Job(model, write(tmp_path / f"in.{of}", {"x": values}), out))
        like = expected(model, {"x": values})
        assert same(read(out, like), like)


def test_a_table_without_header_goes_by_the_order_of_its_columns(tmp_path: Path) -> None:
    model = affine(tmp_path / "m.onnx")
    (tmp_path / "in.csv").write_bytes(b"\xef\xbb\xbf1,2,3\r\n\r\n4,5,6")
    score(Job(model, tmp_path / "in.csv", tmp_path / "out.csv"))
    assert (tmp_path / "out.csv").read_text().splitlines() == [
        "double.0,double.1,double.2,total",
        "2.0,4.0,6.0,6.0",
        "8.0,10.0,12.0,15.0",
    ]


def test_columns_of_other_names_go_by_order_and_named_ones_by_name(tmp_path: Path) -> None:
    model = affine(tmp_path / "m.onnx")
    for header, total in (("a,b,c", [2, 4, 6]), ("x.2,x.0,x.1", [4, 6, 2]), ("id,x.2,x.0,x.1", [6, 8, 4])):
        row = ",".join(str(number) for number in range(1, header.count(",") + 2))
        (tmp_path / "in.csv").write_text(f"{header}\n{row}\n")
        score(Job(model, tmp_path / "in.csv", tmp_path / "out.jsonl", ("double",), fresh=True))
        assert json.loads((tmp_path / "out.jsonl").read_text()) == {"double": total}


def test_json_lines_may_hold_the_value_alone(tmp_path: Path) -> None:
    model = affine(tmp_path / "m.onnx")
    (tmp_path / "in.jsonl").write_text('[1, 2, 3]\n{"x": [4, 5, 6], "other": null}\n')
    score(Job(model, tmp_path / "in.jsonl", tmp_path / "out.jsonl", ("total",)))
    assert [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()] == [
        {"total": [6]},
        {"total": [15]},
    ]


def test_the_array_x_is_the_one_input_and_others_are_not_used(tmp_path: Path) -> None:
    model = write_model(
        tmp_path / "m.onnx",
        [helper.make_node("Identity", ["pixels"], ["out"])],
        [info("pixels", TensorProto.FLOAT, ["n", 2])],
        [info("out", TensorProto.FLOAT, ["n", 2])],
    )
    values = numbers(5, 2)
    np.savez_compressed(tmp_path / "in.npz", x=values.astype(np.float64), y=np.arange(5))
    score(Job(model, tmp_path / "in.npz", tmp_path / "out.npz"))
    with np.load(tmp_path / "out.npz") as file:
        assert file["out"].dtype == np.float32
        assert np.array_equal(file["out"], values)


@pytest.mark.parametrize("form", ["npz", "csv", "jsonl", "parquet"])
def test_a_dynamic_axis_is_as_long_as_in_the_file(tmp_path: Path, form: str) -> None:
    model = write_model(
        tmp_path / "m.onnx",
        [helper.make_node("Neg", ["tokens"], ["out"])],
        [info("tokens", TensorProto.INT64, ["n", "length"])],
        [info("out", TensorProto.INT64, ["n", "length"])],
    )
    arrays = {"tokens": np.arange(35).reshape(7, 5)}
    out = tmp_path / f"out.{form}"
    score(Job(model, write(tmp_path / f"in.{form}", arrays), out))
    like = expected(model, arrays)
    assert same(read(out, like), like)


def test_a_column_of_lists_is_a_tensor(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    model = affine(tmp_path / "m.onnx")
    values = numbers(50)
    lists: list[Any] = values.tolist()
    lists[7], lists[9] = None, [1.0]
    pyarrow.parquet.write_table(pyarrow.table({"x": lists}), tmp_path / "in.parquet")
    score(Job(model, tmp_path / "in.parquet", tmp_path / "out.parquet", skip=True))
    found = pyarrow.parquet.read_table(tmp_path / "out.parquet")
    assert found["double"].to_pylist() == (np.delete(values, [7, 9], axis=0) * 2).tolist()
    rejected = [json.loads(line) for line in (tmp_path / "out.parquet.rejected.jsonl").read_text().splitlines()]
    assert [row["index"] for row in rejected] == [7, 9]


def test_a_model_of_fixed_rows_scores_any_number(tmp_path: Path) -> None:
    model = write_model(
        tmp_path / "m.onnx",
        [helper.make_node("Neg", ["x"], ["y"])],
        [info("x", TensorProto.FLOAT, [4, 3])],
        [info("y", TensorProto.FLOAT, [4, 3])],
    )
    values = numbers(4099)
    score(Job(model, write(tmp_path / "in.npz", {"x": values}), tmp_path / "out.npz"))
    with np.load(tmp_path / "out.npz") as file:
        assert np.array_equal(file["y"], -values)
    with pytest.raises(UsageError, match="takes 4 at a time"):
        score(Job(model, tmp_path / "in.npz", tmp_path / "out.npz", rows=2, fresh=True))


def test_rows_that_touch_each_other_are_scored_alone_unless_told_otherwise(tmp_path: Path) -> None:
    """As with dynamic quantization, whose ranges go over all rows of a run."""
    model = write_model(
        tmp_path / "m.onnx",
        [
            helper.make_node("ReduceMax", ["x"], ["most"], keepdims=1),
            helper.make_node("Div", ["x", "most"], ["y"]),
        ],
        [info("x", TensorProto.FLOAT, ["n", 1])],
        [info("y", TensorProto.FLOAT, ["n", 1])],
    )
    values = np.array([[1], [2], [4]], np.float32)
    job = Job(model, write(tmp_path / "in.npz", {"x": values}), tmp_path / "out.csv")
    assert score(job).alone
    assert job.output.read_text().split() == ["y", "1.0", "1.0", "1.0"]
    assert not score(Job(model, job.input, job.output, rows=3, fresh=True)).alone
    assert job.output.read_text().split() == ["y", "0.25", "0.5", "1.0"]


# --- bad rows

BAD = """\
a,b,c
1,2,3
1,2
1,two,3
"4,5,6
"
1,,3
1,2,1e99
7,8,9
1_0,2,3
"""


def test_bad_rows_are_left_out_with_line_reason_and_text(tmp_path: Path) -> None:
    affine(tmp_path / "m.onnx")
    (tmp_path / "in.csv").write_bytes(BAD.encode() + b"\xff,2,3\n")
    done = workbench(tmp_path, "batch", "m.onnx", "in.csv", "out.csv", "--outputs", "total", "--bad-rows", "skip")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out.csv").read_text() == "total\n6.0\n24.0\n"
    assert done.stdout.startswith("out.csv: 2 of 9 rows, in ")
    assert "7 rows left out: out.csv.rejected.jsonl" in done.stderr
    rejected = [json.loads(line) for line in (tmp_path / "out.csv.rejected.jsonl").read_text().splitlines()]
    assert [row["line"] for row in rejected] == [3, 4, 5, 7, 8, 10, 11]
    assert [row["why"] for row in rejected][:3] == [
        "it has 2 fields; there are 3 columns",
        "column 'b': 'two' is no FP32",
        "it has 1 fields; there are 3 columns",
    ]
    assert rejected[3]["why"] == "column 'b': nothing stands there"
    assert rejected[1]["text"] == "1,two,3"


def test_the_first_bad_row_ends_the_scoring_and_is_named(tmp_path: Path) -> None:
    affine(tmp_path / "m.onnx")
    (tmp_path / "in.csv").write_text(BAD)
    done = workbench(tmp_path, "batch", "m.onnx", "in.csv", "out.csv")
    assert done.returncode == 2
    assert "in.csv, line 3: it has 2 fields" in done.stderr
    assert "--bad-rows skip" in done.stderr
    assert not (tmp_path / "out.csv").exists()
    (tmp_path / "in.csv").write_text("a,b,c\n1,2,3\n")  # corrected before anything was kept: nothing to be told of
    assert workbench(tmp_path, "batch", "m.onnx", "in.csv", "out.csv").returncode == 0


def test_rows_that_only_the_model_refuses_are_found_among_others(tmp_path: Path) -> None:
    model = write_model(
        tmp_path / "m.onnx",
        [helper.make_node("Gather", ["table", "index"], ["row"])],
        [info("index", TensorProto.INT64, ["n"])],
        [info("row", TensorProto.FLOAT, ["n", 2])],
        [numpy_helper.from_array(np.arange(8, dtype=np.float32).reshape(4, 2), "table")],
    )
    (tmp_path / "in.jsonl").write_text('{"index": 3}\n{"index": 4}\n\n{"index": "1"}\n{"index": 0}\n{"index": 1e30}\n')
    score(Job(model, tmp_path / "in.jsonl", tmp_path / "out.csv", skip=True))
    assert (tmp_path / "out.csv").read_text() == "row.0,row.1\n6.0,7.0\n0.0,1.0\n"
    rejected = [json.loads(line) for line in (tmp_path / "out.csv.rejected.jsonl").read_text().splitlines()]
    assert [row["line"] for row in rejected] == [2, 4, 6]
    assert "does not take these values" in rejected[0]["why"]
    with pytest.raises(UsageError, match="line 2: model 'm' does not take"):
        score(Job(model, tmp_path / "in.jsonl", tmp_path / "other.csv"))


def test_a_file_of_bad_rows_only_is_an_error(tmp_path: Path) -> None:
    model = lookup(tmp_path / "m.onnx")
    (tmp_path / "in.csv").write_text("index\n9\n8\n")
    with pytest.raises(UsageError, match="Not one of the 2 rows"):
        score(Job(model, tmp_path / "in.csv", tmp_path / "out.csv", skip=True))


# --- what does not go together


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("in.csv", b"a,b\n1,2\n", "2 columns ('a', 'b')"),
        ("in.csv", b"", "no rows"),
        ("in.csv", b"a,b,c\n", "no rows"),
        ("in.csv", b"a;b;c\n1;2;3\n", "1 column ('a;b;c') and not the inputs"),
        ("in.csv", "a,b,c\n1,2,3\n".encode("utf-16"), "line 1: it is no row of CSV in UTF-8"),
        ("in.csv", b"x.0,x.1,x.2,x.1\n1,2,3,4\n", "'x.1' twice"),
        ("in.jsonl", b"\n", "no rows"),
        ("in.npz", b"PK\x03\x04 not a zip", "not an npz file"),
        ("in.parquet", b"PAR1 not", "not a Parquet file"),
        ("in.txt", b"1,2,3", "tells no format"),
    ],
)
def test_what_cannot_be_read_is_said(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    model = affine(tmp_path / "m.onnx")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError) as caught:
        score(Job(model, tmp_path / name, tmp_path / "out.csv"))
    assert words in caught.value.message
    assert caught.value.cure
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["m.onnx", name])


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"y": np.zeros((2, 3))}, "no array 'x'"),
        ({"x": np.zeros((2, 4))}, r"shape \[2, 4\]"),
        ({"x": np.zeros((2, 3), "U4")}, "is <U4"),
        ({"x": np.zeros((0, 3))}, "no rows"),
        ({"x": np.asfortranarray(np.zeros((2, 3)))}, "Fortran"),
    ],
)
def test_arrays_that_are_not_the_models_inputs_are_said(tmp_path: Path, arrays: Any, words: str) -> None:
    np.savez(tmp_path / "in.npz", **arrays)
    with pytest.raises(UsageError, match=words):
        score(Job(affine(tmp_path / "m.onnx"), tmp_path / "in.npz", tmp_path / "out.csv"))


def test_an_output_that_is_no_row_each_is_said(tmp_path: Path) -> None:
    model = write_model(
        tmp_path / "m.onnx",
        [helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0), helper.make_node("Neg", ["x"], ["neg"])],
        [info("x", TensorProto.FLOAT, ["n", 3])],
        [info("sum", TensorProto.FLOAT, []), info("neg", TensorProto.FLOAT, ["n", 3])],
    )
    job = Job(model, write(tmp_path / "in.npz", {"x": numbers(20)}), tmp_path / "out.npz")
    with pytest.raises(UsageError, match="'sum' has the shape"):
        score(job)
    assert score(Job(model, job.input, job.output, ("neg",))).rows == 20


def test_what_is_not_there_is_named_with_exit_2(tmp_path: Path) -> None:
    affine(tmp_path / "m.onnx")
    write(tmp_path / "in.csv", {"x": numbers(2)})
    for words, told in (
        (["none.onnx", "in.csv", "out.csv"], "no file none.onnx"),
        (["m.onnx", "none.csv", "out.csv"], "no file none.csv"),
        (["in.csv", "in.csv", "out.csv"], "cannot be loaded"),
        (["m.onnx", "in.csv", "out.csv", "--outputs", "most"], "no output 'most'"),
        (["m.onnx", "in.csv", "out.csv", "--bad-rows", "keep"], "fail, skip"),
    ):
        done = workbench(tmp_path, "batch", *words)
        assert done.returncode == 2
        assert told in done.stderr
        assert done.stdout == ""


def test_the_folder_of_the_output_is_made(tmp_path: Path) -> None:
    affine(tmp_path / "m.onnx")
    write(tmp_path / "in.csv", {"x": numbers(2)})
    done = workbench(tmp_path, "batch", "m.onnx", "in.csv", "new/of/out.csv")
    assert done.returncode == 0, done.stderr
    done = workbench(tmp_path, "batch", "m.onnx", "in.csv", "in.csv/out.csv")
    assert done.returncode == 6
    assert done.stderr.startswith("workbench: in.csv/out.csv cannot be written: Not a directory.")


def test_without_pyarrow_parquet_is_what_the_machine_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    job = Job(affine(tmp_path / "m.onnx"), write(tmp_path / "in.csv", {"x": numbers(2)}), tmp_path / "out.parquet")
    with pytest.raises(MachineLacks, match="needs pyarrow") as caught:
        score(job)
    assert "workbench[parquet]" in caught.value.cure
