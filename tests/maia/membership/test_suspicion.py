"""How long a doubt lasts."""

from __future__ import annotations

import math

import pytest

from maia.config import LAN, LAN_FAST, WAN, Profile
from maia.membership.suspicion import CONDEMNED_SHARE, Suspicion, confirmations_needed, suspicion_bounds_s


@pytest.mark.parametrize(
    ("profile", "living", "bounds_s", "confirmations"),
    [
        (LAN_FAST, 2, (2.0, 6.0), 0),
        (LAN_FAST, 3, (1.0, 6.0), 1),
        (LAN_FAST, 4, (1.0, 6.0), 2),
        (LAN_FAST, 1000, (1.0, 6.0), 2),
        # memberlist's own figures at its LAN defaults: 4 s and no confirmations at three, 8 to 48 s at a hundred, 12 to 72 s at a thousand.
        (LAN, 3, (4.0, 24.0), 0),
        (LAN, 4, (4.0, 24.0), 2),
        (LAN, 100, (8.0, 48.0), 2),
        (LAN, 1000, (12.0, 72.0), 2),
        (WAN, 100, (60.0, 360.0), 4),
    ],
)
def test_bounds_and_confirmations(profile: Profile, living: int, bounds_s: tuple[float, float], confirmations: int) -> None:
    assert suspicion_bounds_s(profile, living) == pytest.approx(bounds_s)
    assert confirmations_needed(profile, living) == confirmations


def test_each_independent_accuser_shortens_the_timer_down_to_the_minimum() -> None:
    suspicion = Suspicion("a", profile=LAN, living_count=10, now=100.0)
    assert suspicion.deadline_s == 124.0
    assert suspicion.confirm("b")
    assert suspicion.deadline_s == pytest.approx(100.0 + 24.0 - 20.0 * math.log(2) / math.log(3))
    assert suspicion.confirm("c")
    assert suspicion.deadline_s == 104.0


def test_nobody_counts_twice_and_none_beyond_those_needed() -> None:
    suspicion = Suspicion("a", profile=LAN_FAST, living_count=10, now=0.0)
    assert not suspicion.confirm("a")
    assert suspicion.confirm("b")
    assert not suspicion.confirm("b")
    assert suspicion.confirm("c")
    assert not suspicion.confirm("d")
    assert suspicion.accusers == ["a", "b", "c"]


def test_where_nobody_can_confirm_the_timer_starts_at_its_minimum() -> None:
    suspicion = Suspicion("a", profile=LAN_FAST, living_count=2, now=0.0)
    assert suspicion.deadline_s == 2.0
    assert not suspicion.confirm("b")


def test_a_delay_stays_through_confirmations() -> None:
    suspicion = Suspicion("a", profile=LAN_FAST, living_count=3, now=0.0)
    suspicion.delay(0.5, 0.0)
    suspicion.confirm("b")
    assert suspicion.deadline_s == 1.5


def test_who_was_suspected_while_we_stood_still_has_time_from_now_on_whoever_confirms() -> None:
    suspicion = Suspicion("one", profile=LAN_FAST, living_count=6, now=0.0)
    suspicion.delay(0.2, 30.0)
    assert suspicion.deadline_s == 30.2
    assert suspicion.confirm("two")
    suspicion.condemn("three")
    assert suspicion.deadline_s == 30.2


def test_who_was_given_up_elsewhere_is_waited_for_most_of_the_minimum_whoever_else_confirms() -> None:
    suspicion = Suspicion("one", profile=LAN_FAST, living_count=6, now=0.0)
    suspicion.condemn("two")
    assert suspicion.deadline_s == CONDEMNED_SHARE * 1.0
    suspicion.confirm("three")
    assert suspicion.deadline_s == CONDEMNED_SHARE * 1.0
    assert 0.5 < CONDEMNED_SHARE < 1.0  # long enough for an accusation to get there and a refutation to come back
