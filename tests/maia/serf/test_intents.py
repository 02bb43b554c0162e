"""Intents to stay and to leave: the newest about each member counts, whatever the order in which they come."""

from __future__ import annotations

from maia.serf.intents import PENDING_MAX, PENDING_S, Intents, Outcome

ME, OTHER = "me", "other"


def test_who_is_given_up_after_it_said_that_it_leaves_has_left() -> None:
    intents = Intents(ME)
    assert intents.hear_leave(OTHER, 5, status="alive", now=0.0) is Outcome.NEWS
    assert intents.gone(OTHER)
    assert not intents.gone(OTHER)


def test_a_dead_member_that_is_said_to_leave_has_departed() -> None:
    intents = Intents(ME)
    assert intents.hear_leave(OTHER, 5, status="dead", now=0.0) is Outcome.DEPARTED
    assert intents.hear_leave(OTHER, 5, status="left", now=0.0) is Outcome.OLD


def test_a_newer_intent_to_stay_overrules_one_to_leave_and_an_older_one_does_not() -> None:
    intents = Intents(ME)
    intents.hear_leave(OTHER, 5, status="alive", now=0.0)
    assert intents.hear_join(OTHER, 5, status="alive", now=0.0) is Outcome.OLD
    assert intents.hear_join(OTHER, 6, status="alive", now=0.0) is Outcome.NEWS
    assert not intents.gone(OTHER)
    assert intents.hear_leave(OTHER, 6, status="alive", now=0.0) is Outcome.OLD


def test_this_node_refutes_that_it_leaves_until_it_does() -> None:
    intents = Intents(ME)
    assert intents.hear_leave(ME, 7, status="alive", now=0.0) is Outcome.REFUTED
    assert intents.stay() == 8
    assert intents.hear_leave(ME, 7, status="alive", now=0.0) is Outcome.OLD
    leave = intents.leave()
    assert intents.hear_leave(ME, leave, status="alive", now=0.0) is Outcome.OLD
    assert intents.hear_leave(ME, leave + 1, status="alive", now=0.0) is Outcome.NEWS


def test_what_is_said_of_somebody_unknown_counts_once_it_is_met_and_for_five_minutes() -> None:
    intents = Intents(ME)
    assert intents.hear_leave(OTHER, 5, status=None, now=0.0) is Outcome.NEWS
    assert intents.hear_leave(OTHER, 5, status=None, now=1.0) is Outcome.OLD
    assert intents.hear_join(OTHER, 4, status=None, now=1.0) is Outcome.OLD
    intents.met(OTHER, 2.0)
    assert intents.hear_join(OTHER, 5, status="alive", now=2.0) is Outcome.OLD
    assert intents.gone(OTHER)
    intents.hear_leave("late", 5, status=None, now=0.0)
    intents.met("late", PENDING_S)
    assert not intents.gone("late")


def test_of_somebody_unknown_only_the_newest_is_kept() -> None:
    intents = Intents(ME)
    intents.hear_leave(OTHER, 5, status=None, now=0.0)
    intents.hear_join(OTHER, 6, status=None, now=0.0)
    intents.met(OTHER, 1.0)
    assert not intents.gone(OTHER)


def test_names_that_nobody_has_are_kept_in_bounds() -> None:
    intents = Intents(ME)
    for number in range(PENDING_MAX):
        assert intents.hear_join(f"nobody-{number}", 1, status=None, now=0.0) is Outcome.NEWS
    assert intents.hear_join("one-more", 1, status=None, now=1.0) is Outcome.OLD
    assert intents.hear_join("one-more", 1, status=None, now=PENDING_S) is Outcome.NEWS


def test_who_returns_or_is_forgotten_means_nothing_any_more() -> None:
    intents = Intents(ME)
    intents.hear_leave(OTHER, 5, status="alive", now=0.0)
    intents.returned(OTHER)
    assert not intents.gone(OTHER)
    intents.forget(OTHER)
    assert OTHER not in intents.times
