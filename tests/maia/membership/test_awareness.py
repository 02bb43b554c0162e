"""The local health score."""

from __future__ import annotations

from maia.membership.awareness import LAG_WINDOW_S, SCORE_MAX, Awareness


def test_the_score_stays_between_well_and_starved() -> None:
    awareness = Awareness()
    awareness.shift(-1)
    assert awareness.score == 0
    awareness.shift(100)
    assert awareness.score == SCORE_MAX == 7


def test_every_point_stretches_a_deadline_by_itself() -> None:
    awareness = Awareness()
    awareness.shift(2)
    assert awareness.stretched_s(0.2) == 0.2 * 3


def test_the_worst_lag_is_remembered_for_one_window_and_forgotten_after_two() -> None:
    awareness = Awareness()
    awareness.lagged(0.3, 5.0)
    awareness.lagged(0.1, 6.0)
    assert awareness.lag_s(5.0 + LAG_WINDOW_S) == 0.3
    assert awareness.lag_s(5.0 + 2 * LAG_WINDOW_S + 5.0) == 0.0


def test_a_long_silence_is_no_lag() -> None:
    awareness = Awareness()
    awareness.lagged(0.3, 5.0)
    assert awareness.lag_s(1000.0) == 0.0
