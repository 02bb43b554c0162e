"""Which turns go into a prompt."""

from __future__ import annotations

from astromesh.dialogue import Message, Transcript
from astromesh.memory.window import sliding_window


def turn(number: int) -> Transcript:
    return (Message("user", f"question {number}"), Message("assistant", f"answer {number}"))


def test_the_last_turns_go_in_whole_and_in_their_order() -> None:
    assert sliding_window([turn(1), turn(2), turn(3)], turns_max=2) == (*turn(2), *turn(3))


def test_fewer_turns_than_the_window_all_go_in() -> None:
    assert sliding_window([turn(1)], turns_max=9) == turn(1)


def test_a_window_of_nothing_is_nothing() -> None:
    assert sliding_window([turn(1)], turns_max=0) == ()
