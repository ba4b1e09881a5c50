from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterable
from typing import Any

import example_run
import pytest

from screens.blocks import Block, plain
from screens.present import report_blocks
from workbench.events import RunState

Painted = Callable[[Iterable[Block], int], str]


def report_of(state: RunState) -> str:
    return "\n".join(plain(report_blocks(state)))


def changed(step: str, **values: Any) -> str:
    """The report of the example run with other values of one step."""
    return report_of(example_run.state(example_run.run_events({step: {**example_run.VALUES[step], **values}})))


def section(text: str, title: str) -> list[str]:
    """The lines below the title that begins so."""
    for part in text.split("\n\n"):
        if part.startswith(title):
            return part.splitlines()
    raise AssertionError(f"no {title} in\n{text}")


@pytest.fixture(scope="module")
def text() -> str:
    return report_of(example_run.state(example_run.run_events()))


def test_variants_show_size_metric_change_and_gates(text: str) -> None:
    lines = section(text, "Variants")
    assert [re.split(r"\s{2,}", line.strip()) for line in lines[1:5]] == [
        ["variant", "size", "accuracy", "change to original", "gates"],
        ["original", "1.3 MiB", "0.989 [0.972, 0.996]", "—", "reference (fails: model_size)"],
        [
            "int8 (chosen)",
            "350.0 KiB",
            "0.986 [0.968, 0.994]",
            "-0.0028 [-0.0083, +0.0000] not significant",
            "all hold",
        ],
        [
            "int8-dynamic",
            "352.5 KiB",
            "0.900 [0.865, 0.927]",
            "-0.089 [-0.120, -0.060] significantly worse",
            "fails: metric_drop",
        ],
    ]
    assert lines[5:] == [
        "  accuracy over 360 samples; 95% intervals.",
        "  int8: 2 predictions flipped, McNemar p = 1, cosine to original 0.9999",
        "  int8-dynamic: 34 predictions flipped, McNemar p = 2e-08, cosine to original 0.9810",
        "  original is what the variants are compared with; a gate that it fails only keeps it from being chosen.",
    ]


def test_an_original_that_is_chosen_is_judged_as_any_other() -> None:
    variants = section(changed("choose", choice="original"), "Variants")
    assert variants[2].endswith("  fails: model_size")
    assert "only keeps it from being chosen" not in "".join(variants)


def test_latencies_show_queries_threads_intervals_and_the_verdict(text: str) -> None:
    lines = section(text, "Latency in process")
    assert "148.0 µs [146.0, 151.0]  190 µs [180, 201]   0.4771 [0.4688, 0.4856]  faster" in lines[3]
    assert "1 thread; 10 pairs of fresh processes; 95% intervals" in lines[5]


def test_no_p99_from_too_few_samples(text: str) -> None:
    slow = next(line for line in section(text, "Latency in process") if line.startswith("  int8-dynamic   "))
    assert re.search(r" 480  2.100 ms \[2.050, 2.190\]  not enough samples  6.77 ", slow)


def test_a_disturbed_measurement_says_so(text: str) -> None:
    assert "  int8-dynamic: Disturbed: other processes used 0.8 cores while this was measured." in text
    assert "  Disturbed: the hypervisor took 3.0% of the time." in section(text, "Benchmark busy")


def test_gates_stand_with_their_value_limit_and_reason(text: str) -> None:
    lines = [re.split(r"\s{2,}", line.strip()) for line in section(text, "Gates")[2:]]
    why = "the whole interval of the drop in accuracy is within the limit; 2 of 360 decisions changed"
    assert ["int8", "metric_drop", "holds", "0.00278 (0 to 0.00833) (at most 0.01)", why] in lines
    assert lines[-1][:3] == ["int8-dynamic", "p99", "undecided"]


def test_a_gate_that_waited_for_a_benchmark_stands_with_the_chosen_variant() -> None:
    late = example_run.gate("p99 of busy", "fails", "12 ms", "at most 10 ms", "beyond the limit")
    found = changed("gates", decisions=[late])
    assert re.search(r"int8 +p99 of busy +fails +12 ms \(at most 10 ms\) +beyond the limit", found)
    assert re.search(r"int8 \(chosen\).* fails: p99 of busy", found)


def test_the_choice_says_why(text: str) -> None:
    assert section(text, "Chosen: int8")[1].startswith("  median latency: 0.48 times the original's")


def test_where_no_variant_is_chosen_the_closest_is_named() -> None:
    lines = section(changed("choose", choice=None, why="no variant keeps the gates", closest="int8"), "Chosen: none")
    assert lines[1:] == ["  no variant keeps the gates", "  The closest is int8."]


def test_a_pinned_choice_that_figures_of_today_would_not_make_says_so() -> None:
    assert "  Today's figures would choose int8-dynamic." in changed("choose", today="int8-dynamic")
    assert "Today's figures" not in changed("choose", today="int8")


