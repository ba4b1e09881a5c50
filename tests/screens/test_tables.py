from __future__ import annotations

import json
from collections.abc import Callable, Iterable

import pytest
from rich.cells import cell_len

from screens.blocks import Block, cell
from screens.inspect import print_model
from screens.paint import widths
from screens.tables import print_table

ROWS = [
    {"run": "20260101-120000-digits-beef", "exit_code": 0, "seconds": 61.23456, "now": "", "hidden": [1]},
    {"run": "short", "exit_code": None, "seconds": 4.0, "now": "latency/int8", "hidden": None},
]


def test_rows_are_aligned_numbers_to_the_right(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(["run", "exit_code", "seconds", "now"], ROWS, json=False)
    assert capsys.readouterr().out.splitlines() == [
        "run                          exit code  seconds  now",
        "20260101-120000-digits-beef          0  61.2346  —",
        "short                                —        4  latency/int8",
    ]


def test_a_row_in_a_pipe_is_one_whole_line(capsys: pytest.CaptureFixture[str]) -> None:
    long = "word " * 100 + "end"
    print_table(["a", "b"], [{"a": long, "b": "two\nlines"}], json=False)
    assert capsys.readouterr().out.splitlines()[1] == f"{long}  two lines"


def test_json_is_a_list_of_whole_rows(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(["run"], ROWS, json=True)
    assert json.loads(capsys.readouterr().out) == ROWS


def test_no_rows_are_a_head_and_an_empty_list(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(["run", "exit_code"], [], json=False)
    print_table(["run"], [], json=True)
    assert capsys.readouterr().out == "run  exit code\n[]\n"


def test_words_for_what_is_no_text(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(["a", "b"], [{"a": True, "b": {"x": 1}}, {"a": False}], json=False)
    assert capsys.readouterr().out.splitlines()[1:] == ['yes  {"x": 1}', "no   —"]


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_terminal_wraps_and_loses_nothing(painted: Callable[[Iterable[Block], int], str], width: int) -> None:
    texts = ["sha256:" + "0f" * 32, "a sentence of many words " * 6, "recipes/digits.yaml"]
    found = painted([Block("", ("digest", "why", "recipe"), (tuple(map(cell, texts)),))], width)
    assert max(map(len, found.splitlines())) <= width
    assert sorted("".join(found.split())) == sorted("digestwhyrecipe" + "".join("".join(texts).split()))


def test_the_widest_column_gives_way_first_and_words_stay_whole() -> None:
    grid = [["name", "many words that may well be wrapped"], ["a-long-name", "[-0.0083, +0.0000]"]]
    assert widths(grid, 80, gap=2) == [11, 35]
    assert widths(grid, 40, gap=2) == [11, 27]
    assert widths(grid, 31, gap=2) == [11, 18]
    assert sum(widths(grid, 20, gap=2)) == 18
    assert widths([["日本語"]], 80, gap=2) == [cell_len("日本語")] == [6]


def test_inspect_shows_signature_operators_and_layers(capsys: pytest.CaptureFixture[str]) -> None:
    layers = [
        {"name": f"conv{n}", "op": "Conv", "parameters": n, "bytes": 4 * n, "flops": 2_000 * n} for n in range(20)
    ]
    found = {
        "opset": 17,
        "size": 2_048,
        "parameters": 12_345,
        "flops": None,
        "signature": {
            "inputs": [{"name": "x\x1b[1m", "dtype": "float32", "shape": ["batch", 1, 8, 8]}],
            "outputs": [{"name": "y", "dtype": "float32", "shape": ["batch", 10]}],
        },
        "operators": {"Add": 1, "Conv": 20},
        "layers": layers,
    }
    print_model(found, json=False)
    out = capsys.readouterr().out
    assert "parameters            12,345" in out
    assert "FLOPs for one sample  unknown (dynamic axes)" in out
    assert "input   x\\x1b[1m  float32  [batch, 1, 8, 8]" in out
    assert out.index("Conv         20") < out.index("Add           1")
    assert "conv19" in out
    assert "conv4 " not in out
    assert "5 smaller layers left out; --json has them." in out
    print_model(found, json=True)
    assert json.loads(capsys.readouterr().out) == found


def test_inspect_shows_a_model_of_which_nothing_is_known(capsys: pytest.CaptureFixture[str]) -> None:
    print_model({}, json=False)
    assert "Model, opset —" in capsys.readouterr().out
