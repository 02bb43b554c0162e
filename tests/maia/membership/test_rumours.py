"""What is told, how often, and in which order."""

from __future__ import annotations

import pytest

from maia.membership.rumours import RUMOURS_MAX, Rumours
from maia.wire.telling import tellings


def take(rumours: Rumours, *, budget_bytes: int = 1000, living_count: int = 5, most: int = 255) -> list[bytes]:
    return rumours.take(budget_bytes, most, overhead_bytes=2, living_count=living_count)


@pytest.mark.parametrize(("living", "limit"), [(1, 4), (9, 4), (10, 8), (99, 8), (100, 12), (999, 12), (1000, 16)])
def test_a_rumour_is_told_as_often_as_memberlist_tells_it(living: int, limit: int) -> None:
    assert tellings(living) == limit
    rumours = Rumours()
    rumours.add("a", b"news")
    assert [take(rumours, living_count=living) for _ in range(limit + 1)] == [[b"news"]] * limit + [[]]
    assert len(rumours) == 0


def test_the_newest_about_a_member_replaces_the_older_and_is_told_from_the_beginning() -> None:
    rumours = Rumours()
    rumours.add("a", b"suspect")
    take(rumours)
    rumours.add("a", b"alive")
    assert [take(rumours) for _ in range(5)] == [[b"alive"]] * 4 + [[]]


def test_least_told_goes_first_then_longest_then_newest() -> None:
    rumours = Rumours()
    rumours.add("told", b"told-before")
    take(rumours)
    for name, encoded in (("old", b"same"), ("new", b"SAME"), ("long", b"longer")):
        rumours.add(name, encoded)
    assert take(rumours) == [b"longer", b"SAME", b"same", b"told-before"]


def test_what_does_not_fit_is_passed_over_for_what_does() -> None:
    rumours = Rumours()
    rumours.add("big", b"x" * 90)
    rumours.add("small", b"y" * 8)
    assert take(rumours, budget_bytes=20) == [b"y" * 8]
    assert take(rumours, budget_bytes=92) == [b"x" * 90]


def test_no_more_parts_are_taken_than_a_compound_holds() -> None:
    rumours = Rumours()
    for number in range(10):
        rumours.add(str(number), b"x")
    assert len(take(rumours, most=3)) == 3


def test_a_full_queue_drops_what_was_told_most() -> None:
    rumours = Rumours()
    rumours.add("told", b"told")
    take(rumours)
    for number in range(RUMOURS_MAX):
        rumours.add(f"m{number}", b"x")
    assert len(rumours) == RUMOURS_MAX
    assert "told" not in rumours
    rumours.add("m5", b"newer")  # takes the place of its older one, and nobody else's
    assert len(rumours) == RUMOURS_MAX
