"""The driver of scripts fails where a script says something else than the test expects."""

from __future__ import annotations

import pytest
from tests.rig.conversation import Conversation

from astromesh.effects import Note, Recall, Script
from astromesh.errors import Overloaded


def greeting() -> Script[str]:
    yield from Note("step", {"says": "hello"})
    try:
        yield from Recall()
    except Overloaded:
        return "alone"
    return "together"


def test_what_the_script_says_is_compared_and_what_it_returns_is_the_outcome() -> None:
    talk = Conversation(greeting())
    talk << Note("step", {"says": "hello"}) >> None << Recall() >> ()
    assert talk.outcome == "together"
    assert talk.effect is None


def test_an_exception_given_as_reply_is_raised_in_the_script() -> None:
    talk = Conversation(greeting())
    talk >> None >> Overloaded("busy")
    assert talk.outcome == "alone"


def test_another_effect_than_the_expected_one_fails() -> None:
    with pytest.raises(AssertionError, match="instead of Recall"):
        Conversation(greeting()) << Recall()


def test_a_reply_to_a_script_that_is_over_fails_and_so_does_the_outcome_of_one_that_is_not() -> None:
    talk = Conversation(greeting())
    with pytest.raises(AssertionError, match="is not over"):
        _ = talk.outcome
    talk >> None >> ()
    with pytest.raises(AssertionError, match="nobody waits"):
        talk >> None
