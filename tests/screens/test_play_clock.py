"""The clock of a recording, with a real time that the tests set."""

from __future__ import annotations

import pytest

from screens.play_clock import FASTEST, IDLE_SECONDS, SLOWEST, PlayClock, gaps


class Time:
    """Real time that goes on when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time() -> Time:
    return Time()


def test_it_plays_stops_and_stays_at_the_end(time: Time) -> None:
    clock = PlayClock(60.0, now=time)
    time.now += 10
    assert (clock.position, clock.playing) == (10.0, True)
    clock.toggle()
    time.now += 10
    assert (clock.position, clock.playing, clock.ended) == (10.0, False, False)
    clock.toggle()
    time.now += 49.5
    assert clock.position == 59.5
    time.now += 100
    assert (clock.position, clock.playing, clock.ended) == (60.0, False, True)


def test_at_the_end_it_begins_again_and_set_back_it_goes_on(time: Time) -> None:
    clock = PlayClock(60.0, now=time)
    clock.seek(60.0)
    clock.toggle()
    assert (clock.position, clock.playing) == (0.0, True)
    clock.seek(99.0)
    clock.seek_by(-5)
    assert (clock.position, clock.playing) == (55.0, True)
    clock.seek_by(-100)
    assert clock.position == 0.0


def test_a_paused_clock_is_set_and_stays_paused(time: Time) -> None:
    clock = PlayClock(60.0, now=time)
    clock.toggle()
    clock.seek_by(30)
    time.now += 5
    assert (clock.position, clock.playing) == (30.0, False)


def test_it_plays_faster_and_slower_from_where_it_is_as_far_as_it_goes(time: Time) -> None:
    clock = PlayClock(1_000.0, 8.0, now=time)
    time.now += 1
    clock.change_speed(2)
    time.now += 1
    assert (clock.position, clock.speed) == (24.0, 16.0)
    for _ in range(9):
        clock.change_speed(2)
    assert clock.speed == FASTEST
    for _ in range(20):
        clock.change_speed(0.5)
    assert (clock.position, clock.speed) == (24.0, SLOWEST)
    assert PlayClock(1.0, 1e9, now=time).speed == FASTEST


def test_a_gap_is_where_nothing_happens_for_longer_than_some_seconds() -> None:
    assert gaps([0.0, 1.0, 1.0 + IDLE_SECONDS, 20.0, 21.0]) == ((1.0 + IDLE_SECONDS, 20.0),)


def test_idle_time_takes_a_second_each_where_that_is_asked_for_and_only_there(time: Time) -> None:
    clock = PlayClock(100.0, idle=((10.0, 50.0), (60.0, 90.0)), now=time)
    time.now += 30
    assert clock.position == 30.0
    assert clock.shorten() == 2
    assert (clock.position, clock.shortened) == (30.0, True)
    time.now += 0.5
    assert clock.position == pytest.approx(50.0)
    time.now += 10 + 1 + 3
    assert clock.position == pytest.approx(93.0)
    clock.shorten()
    clock.seek(30.0)
    time.now += 1
    assert (clock.position, clock.shortened) == (31.0, False)


def test_a_recording_of_no_length_is_at_its_end(time: Time) -> None:
    clock = PlayClock(0.0, now=time)
    assert (clock.position, clock.ended) == (0.0, True)
