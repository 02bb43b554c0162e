"""The order of trying."""

from __future__ import annotations

from collections import Counter
from itertools import permutations
from random import Random

import pytest
from tests.rig.rooms import Unshuffled

from astromesh.routing.rank import Candidate, rank


def candidate(node: str, *, here: bool = False, suspected: bool = False, in_flight: int = 0, load: float | None = None) -> Candidate:
    return Candidate(node, here=here, suspected=suspected, in_flight=in_flight, load=load)


@pytest.mark.parametrize(
    "order",
    [
        pytest.param([candidate("z", here=True, in_flight=9), candidate("a")], id="this node before the others, however busy"),
        pytest.param([candidate("z", in_flight=9), candidate("a", suspected=True)], id="the living before the suspected"),
        pytest.param([candidate("z", in_flight=1), candidate("a", in_flight=2)], id="the less busy with us before the busier"),
        pytest.param([candidate("z", load=1.2), candidate("a", load=1.9)], id="the less busy by their own word before the busier"),
        pytest.param([candidate("z", load=2), candidate("a", in_flight=3, load=0)], id="our own calls of now before their word of then"),
        pytest.param([candidate("z", load=5), candidate("a", in_flight=4, load=5)], id="equally busy: the less busy with us"),
        pytest.param([candidate("a", in_flight=1), candidate("b", in_flight=1)], id="names where nothing else tells them apart"),
        pytest.param([candidate("a", suspected=True), candidate("b", suspected=True, in_flight=1)], id="suspects among themselves"),
    ],
)
def test_the_order_is(order: list[Candidate]) -> None:
    for given in permutations(order):
        assert rank(given, Unshuffled()) == tuple(order)


def test_who_says_nothing_counts_as_the_median_of_those_who_do() -> None:
    known = [candidate("a", load=0), candidate("b", load=4), candidate("c", load=10)]
    silent = candidate("d")
    order = rank([silent, *known], Unshuffled())
    assert [one.node for one in order] == ["a", "b", "d", "c"]


def test_two_are_drawn_and_the_less_busy_of_them_is_first() -> None:
    crowd = [candidate(f"n{number}", load=number) for number in range(10)]
    random = Random(1)
    firsts = Counter(rank(crowd, random)[0].node for _ in range(4500))
    # Of 45 pairs n0 wins nine, n1 eight, and the busiest none: nobody takes it all, as the least busy would.
    shares = [firsts[f"n{number}"] / 100 for number in range(10)]
    assert shares == pytest.approx([9, 8, 7, 6, 5, 4, 3, 2, 1, 0], abs=1.0)
    assert firsts["n9"] == 0


def test_everybody_is_tried_and_the_rest_in_the_order_of_how_busy_they_are() -> None:
    crowd = [candidate(f"n{number}", load=number % 5) for number in range(20)]
    order = rank(crowd, Random(2))
    assert sorted(one.node for one in order) == sorted(one.node for one in crowd)
    rest = [one.load for one in order[1:]]
    assert rest == sorted(rest, key=lambda load: load or 0)


def test_nobody_in_nobody_out() -> None:
    assert rank([], Unshuffled()) == ()
