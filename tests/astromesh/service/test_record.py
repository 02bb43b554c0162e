"""What a node remembers of its lives: each begins above all that the others have seen of the last."""

from __future__ import annotations

from astromesh.service.record import Record
from maia.config import INCARNATION_MAX


def test_a_life_begins_above_the_last_one_although_nobody_ever_accused_that() -> None:
    first = Record(generation=0).next_life(now=1000.5)
    second = first.next_life(now=1000.6)
    assert (first.generation, second.generation) == (1000, 1001)
    assert (first.incarnation, second.incarnation) == (1, 2)


def test_a_life_begins_above_whatever_the_last_one_was_raised_to() -> None:
    raised = Record(generation=0).next_life(now=1000.0).raised(incarnation=7).raised(incarnation=5)
    assert raised.next_life(now=2000.0).incarnation == 8


def test_a_node_that_left_begins_its_lonely_life_above_the_one_that_it_ended() -> None:
    life = Record(generation=0).next_life(now=1000.0).with_seed("127.0.0.1:7946")
    lonely = life.alone().next_life(now=1000.0)
    assert (lonely.generation, lonely.incarnation, lonely.joined, lonely.left) == (life.generation + 1, life.incarnation + 1, (), True)


def test_an_incarnation_at_the_end_of_the_scale_does_not_keep_a_node_from_starting() -> None:
    """Somebody accused it of 2**31, it answered with one more, and that was written down."""
    driven = Record(generation=1).raised(incarnation=INCARNATION_MAX + 1)
    assert driven.next_life(now=1000.0).incarnation == INCARNATION_MAX - 1
