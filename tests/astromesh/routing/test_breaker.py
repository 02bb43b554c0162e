"""When a server is left alone, for how long, and who tries it again."""

from __future__ import annotations

import pytest

from astromesh.errors import AstromeshError, InvalidRequest, ModelFailed, ModelRefused, Overloaded, PeerLost
from astromesh.routing.breaker import Breaker, BreakerRules, Ending, Pass, ending_of


class Told:
    """A breaker and its clock, told one thing after the other."""

    def __init__(self, breaker: Breaker | None = None) -> None:
        self.breaker = breaker or Breaker()
        self.now = 0.0

    @property
    def state(self) -> str:
        return self.breaker.state(now=self.now)

    def enter(self) -> Pass:
        leave = self.refused()
        assert leave is not None
        return leave

    def refused(self) -> Pass | None:
        self.breaker, leave = self.breaker.admit(now=self.now)
        return leave

    def began(self, leave: Pass) -> Pass:
        self.breaker, leave = self.breaker.began(leave)
        return leave

    def end(self, leave: Pass, ending: Ending) -> None:
        self.breaker = self.breaker.ended(leave, ending, now=self.now)

    def call(self, *endings: Ending) -> None:
        for ending in endings:
            self.end(self.enter(), ending)


def opened() -> Told:
    told = Told()
    told.call("failure", "failure", "failure")
    return told


def test_the_third_failure_in_a_row_opens_it_and_a_minute_later_it_is_half_open() -> None:
    told = Told()
    told.call("failure", "failure")
    assert told.state == "closed"
    told.call("failure")
    assert (told.state, told.refused(), told.breaker.closed_for_s(now=told.now)) == ("open", None, 60.0)
    told.now = 59.9
    assert (told.state, told.refused()) == ("open", None)
    told.now = 60.0
    assert told.state == "half_open"


def test_a_success_in_between_begins_the_count_anew_and_what_is_neither_does_not() -> None:
    told = Told()
    told.call("failure", "failure", "success", "failure", "failure")
    assert told.state == "closed"
    told.call("neither", "neither", "failure")
    assert told.state == "open"


def test_only_one_tries_it_and_its_failure_opens_it_for_another_minute() -> None:
    told = opened()
    told.now = 60.0
    trial = told.enter()
    assert (told.refused(), told.refused()) == (None, None)
    told.now = 70.0
    told.end(trial, "failure")
    assert (told.state, told.breaker.closed_for_s(now=told.now)) == ("open", 60.0)
    told.now = 130.0
    assert told.state == "half_open"


@pytest.mark.parametrize("words", [True, False])
def test_a_trial_that_goes_well_closes_it_for_all(*, words: bool) -> None:
    told = opened()
    told.now = 60.0
    trial = told.enter()
    if words:
        trial = told.began(trial)
    told.end(trial, "success")
    assert told.state == "closed"
    told.call("failure", "failure")
    assert told.state == "closed"


def test_the_first_word_of_a_trial_lets_others_in_and_its_failure_after_it_opens_again() -> None:
    told = opened()
    told.now = 60.0
    trial = told.began(told.enter())
    assert told.state == "closed"
    other = told.enter()
    told.end(trial, "failure")
    assert told.state == "open"
    told.end(other, "success")  # it had begun before
    assert told.state == "open"


def test_a_trial_that_was_cancelled_leaves_the_next_one_to_try() -> None:
    told = opened()
    told.now = 60.0
    told.end(told.enter(), "neither")
    assert told.state == "half_open"
    told.enter()
    assert told.refused() is None


def test_what_began_before_it_opened_changes_nothing_any_more() -> None:
    told = Told()
    late = [told.enter() for _ in range(4)]
    told.end(late[0], "failure")
    told.call("failure", "failure")
    assert told.state == "open"
    told.now = 30.0
    told.end(late[1], "failure")
    assert told.breaker.closed_for_s(now=told.now) == 30.0  # not another sixty
    told.end(late[2], "success")
    assert told.state == "open"
    told.now = 60.0
    told.end(told.enter(), "success")
    told.end(late[3], "failure")
    assert told.breaker.failures == 0


def test_its_rules_are_its_own() -> None:
    told = Told(Breaker(BreakerRules(failure_threshold=1, recovery_timeout_s=5.0)))
    told.call("failure")
    assert told.state == "open"
    told.now = 5.0
    trial = told.began(told.enter())
    told.end(trial, "success")
    assert told.state == "closed"


@pytest.mark.parametrize(
    ("failure", "ending"),
    [
        (ModelFailed("no", code="model_connection_refused", definite=True), "failure"),
        (ModelFailed("no", code="model_dns_resolution_failed", definite=True), "failure"),
        (ModelFailed("no", code="model_timeout"), "failure"),
        (ModelFailed("no", code="model_provider_unavailable"), "failure"),
        (PeerLost("no"), "failure"),
        (ModelRefused("400"), "neither"),
        (InvalidRequest("422"), "neither"),
        (Overloaded("429"), "neither"),
        (ModelFailed("401", code="model_missing_api_key", definite=True), "neither"),
        (ModelFailed("404", code="model_no_eligible_provider", definite=True), "neither"),
    ],
    ids=lambda value: value if isinstance(value, str) else f"{type(value).__name__} {value.message}",
)
def test_what_is_wrong_with_a_request_or_its_key_says_nothing_of_the_server(failure: AstromeshError, ending: Ending) -> None:
    assert ending_of(failure) == ending
