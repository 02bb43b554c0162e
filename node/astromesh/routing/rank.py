"""The order in which the nodes that offer a thing are tried. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Candidate:
    """A node that offers what is asked for, as the one who asks sees it."""

    node: str  # its wire name
    here: bool  # this very node
    suspected: bool  # the mesh has doubts, or our own link there broke: last in the order, not out
    in_flight: int  # our own calls that it has not answered yet; counted here at once, gossip is too slow for that


def rank(candidates: Iterable[Candidate]) -> tuple[Candidate, ...]:
    """This node first (no hop), then the living before the suspected, the less busy with us before the busier, names as a tie-break."""
    return tuple(sorted(candidates, key=lambda one: (not one.here, one.suspected, one.in_flight, one.node)))
