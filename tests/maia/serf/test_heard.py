"""Lamport clocks, and that each broadcast is news once."""

from __future__ import annotations

from maia.serf.clocks import HEARD_MAX, WINDOW, Heard, LamportClock
from maia.wire.serf import TIME_MAX


def test_a_clock_is_later_than_all_that_it_heard_and_never_goes_back() -> None:
    clock = LamportClock()
    assert (clock.tick(), clock.tick()) == (1, 2)
    clock.witness(9)
    assert clock.time == 10
    clock.witness(4)
    assert clock.time == 10
    clock.witness(TIME_MAX)
    assert clock.tick() == clock.tick() == TIME_MAX


def test_the_same_is_news_once_and_another_of_the_same_time_is_news() -> None:
    heard = Heard()
    assert heard.is_news(5, b"one")
    assert not heard.is_news(5, b"one")
    assert heard.is_news(5, b"two")
    assert heard.is_news(4, b"one")
    assert heard.clock.time == 6


def test_what_is_older_than_the_window_is_no_news() -> None:
    heard = Heard()
    heard.is_news(1000, b"now")
    assert not heard.is_news(1000 - WINDOW, b"long ago")
    assert heard.is_news(1001 - WINDOW, b"just remembered")


def test_what_is_remembered_is_bounded_and_what_is_old_makes_room() -> None:
    heard = Heard()
    for number in range(HEARD_MAX):
        assert heard.is_news(7, number.to_bytes(4, "big"))
    assert not heard.is_news(7, b"one too many")
    assert heard.is_news(7 + WINDOW + 1, b"later")
    for time in range(3000):
        heard.is_news(1000 + time, b"x")
    assert len(heard._by_time) <= 2 * WINDOW
