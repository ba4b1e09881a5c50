"""The plot of variants: where points come to lie, the front, names, intervals, and walking in it."""

from __future__ import annotations

import pytest

from screens.pareto import Axis, Point, beside, front, plot, scale_of

SIZE, LATENCY = Axis("size, MiB", 2.0**20), Axis("p50, µs", 1e3)
POINTS = [
    Point("original", 1_400_000, 310_000, None, (304_000, 316_000), "original"),
    Point("int8", 358_400, 148_000, None, (146_000, 151_000), "chosen"),
    Point("weights", 361_000, 312_000),
    Point("tiny", 150_000, 260_000),
]


def drawn(points: list[Point], at: str = "", width: int = 60, height: int = 20) -> list[str]:
    return ["".join(cell.text for cell in line) for line in plot(points, SIZE, LATENCY, width, height, at)]


def test_the_front_is_what_nothing_else_equals_or_beats_in_both_figures() -> None:
    assert [each.name for each in front(POINTS)] == ["tiny", "int8"]
    assert [each.name for each in front([*POINTS, Point("twin", 358_400, 148_000)])] == ["tiny", "int8"]
    assert front([]) == []


def test_a_point_lies_where_its_figures_are_and_every_line_has_the_width() -> None:
    lines = drawn(POINTS)

    assert len(lines) == 20
    assert {len(line) for line in lines[1:]} == {60}
    rows = {glyph: next(at for at, line in enumerate(lines) if glyph in line) for glyph in "○◆"}
    assert rows["○"] < rows["◆"], "less latency is lower"
    assert lines[rows["◆"]].index("◆") < lines[rows["○"]].index("○"), "less size is further left"
    assert "size, MiB" in lines[-1]
    assert lines[0].startswith("p50, µs")


def test_points_have_their_names_and_the_one_under_the_cursor_has_it_in_brackets() -> None:
    text = "\n".join(drawn(POINTS, at="tiny"))

    assert "[tiny]" in text
    assert "int8" in text
    assert "[int8]" not in text
    assert "original" in text


def test_the_front_is_joined_and_dominated_points_are_dim() -> None:
    lines = plot(POINTS, SIZE, LATENCY, 60, 20)
    text = "".join(cell.text for line in lines for cell in line)
    tones = {glyph: cell.tone for line in lines for cell in line for glyph in "○◆●" if glyph in cell.text}

    assert "╌" in text
    assert "╎" in text
    assert tones["○"] == "dim"
    assert tones["◆"] == "good"


def test_intervals_are_bars_where_they_are_longer_than_the_point() -> None:
    sure, unsure = Point("a", 1.0, 100_000, None, (99_999, 100_001)), Point("b", 2.0, 100_000, None, (50_000, 150_000))
    plain = Axis("drop")

    def bars(point: Point) -> int:
        lines = plot([Point("far", 3.0, 200_000), point], plain, LATENCY, 60, 20)
        return sum(cell.text.count("│") for line in lines for cell in line[1:])

    assert bars(sure) == 0
    assert bars(unsure) >= 5


def test_a_loss_may_be_negative_and_nothing_lost_is_on_the_axis() -> None:
    scale = scale_of([-0.01, 0.0, 0.03])

    assert scale.low < -0.01
    assert scale.high > 0.03
    assert 0.0 in scale.ticks(5)
    assert scale_of([0.0]).place(0.0, 50) == 0


def test_figures_far_apart_stand_on_a_logarithmic_axis_that_says_so() -> None:
    lines = drawn([Point("a", 1_000_000, 1_000), Point("b", 1_200_000, 5_000_000)])

    assert lines[0] == "p50, µs (log)"
    assert "(log)" not in lines[-1]


@pytest.mark.parametrize(("width", "height"), [(10, 20), (60, 5)])
def test_where_there_is_no_room_there_is_no_plot(width: int, height: int) -> None:
    assert drawn(POINTS, width=width, height=height) == []
    assert drawn([]) == []


@pytest.mark.parametrize(("width", "height"), [(24, 8), (35, 11), (200, 60)])
def test_a_plot_is_never_wider_or_higher_than_its_room(width: int, height: int) -> None:
    for at in ("", "int8", "weights"):
        lines = drawn(POINTS, at, width, height)
        assert len(lines) == height
        assert max(map(len, lines)) <= width


def test_the_arrow_keys_go_to_the_next_point_in_their_direction_and_stop_at_the_end() -> None:
    assert beside(POINTS, "tiny", 1, 0) == "int8"
    assert beside(POINTS, "tiny", -1, 0) == "tiny"
    assert beside(POINTS, "int8", 0, 1) == "tiny"
    assert beside(POINTS, "weights", 0, 1) == "weights"
    assert beside(POINTS, "unmeasured", 1, 0) == "tiny"
    assert beside([], "x", 1, 0) == ""
