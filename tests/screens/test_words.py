from __future__ import annotations

import math

import pytest

from screens import words


def test_a_value_has_as_many_digits_as_its_interval_leaves_meaning_to() -> None:
    assert words.measured(0.986111, [0.9679, 0.9941]) == "0.986\n[0.968, 0.994]"
    assert words.measured(0.986111, [0.98609, 0.98613]) == "0.986111\n[0.986090, 0.986130]"
    assert words.measured(6500.0, [6400.0, 6600.0], unit="/s") == "6500/s\n[6400, 6600]"


def test_the_lower_end_of_a_wide_interval_does_not_vanish() -> None:
    assert words.latency(2_980_000, [210_000, 42_970_000]) == "2.98 ms\n[0.21, 42.97]"
    assert words.measured(0.05, [0.00001, 0.1]) == "0.050\n[0.000, 0.100]"


def test_what_rounds_to_nothing_has_no_minus() -> None:
    assert words.measured(-0.00278, [-0.00833, -0.0], sign=True) == "-0.0028\n[-0.0083, +0.0000]"


def test_small_values_keep_their_digits() -> None:
    assert words.measured(3.2e-7, [3.0e-7, 3.4e-7]) == "3.2e-07\n[3e-07, 3.4e-07]"


def test_latencies_come_in_one_unit_that_suits_them() -> None:
    assert words.latency(310_200, [304_700, 315_900]) == "310.2 µs\n[304.7, 315.9]"
    assert words.latency(2_100_000_000, [2_000_000_000, 2_200_000_000]) == "2.10 s\n[2.00, 2.20]"
    assert words.latency(850, [840, 860]) == "850 ns\n[840, 860]"
    assert words.latency(310_200, None) == "310 µs\n(no interval)"


@pytest.mark.parametrize("odd", [None, "1", True, [], {}, math.nan, math.inf])
def test_what_is_no_number_reads_as_absent(odd: object) -> None:
    assert words.measured(odd, [0, 1]) == words.latency(odd, [0, 1]) == words.ABSENT
    assert words.size(odd) == words.count(odd) == words.seconds(odd) == words.ABSENT


@pytest.mark.parametrize("odd", [None, "ab", 3, [1], [1, 2, 3], [1, None], [0.0, math.nan]])
def test_what_is_no_interval_is_none(odd: object) -> None:
    assert words.interval_of(odd) is None


def test_control_characters_of_a_file_never_reach_the_terminal() -> None:
    assert words.safe("red \x1b[31mhot\x1b[0m") == "red \\x1b[31mhot\\x1b[0m"
    assert words.safe("turned \u202etxt") == "turned \\u202etxt"
    assert words.safe("two\nlines\tµ — ×") == "two\nlines µ — ×"  # noqa: RUF001


def test_times_on_the_way() -> None:
    assert [words.clock(each) for each in (0.04, 9.9, 9.97, 59.4, 59.9, 125)] == [
        "0.0 s",
        "9.9 s",
        "10 s",
        "59 s",
        "1 min 00 s",
        "2 min 05 s",
    ]


def test_a_machine_is_named_by_what_makes_its_numbers_compare() -> None:
    machine = {"class": {"cpu": "CPU X", "cores": 1, "memory_gib": 24, "gpus": ["GPU Y"]}, "facts": {"kernel": "6.1"}}
    assert words.machine(machine) == "CPU X, 1 core, 24 GiB, GPU Y (kernel 6.1)"
    assert words.machine({}) == words.machine(None) == words.ABSENT
