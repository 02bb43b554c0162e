"""A model whose state cannot be divided: nothing of it is shared, kept, told or handed over, and its answers are the same."""

from __future__ import annotations

from tests.astromesh.inference.test_schedule import a_schedule, run, submit

from astromesh.dialogue import Message, ModelRequest
from astromesh.inference import session_state
from astromesh.inference.prefixes import PrefixTree
from astromesh.inference.request import as_frame

IDENTITY = "ab" * 32
TALK = ModelRequest("counting", (Message("user", "abc" * 100),))


def test_a_prompt_that_was_read_is_read_again() -> None:
    divisible, _ = a_schedule(prefixes=PrefixTree(bytes_max=10**9))
    undivided, decoder = a_schedule()
    for schedule, cached in ((divisible, True), (undivided, False)):
        for number in range(2):
            submit(schedule, number, "abc" * 100, max_tokens=4)
            ended = run(schedule)[1][number]
            assert bool(ended["cached_tokens"]) is (cached and number == 1)
        assert bool(schedule.warmth()) is cached
    assert decoder.filled == {}


def test_nothing_of_it_is_exported_and_what_others_export_is_not_kept() -> None:
    divisible, _ = a_schedule(prefixes=PrefixTree(bytes_max=10**9))
    submit(divisible, 1, "abc" * 100, max_tokens=4)
    run(divisible)
    undivided, _ = a_schedule()
    submit(undivided, 1, "abc" * 100, max_tokens=4)
    run(undivided)
    frame = as_frame(TALK, number=2)
    exported = b"".join(undivided.export(frame, identity=IDENTITY))
    assert list(session_state.decode(exported, identity=IDENTITY)[1]) == []
    full = b"".join(divisible.export(frame, identity=IDENTITY))
    assert list(session_state.decode(full, identity=IDENTITY)[1]) != []
    assert undivided.take_in(full, identity=IDENTITY) == 0
