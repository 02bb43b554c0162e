"""Whose texts go through an encoder next, and with whose."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from astromesh.inference.batches import ROWS_MAX, TOKENS_MAX, Batch, Batches


def drained(batches: Batches) -> list[Batch]:
    found = []
    while (batch := batches.next()) is not None:
        found.append(batch)
    return found


def test_texts_of_one_length_go_together_the_longest_first() -> None:
    batches = Batches()
    batches.submit(1, [300, 5, 4000, 5])
    assert [batch.rows for batch in drained(batches)] == [(2,), (0, 1, 3)]


def test_jobs_take_turns_so_one_question_waits_for_one_batch_only() -> None:
    batches = Batches()
    batches.submit(1, [10] * (3 * ROWS_MAX))
    first = batches.next()
    batches.submit(2, [10])
    assert [batch.job for batch in [first, *drained(batches)] if batch is not None] == [1, 1, 2, 1]


def test_a_cancelled_job_has_no_more_batches_and_the_others_go_on() -> None:
    batches = Batches()
    batches.submit(1, [10] * (2 * ROWS_MAX))
    batches.submit(2, [10])
    assert batches.cancel(1)
    assert not batches.cancel(1)
    assert drained(batches) == [Batch(2, (0,), last=True)]


@given(st.lists(st.integers(1, 2 * TOKENS_MAX), min_size=1, max_size=60))
def test_every_text_is_in_one_batch_and_no_batch_is_larger_than_it_may_be(lengths: list[int]) -> None:
    batches = Batches()
    batches.submit(1, lengths)
    found = drained(batches)
    assert sorted(place for batch in found for place in batch.rows) == list(range(len(lengths)))
    assert [batch.last for batch in found] == [False] * (len(found) - 1) + [True]
    for batch in found:
        assert len(batch.rows) <= ROWS_MAX
        assert len(batch.rows) == 1 or len(batch.rows) * max(lengths[place] for place in batch.rows) <= TOKENS_MAX
