"""Which of several models is asked first: the strategies that a document can name. Pure.

What is not known ranks behind what is, and equals keep the order of the document. So a strategy without a single figure is the document's
own order, and so is no strategy at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import Literal, assert_never

from astromesh.routing.latency import NEVER, Latency
from astromesh.specs.agent import Strategy

# One request in so many goes to whoever was measured longest ago, or never: else who was slow once would be slow for ever, and who was
# never asked would never be found to be fast.
LOOKS_AROUND_EVERY = 16

Skill = Literal["tools", "vision"]


@dataclass(frozen=True, slots=True)
class Merits:
    """What is said of a model. None is not known; the mesh's own models cost nothing."""

    cost_per_1k_tokens: float | None = None
    quality_score: float | None = None
    skills: tuple[Skill, ...] = ()  # it is said to have
    lacks: tuple[Skill, ...] = ()  # it is said not to have

    def cost(self, tokens: int) -> float:
        """Of so many tokens, those read and those made alike; 0 where no price is known."""
        return tokens * (self.cost_per_1k_tokens or 0.0) / 1000


@dataclass(frozen=True, slots=True)
class Option:
    """A model that may be asked, as the one who ranks sees it."""

    merits: Merits = Merits()
    latency: Latency = NEVER
    down: bool = False  # its server was asked whether it lives, and did not answer


def preferred(
    options: Sequence[Option], strategy: Strategy | None, *, turn: int = 0, watched: bool = True, needs: tuple[Skill, ...] = ()
) -> tuple[int, ...]:
    """The places of the options in the order in which to try them. All are in it, but those that cannot do what is needed.

    `turn` counts the requests that were ranked before. `watched`: somebody reads the answer as it is made, so that its first token counts
    and not its last. Who is down is tried last, whatever the strategy says: it may have come back.
    """
    places = range(len(options))
    match strategy:
        case None:
            order = list(places)
        case "cost_optimized":
            order = sorted(places, key=lambda place: _up(options[place].merits.cost_per_1k_tokens))
        case "quality_first":
            order = sorted(places, key=lambda place: _down(options[place].merits.quality_score))
        case "latency_optimized":
            order = _by_latency(options, turn=turn, watched=watched)
        case "round_robin":
            order = [(place + turn) % len(options) for place in places]
        case "capability_match":
            able = [place for place in places if not any(need in options[place].merits.lacks for need in needs)]
            order = sorted(able, key=lambda place: sum(need not in options[place].merits.skills for need in needs))
        case _:
            assert_never(strategy)
    return tuple(sorted(order, key=lambda place: options[place].down))


def _by_latency(options: Sequence[Option], *, turn: int, watched: bool) -> list[int]:
    def wait(place: int) -> tuple[float, float]:
        seen = options[place].latency
        first, whole = _up(seen.first_token_s), _up(seen.total_s)
        return (first, whole) if watched else (whole, first)

    order = sorted(range(len(options)), key=wait)
    if order and turn % LOOKS_AROUND_EVERY == LOOKS_AROUND_EVERY - 1:
        longest_ago = min(order, key=lambda place: (options[place].latency.measured_s, place))
        order.remove(longest_ago)
        order.insert(0, longest_ago)
    return order


def _up(figure: float | None) -> float:
    return inf if figure is None else figure


def _down(figure: float | None) -> float:
    return inf if figure is None else -figure
