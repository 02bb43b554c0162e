"""The order of trying."""

from __future__ import annotations

from itertools import permutations

import pytest

from astromesh.routing.rank import Candidate, rank


def candidate(node: str, *, here: bool = False, suspected: bool = False, in_flight: int = 0) -> Candidate:
    return Candidate(node, here=here, suspected=suspected, in_flight=in_flight)


@pytest.mark.parametrize(
    "order",
    [
        pytest.param([candidate("z", here=True, in_flight=9), candidate("a")], id="this node before the others, however busy"),
        pytest.param([candidate("z", in_flight=9), candidate("a", suspected=True)], id="the living before the suspected"),
        pytest.param([candidate("z", in_flight=1), candidate("a", in_flight=2)], id="the less busy before the busier"),
        pytest.param([candidate("a", in_flight=1), candidate("b", in_flight=1)], id="names where nothing else tells them apart"),
        pytest.param([candidate("a", suspected=True), candidate("b", suspected=True, in_flight=1)], id="suspects among themselves"),
    ],
)
def test_the_order_is(order: list[Candidate]) -> None:
    for given in permutations(order):
        assert rank(given) == tuple(order)


def test_nobody_in_nobody_out() -> None:
    assert rank([]) == ()
