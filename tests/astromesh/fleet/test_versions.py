"""Which version is the higher one."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from astromesh.fleet.versions import order

ASCENDING = ["", "alpha", "beta2", "beta10", "0.9", "1.0-alpha", "1.0-rc1", "1.0-rc2", "1.0", "1.0.1", "1.2", "1.10", "2.0"]


@pytest.mark.parametrize(("lower", "higher"), list(itertools.pairwise(ASCENDING)))
def test_numbers_count_by_their_value_and_a_release_is_above_its_candidates(lower: str, higher: str) -> None:
    assert order(lower) < order(higher)


def test_what_stands_between_the_parts_does_not_count() -> None:
    assert order("1.2-RC.3") == order("1_2 rc3")


@given(st.text(max_size=30), st.text(max_size=30))
def test_of_any_two_texts_one_is_not_lower(one: str, other: str) -> None:
    assert order(one) <= order(other) or order(other) <= order(one)
