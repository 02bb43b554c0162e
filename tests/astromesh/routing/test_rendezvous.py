"""Which node a thing belongs to: the same for everybody who sees the same nodes, evenly spread, and little moves when one goes."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from astromesh.routing.rendezvous import chosen

NODES = ("a-000001", "b-000002", "c-000003", "d-000004")


@given(st.text(), st.permutations(NODES))
def test_everybody_who_sees_the_same_nodes_comes_to_the_same_one(thing: str, order: list[str]) -> None:
    assert chosen(thing, order) == chosen(thing, NODES)


def test_when_a_node_goes_only_what_was_its_own_moves() -> None:
    things = [f"session {number}" for number in range(1000)]
    before = {thing: chosen(thing, NODES) for thing in things}
    after = {thing: chosen(thing, NODES[:-1]) for thing in things}
    moved = {thing for thing in things if before[thing] != after[thing]}
    assert moved == {thing for thing in things if before[thing] == NODES[-1]}


def test_things_spread_evenly_over_the_nodes() -> None:
    counts = Counter(chosen(f"session {number}", NODES) for number in range(4000))
    assert set(counts) == set(NODES)
    assert all(850 <= count <= 1150 for count in counts.values()), counts


def test_the_one_node_there_is_has_everything() -> None:
    assert chosen("s", ["a"]) == "a"
