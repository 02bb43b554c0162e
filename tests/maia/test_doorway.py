"""Who may keep a connection open: the rules, without a socket."""

from __future__ import annotations

from maia.config import Address
from maia.drivers.doorway import Doorway, Visitor


def visitor(number: int, *, member: bool = False) -> Visitor:
    return Visitor(Address(f"10.0.0.{number}", number), member=member)


def test_the_stranger_who_has_been_there_longest_goes_for_whoever_comes() -> None:
    doorway = Doorway(visitors_max=3)
    member, first, second = visitor(1, member=True), visitor(2), visitor(3)
    assert [doorway.enter(other) for other in (member, first, second)] == [None, None, None]
    assert doorway.enter(visitor(4)) is first
    assert doorway.enter(visitor(5, member=True)) is second
    assert len(doorway) == 3


def test_no_member_goes_for_a_stranger_and_the_longest_there_for_a_member() -> None:
    doorway = Doorway(visitors_max=2)
    first, second, stranger = visitor(1, member=True), visitor(2, member=True), visitor(3)
    assert doorway.enter(first) is doorway.enter(second) is None
    assert doorway.enter(stranger) is stranger
    assert doorway.enter(visitor(4, member=True)) is first


def test_what_all_hold_is_bounded_and_the_stranger_that_holds_most_goes_first() -> None:
    doorway = Doorway(visitors_max=9, held_bytes_max=100)
    member, small, big = visitor(1, member=True), visitor(2), visitor(3)
    for other in (member, small, big):
        doorway.enter(other)
    assert doorway.hold(member, 60) is doorway.hold(small, 5) is doorway.hold(big, 30) is None
    assert doorway.hold(big, 40) is big
    assert doorway.hold(small, 39) is None
    assert doorway.hold(member, 62) is small
    assert doorway.hold(member, 101) is member
    assert len(doorway) == 0


def test_who_left_holds_nothing_and_leaving_twice_changes_nothing() -> None:
    doorway = Doorway(visitors_max=9, held_bytes_max=100)
    gone, there = visitor(1), visitor(2)
    doorway.enter(gone)
    doorway.enter(there)
    assert doorway.hold(gone, 90) is None
    doorway.leave(gone)
    doorway.leave(gone)
    assert doorway.hold(gone, 90) is None
    assert doorway.hold(there, 100) is None