def test_remarks_on_variants_on_steps_and_on_the_run(text: str) -> None:
    assert section(text, "Remarks")[1:] == [
        "  int8-dynamic   slower than the original: 6.77 times its latency (6.61 to 7.02)",
        "  int8/quantize  1 node stays in float32: Softmax.",
        "  Recipe and lock were committed.",
    ]


def test_the_image_shows_digests_sizes_and_layers(text: str) -> None:
    lines = section(text, "Image sha256:0123456789ab, 4 layers")
    assert re.split(r"\s{2,}", lines[2].strip()) == ["base", "15.3 MiB", "46.7 MiB", "2,310", "8.6 MiB"]
    assert re.split(r"\s{2,}", lines[6].strip()) == ["image", "61.0 MiB", "167.8 MiB"]
    assert lines[7:] == [f"  config {example_run.CONFIG}", f"  manifest {example_run.MANIFEST}"]


def test_an_image_that_an_engine_built_has_its_name_there() -> None:
    name = "workbench.local/digits:0123456789ab"
    assert section(changed("image", in_engine=name), "Image")[-1] == f"  in the engine {name}"


def test_parity_says_how_equal_the_answers_are(text: str) -> None:
    said = "  64 answers of the image equal the variant's in process, bit for bit (run under bubblewrap)."
    assert section(text, "Parity") == ["Parity", said]
    found = changed("parity", bit_equal=False, max_abs=1.19e-6, max_rel=2.5e-5, method="loader")
    assert section(found, "Parity")[1] == (
        "  64 answers of the image are within tolerance; largest difference 1.19e-06 absolute, 2.5e-05 relative; "
        "best class equal (run by its own loader)."
    )


def test_a_benchmark_is_called_a_scenario_and_shows_its_conditions(text: str) -> None:
    lines = section(text, "Benchmark alone")
    assert lines[0] == "Benchmark alone: MLPerf scenario single-stream (not an MLPerf result)"
    rows = [re.split(r"\s{2,}", line.strip()) for line in lines[1:]]
    assert rows[0] == ["process", "image over HTTP"]
    assert ["p50", "150.0 µs [147.0, 153.0]", "420 µs [400, 441]"] in rows
    assert ["p99", "181 µs [170, 193]", "not enough samples"] in rows
    assert ["load", "one query at a time", "one query at a time"] in rows
    assert ["queries", "60,000", "400"] in rows
    assert ["client's own cost", "1.2 µs median, null responder", "36 µs median, null responder"] in rows
    assert ["start to first answer", "—", "0.410 s [0.380, 0.440]"] in rows
    assert ["peak memory", "—", "86.8 MiB"] in rows
    assert lines[-1] == "  1 thread; 3 runs in fresh processes; 95% intervals between the runs."


def test_an_invalid_run_has_a_reason_and_no_number(text: str) -> None:
    lines = section(text, "Benchmark busy")
    assert re.search(r"p50 +152.0 µs \[149.0, 155.0\] +INVALID$", lines[2])
    assert "  image over HTTP: INVALID: 3 of 2000 requests failed (the first: HTTP 503)." in lines
    assert "777" not in text
    assert "200 queries/s, p99 at most 10 ms" in "".join(lines)


def test_a_benchmark_without_a_verdict_shows_no_number() -> None:
    process = {key: value for key, value in example_run.VALUES["benchmark/alone"]["process"].items() if key != "valid"}
    found = section(changed("benchmark/alone", process=process), "Benchmark alone")
    assert re.search(r"p50 +— +420 µs", found[2])


def test_the_end_says_where_it_went_what_was_committed_and_on_which_machine(text: str) -> None:
    assert section(text, "Pushed")[0] == "Pushed to oci:.workbench/registry:digits:latest"
    assert section(text, "Lock")[0] == "Lock recipes/digits.lock.yaml written, committed as 1234567890ab"
    assert section(text, "Measured on")[1] == (
        "  Example CPU @ 2.00GHz, 2 cores, 24 GiB (Debian GNU/Linux 12 (bookworm), kernel 6.1.0, x86-64-v4+vnni)"
    )


@pytest.mark.parametrize(
    ("compare", "said"),
    [
        ({"drop": 0.01, "interval": [0.002, 0.02], "p_value": None}, "significantly worse"),
        ({"drop": -0.01, "interval": [-0.02, -0.002]}, "significantly better"),
        ({"drop": 0.01, "interval": [-0.002, 0.02]}, "not significant"),
        ({"drop": 0.01, "interval": [0.002, 0.02], "p_value": 0.2}, "not significant"),
        ({"drop": 0.01}, "significance unknown"),
    ],
)
def test_significance_comes_in_words(compare: dict[str, Any], said: str) -> None:
    found = section(changed("evaluate/int8", compare=compare), "Variants")[3]
    assert said in found


def test_the_change_of_a_metric_where_less_is_better_has_its_sign() -> None:
    metric = {"name": "mse", "value": 0.25, "higher_is_better": False, "interval": [0.2, 0.3]}
    compare = {"drop": 0.05, "interval": [0.02, 0.08], "p_value": None}
    line = section(changed("evaluate/int8", metric=metric, compare=compare), "Variants")[3]
    assert "+0.050 [+0.020, +0.080] significantly worse" in line


