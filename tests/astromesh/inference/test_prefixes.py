"""What is kept of prompts: the longest known beginning, whole, within its budget, and nothing that was never computed."""

from __future__ import annotations

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from astromesh.inference.prefixes import TAIL_TOKENS_MIN, PrefixTree, State

A = tuple(range(100, 200))
B = (*range(100, 150), *range(500, 550))


def state_of(tokens: tuple[int, ...], start: int = 0) -> State:
    """A state that says what it is of: a byte for each token, whatever came before it."""
    return State(start, len(tokens), bytes(token % 251 for token in tokens[start:]))


def keep(tree: PrefixTree, tokens: tuple[int, ...], **marks: int) -> None:
    tree.insert(tokens, state_of(tokens, tree.known(tokens)), marks={name.encode(): position for name, position in marks.items()})


def read(tree: PrefixTree, tokens: tuple[int, ...]) -> bytes:
    """What an engine would put together of a match; fails where the parts have holes."""
    found = b""
    for part in tree.match(tokens):
        assert part.start == len(found), "a hole"
        assert part.state.start <= part.start < part.end <= part.state.end
        found += part.state.data[part.start - part.state.start : part.end - part.state.start]
    return found


def test_nothing_is_known_at_first() -> None:
    tree = PrefixTree(bytes_max=1000)
    assert tree.match(A) == ()
    assert tree.known(A) == 0


def test_what_was_kept_is_found_whole_in_part_and_as_the_beginning_of_more() -> None:
    tree = PrefixTree(bytes_max=1000)
    keep(tree, A)
    for asked, known in ((A, 100), (A[:30], 30), ((*A, 7, 8), 100), ((*A[:70], 9), 70), (A[1:], 0)):
        assert tree.known(asked) == known
        assert read(tree, asked) == state_of(A).data[:known]


def test_what_two_prompts_share_is_kept_once() -> None:
    tree = PrefixTree(bytes_max=1000)
    keep(tree, A)
    keep(tree, B)
    assert tree.bytes_kept == 150
    assert read(tree, A) == state_of(A).data
    assert read(tree, B) == state_of(B).data


def test_a_state_whose_beginning_is_not_known_any_more_is_not_kept() -> None:
    tree = PrefixTree(bytes_max=1000)
    tree.insert(A, state_of(A, 40), marks={})
    assert tree.known(A) == 0
    assert tree.bytes_kept == 0


def test_a_tail_too_short_to_be_worth_it_is_not_kept() -> None:
    tree = PrefixTree(bytes_max=1000)
    keep(tree, A)
    keep(tree, (*A, *range(TAIL_TOKENS_MIN - 1)))
    assert tree.bytes_kept == 100
    keep(tree, (*A, *range(TAIL_TOKENS_MIN)))
    assert tree.bytes_kept == 100 + TAIL_TOKENS_MIN


def test_what_was_not_used_for_longest_goes_first_and_shared_beginnings_last() -> None:
    tree = PrefixTree(bytes_max=160)
    keep(tree, A)
    keep(tree, B)  # 150 bytes: the shared half and two tails, of which A's state holds the half as well
    read(tree, A)
    keep(tree, (*A, *range(40)))
    assert tree.known(B) == 50
    assert tree.known(A) == 100
    assert tree.bytes_kept == 140


def test_a_state_beyond_the_budget_is_not_kept_and_throws_nobody_out() -> None:
    tree = PrefixTree(bytes_max=160)
    keep(tree, A)
    keep(tree, tuple(range(1000, 1161)))
    assert tree.known(A) == 100


def test_marks_are_told_while_what_they_mark_is_known_lately_used_first() -> None:
    tree = PrefixTree(bytes_max=200)
    keep(tree, A, system=40, conversation=100)
    keep(tree, B, system=40, other=100)
    assert list(tree.warm()) == [(b"other", 100), (b"system", 40), (b"conversation", 100)]
    read(tree, A)
    keep(tree, tuple(range(2000, 2060)), third=60)  # throws the tail of B out
    assert list(tree.warm()) == [(b"third", 60), (b"conversation", 100), (b"system", 40)]


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 2**32), budget=st.integers(20, 400))
def test_whatever_comes_and_goes_a_match_is_what_was_computed_and_the_budget_holds(seed: int, budget: int) -> None:
    random = Random(seed)
    tree = PrefixTree(bytes_max=budget)
    seen: list[tuple[int, ...]] = []
    for _ in range(40):
        base = seen[random.randrange(len(seen))] if seen and random.random() < 0.7 else ()
        tokens = (*base[: random.randrange(len(base) + 1)], *(random.randrange(3) for _ in range(random.randrange(1, 60))))
        seen.append(tokens)
        assert read(tree, tokens) == state_of(tokens).data[: tree.known(tokens)]
        keep(tree, tokens)
        assert tree.bytes_kept <= budget
        if len(tokens) <= budget and tree.known(tokens) < len(tokens) - TAIL_TOKENS_MIN:
            assert tree.bytes_kept + len(tokens) > budget
