"""Which models stay in memory, and what is told of how long a load takes and how fast a model is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from astromesh.inference.residence import ETA_S_MAX, Resident, average_tok_s, eta_s, idle, to_unload, told_tok_s

OLD, NEW, BUSY = Resident("old", 40, 1.0, busy=False), Resident("new", 40, 2.0, busy=False), Resident("busy", 20, 0.0, busy=True)


def test_where_there_is_room_nobody_goes() -> None:
    assert to_unload([OLD, NEW], needed_bytes=20, room_bytes=100) == ()


def test_the_least_recently_used_goes_first_and_no_more_than_it_takes() -> None:
    assert to_unload([NEW, BUSY, OLD], needed_bytes=40, room_bytes=100) == ("old",)
    assert to_unload([NEW, BUSY, OLD], needed_bytes=41, room_bytes=100) == ("old", "new")


def test_who_is_busy_stays_even_if_nothing_else_would_make_room() -> None:
    assert to_unload([NEW, BUSY, OLD], needed_bytes=81, room_bytes=100) is None


residents = st.lists(
    st.builds(Resident, st.text(min_size=1, max_size=3), st.integers(0, 50), st.floats(0, 9), st.booleans()), unique_by=lambda one: one.name
)


@given(residents, st.integers(0, 100), st.integers(0, 200))
def test_whoever_goes_makes_enough_room_and_was_not_busy(resident: list[Resident], needed: int, room: int) -> None:
    leaving = to_unload(resident, needed_bytes=needed, room_bytes=room)
    stays = [one for one in resident if one.name not in (leaving or ())]
    if leaving is None:
        assert sum(one.needed_bytes for one in resident if one.busy) + needed > room
    else:
        assert not any(one.busy for one in resident if one.name in leaving)
        assert sum(one.needed_bytes for one in stays) + needed <= room or not leaving


def test_idle_is_who_was_not_asked_for_so_long_and_is_not_busy() -> None:
    assert [idle(one, now=11.0, idle_s=10.0) for one in (OLD, NEW, BUSY)] == [True, False, False]
    assert not any(idle(one, now=1e9, idle_s=0.0) for one in (OLD, NEW, BUSY))


@pytest.mark.parametrize(
    ("progress", "elapsed_s", "size", "last_s", "eta"),
    [
        (0.0, 0.0, 1_000_000_000, None, 11),  # from a slow disk
        (0.0, 2.0, 1_000_000_000, 5.0, 3),  # as the last time
        (0.25, 10.0, 0, None, 30),
        (1.0, 10.0, 0, None, 1),
        (0.06, 1e6, 0, None, ETA_S_MAX),
    ],
)
def test_the_time_that_is_left_is_told_from_the_best_that_is_known(
    progress: float, elapsed_s: float, size: int, last_s: float | None, eta: int
) -> None:
    assert eta_s(progress=progress, elapsed_s=elapsed_s, size_bytes=size, last_s=last_s) == eta


def test_a_speed_is_told_in_two_digits_and_again_only_when_it_is_another() -> None:
    assert told_tok_s(None, 98.76) == 99.0
    assert told_tok_s(99.0, 110.0) == 99.0
    assert told_tok_s(99.0, 120.0) == 120.0
    assert told_tok_s(99.0, None) == 99.0
    assert average_tok_s(None, 50.0) == 50.0
    assert average_tok_s(50.0, 100.0) == 60.0