def test_a_number_without_its_interval_says_so() -> None:
    metric = {"name": "accuracy", "value": 0.9, "higher_is_better": True}
    assert "0.9000 (no interval)" in changed("evaluate/original", metric=metric)


@pytest.mark.parametrize("width", [80, 120])
def test_a_terminal_shows_all_of_it_and_nothing_is_cut(painted: Painted, width: int, text: str) -> None:
    found = painted(report_blocks(example_run.state(example_run.run_events())), width)
    assert max(map(len, found.splitlines())) <= width
    assert "…" not in found
    assert sorted("".join(found.split())) == sorted("".join(text.split()))


def test_intervals_stay_whole_at_80_columns(painted: Painted) -> None:
    found = painted(report_blocks(example_run.state(example_run.run_events())), 80)
    assert all(interval in found for interval in ("[-0.0083, +0.0000]", "[0.4688, 0.4856]", "[304.7, 315.9]"))


def without(values: Any, lost: str) -> Any:
    """``values`` with every ``lost`` in it taken away."""
    if isinstance(values, dict):
        return {key: without(value, lost) for key, value in values.items() if key != lost}
    return [without(value, lost) for value in values] if isinstance(values, list) else values


def keys(values: Any) -> set[str]:
    if isinstance(values, dict):
        return set(values).union(*map(keys, values.values()))
    return set().union(*map(keys, values)) if isinstance(values, list) else set()


def test_whatever_value_is_absent_or_odd_there_is_still_a_report() -> None:
    for lost in keys(example_run.VALUES):
        state = example_run.state(example_run.run_events({n: without(v, lost) for n, v in example_run.VALUES.items()}))
        assert report_of(state).startswith("digits: done")
    for odd in (None, "text", 5, [None], {"x": 1}):
        values = {n: {key: copy.copy(odd) for key in v} for n, v in example_run.VALUES.items()}
        assert report_of(example_run.state(example_run.run_events(values))).startswith("digits: done")


def test_a_run_that_has_not_begun_has_a_report() -> None:
    assert report_of(RunState(run="a-run")) == "a-run: running; no step"


def test_names_from_a_file_cannot_steer_the_terminal() -> None:
    found = changed("int8/quantize", notes=["\x1b[2Jgone"])
    assert "\x1b" not in found
    assert "\\x1b[2Jgone" in found


def test_a_replay_says_what_it_reproduced() -> None:
    text = report_of(example_run.state(example_run.replay_events()))
    assert section(text, "reproduced") == [
        "reproduced 7, reused 0",
        "  Every artifact is the locked one. 2 figures compared, none worse than locked.",
    ]
    assert "Artifacts that differ" not in text


def test_a_replay_that_differs_names_the_cause() -> None:
    differences = [{"name": "model", "locked": "sha256:" + "a" * 64, "found": "sha256:" + "b" * 64}]
    intervals = {"locked_interval": [146_000, 151_000], "found_interval": [240_000, 260_000]}
    worse = [
        {"name": "int8.p50", "locked": 148_000.0, "found": 250_000.0, "unit": "ns", **intervals},
        {"name": "image.size", "locked": 64_000_000.0, "found": 90_000_000.0, "unit": "B"},
        {"name": "int8.accuracy", "locked": 0.99, "found": 0.9, "unit": ""},
    ]
    cause = "model.source: sha256:cc → sha256:dd"
    found = example_run.replay_events(differences=differences, worse=worse, cause=cause, remarks=["Packed otherwise."])
    text = report_of(example_run.state(found))
    assert section(text, "Artifacts")[2:] == [
        "  model     sha256:aaaaaaaaaaaa  sha256:bbbbbbbbbbbb",
        "  First differing input: model.source: sha256:cc → sha256:dd",
    ]
    rows = [re.split(r"\s{2,}", line.strip()) for line in section(text, "Figures worse")[2:5]]
    assert rows[0] == ["int8.p50", "148.0 µs [146.0, 151.0]", "250 µs [240, 260]"]
    assert rows[1] == ["image.size", "61.0 MiB", "85.8 MiB"]
    assert rows[2] == ["int8.accuracy", "0.9900", "0.9000"]
    assert section(text, "Figures worse")[5:] == [
        "  latency/int8-dynamic: Disturbed: other processes used 0.8 cores while this was measured.",
        "  benchmark/busy: Disturbed: the hypervisor took 3.0% of the time.",
    ]
    assert section(text, "Remarks") == ["Remarks", "  Packed otherwise."]
    assert "1 artifact differs from the lock. 2 figures compared, 3 worse than locked." in text


def test_a_replay_that_compared_no_figure_does_not_claim_it() -> None:
    text = report_of(example_run.state(example_run.replay_events(compared=[])))
    assert "Every artifact is the locked one. No figure compared." in text
