"""Which turns go into a prompt."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from astromesh.dialogue import Message, ToolCall
from astromesh.memory.port import History, Summary, Turn
from astromesh.memory.window import SUMMARY_PREFACE, Window, estimated_tokens, in_prompt, outside


def turn(number: int, *, text: str = "") -> Turn:
    return Turn(f"t{number}", float(number), (Message("user", f"question {number}"), Message("assistant", text or f"answer {number}")))


def ten(_: Turn) -> int:
    return 10


def history(*turns: Turn, summary: Summary | None = None) -> History:
    return History(turns, summary)


ONE, TWO, THREE, FOUR = (turn(number) for number in range(1, 5))


def test_the_last_turns_go_in_whole_and_in_their_order() -> None:
    assert in_prompt(history(ONE, TWO, THREE), Window(2), ten) == (*TWO.said, *THREE.said)


def test_fewer_turns_than_the_window_all_go_in() -> None:
    assert in_prompt(history(ONE), Window(9), ten) == ONE.said


def test_a_window_of_nothing_is_nothing() -> None:
    assert in_prompt(history(ONE), Window(0), ten) == ()


def test_a_budget_takes_the_newest_turns_that_fit_and_never_half_of_one() -> None:
    assert in_prompt(history(ONE, TWO, THREE), Window(9, tokens_max=29), ten) == (*TWO.said, *THREE.said)
    assert in_prompt(history(ONE, TWO, THREE), Window(9, tokens_max=30), ten) == (*ONE.said, *TWO.said, *THREE.said)
    assert in_prompt(history(ONE, TWO, THREE), Window(9, tokens_max=9), ten) == ()


def test_a_turn_that_does_not_fit_hides_those_before_it() -> None:
    costs = {"t1": 1, "t2": 50, "t3": 1}
    assert in_prompt(history(ONE, TWO, THREE), Window(9, tokens_max=40), lambda turn: costs[turn.id]) == THREE.said


@given(st.lists(st.integers(0, 50), max_size=12), st.integers(0, 200), st.integers(0, 12))
def test_whatever_fits_is_within_the_budget_and_one_turn_more_would_not_be(costs: list[int], tokens_max: int, turns_max: int) -> None:
    turns = [turn(number) for number in range(len(costs))]
    said = in_prompt(history(*turns), Window(turns_max, tokens_max), lambda turn: costs[int(turn.at)])
    count = len(said) // 2
    assert said == tuple(message for each in turns[len(turns) - count :] for message in each.said)
    assert count <= turns_max
    assert sum(costs[len(costs) - count :]) <= tokens_max
    if count < min(turns_max, len(turns)):
        assert sum(costs[len(costs) - count - 1 :]) > tokens_max


def test_the_summary_stands_for_the_turns_that_it_folds_as_a_turn_of_its_own() -> None:
    kept = history(ONE, TWO, THREE, summary=Summary("They met.", through="t2"))
    preface, reply, *rest = in_prompt(kept, Window(4, folds=True), ten)
    assert (preface.role, reply.role, tuple(rest)) == ("user", "assistant", THREE.said)
    assert preface.content == f"{SUMMARY_PREFACE}\n\nThey met."


def test_turns_that_wait_for_their_summary_stay_in_the_prompt() -> None:
    assert in_prompt(history(ONE, TWO, THREE), Window(2, folds=True), ten) == (*ONE.said, *TWO.said, *THREE.said)


def test_nothing_is_folded_while_it_fits_and_half_of_the_window_once_it_does_not() -> None:
    assert outside(history(ONE, TWO), Window(2, folds=True), ten) == ()
    assert outside(history(ONE, TWO, THREE), Window(2, folds=True), ten) == (ONE, TWO)
    assert outside(history(ONE, TWO, THREE, FOUR), Window(9, tokens_max=39, folds=True), ten) == (ONE, TWO, THREE)
    assert outside(history(ONE, TWO, THREE), Window(2), ten) == ()


def test_what_was_folded_is_not_folded_again() -> None:
    kept = history(ONE, TWO, THREE, FOUR, summary=Summary("They met.", through="t2"))
    assert outside(kept, Window(2, folds=True), ten) == ()
    assert outside(kept, Window(1, folds=True), ten) == (THREE, FOUR)


def test_a_summary_whose_last_turn_is_not_kept_any_more_stands_before_all_that_is() -> None:
    assert history(THREE, FOUR, summary=Summary("They met.", through="t2")).unfolded == (THREE, FOUR)


def test_an_estimate_counts_bytes_calls_and_messages() -> None:
    assert estimated_tokens((Message("user", "x" * 30),)) == 14
    assert estimated_tokens((Message("user", "é" * 30),)) == 24
    assert estimated_tokens((Message("assistant", "", (ToolCall("1", "clock", "x" * 24),)),)) == 4 + 11
