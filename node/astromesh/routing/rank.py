"""The order in which the nodes that offer a thing are tried. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Candidate:
    """A node that offers what is asked for, as the one who asks sees it."""

    node: str  # its wire name
    here: bool  # this very node
    suspected: bool  # the mesh has doubts, or our own link there broke: last in the order, not out
    in_flight: int  # our own calls that it has not answered yet; counted here at once, gossip is too slow for that
    load: float | None = None  # in requests, as it said last; None where that is unknown or too old


class Shuffler(Protocol):
    """What this room needs of `random.Random`."""

    def shuffle(self, items: list[Any], /) -> None: ...


def rank(candidates: Iterable[Candidate], random: Shuffler) -> tuple[Candidate, ...]:
    """This node first (no hop), then the less busy of two living ones at random, then the other living by how busy they are; the suspected.

    Two and not all: everybody sees the same figures a little late, and if everybody took the least busy it would be the busiest a moment
    later (Mitzenmacher, "The Power of Two Choices", 2001). The load that a node tells has our own calls of then in it, so it is not added
    to those of now. Who tells nothing counts as the median of those who do.
    """
    shuffled = sorted(candidates, key=lambda one: one.node)
    random.shuffle(shuffled)
    known = [one.load for one in shuffled if one.load is not None and not one.here]
    usual = median(known) if known else 0.0

    def busy(one: Candidate) -> tuple[float, int]:
        return max(one.in_flight, usual if one.load is None else one.load), one.in_flight

    here = [one for one in shuffled if one.here]
    living = [one for one in shuffled if not one.here and not one.suspected]
    suspected = [one for one in shuffled if not one.here and one.suspected]
    first = min(living[:2], key=busy, default=None)
    others = sorted((one for one in living if one is not first), key=busy)
    return (*here, *([first] if first is not None else []), *others, *sorted(suspected, key=busy))
