"""The local health score."""

from __future__ import annotations

from maia.membership.awareness import SCORE_MAX, Awareness


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
