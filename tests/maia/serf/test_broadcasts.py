"""What waits to be told to everybody: how often, in which order, and that rumours and broadcasts leave each other their share."""

from __future__ import annotations

from maia.serf.broadcasts import BYTES_MAX, COUNT_MAX, Broadcasts


def take(queue: Broadcasts, budget_bytes: int = 1000, *, most: int = 255, living_count: int = 3) -> list[bytes]:
    return queue.take(budget_bytes, most, overhead_bytes=2, living_count=living_count)


def test_a_broadcast_is_told_as_often_as_a_rumour_and_then_dropped() -> None:
    queue = Broadcasts()
    queue.add("a", b"news")
    assert [take(queue) for _ in range(5)] == [[b"news"]] * 4 + [[]]
    queue.add("a", b"news")
    assert [take(queue, living_count=99) for _ in range(9)] == [[b"news"]] * 8 + [[]]


def test_what_is_newer_about_a_subject_replaces_what_is_older() -> None:
    queue = Broadcasts()
    queue.add("a", b"old")
    queue.add("a", b"new")
    assert take(queue) == [b"new"]


def test_least_told_goes_first_and_what_does_not_fit_is_skipped_for_what_does() -> None:
    queue = Broadcasts()
    queue.add("long", b"x" * 90)
    queue.add("short", b"y" * 20)
    assert take(queue, 100) == [b"x" * 90]
    assert take(queue, 100) == [b"y" * 20]
    assert take(queue, 30) == [b"y" * 20]


def test_what_was_passed_over_three_times_goes_first_until_it_is_told() -> None:
    queue = Broadcasts()
    queue.add("a", b"x" * 500)
    for _ in range(3):
        assert not queue.urgent
        assert take(queue, 100) == []
    assert queue.urgent
    assert take(queue, 1000) == [b"x" * 500]
    assert not queue.urgent


def test_neither_bytes_nor_broadcasts_are_without_bound_and_the_most_told_goes_first() -> None:
    queue = Broadcasts()
    queue.add("told", b"t" * 1000)
    take(queue, 2000)
    for number in range(BYTES_MAX // 1000 - 1):
        queue.add(number, b"x" * 1000)
    assert "told" in queue
    queue.add("one more", b"x" * 1000)
    assert "told" not in queue
    many = Broadcasts()
    for number in range(COUNT_MAX + 10):
        many.add(number, b"x")
    assert len(many.waiting) == COUNT_MAX
