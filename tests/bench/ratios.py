"""From rounds to a verdict. Pure.

Sides are compared within a round, where they met the same noise; what is told of a ratio is its median over the rounds and its quartiles.
A round in which a side failed even once speaks against that side: its goal is missed, whatever the numbers say.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of some numbers, between their quartiles."""

    low: float
    median: float
    high: float

    def __format__(self, form: str) -> str:
        return f"{self.median:{form}} ({self.low:{form}}–{self.high:{form}})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """One of the goals: `ratio` must be on the right side of the limit (one of the two is given)."""

    name: str
    what: str
    at_most: float | None = None
    at_least: float | None = None

    @property
    def limit(self) -> str:
        return f"≤ {self.at_most:g}" if self.at_most is not None else f"≥ {self.at_least:g}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    goal: Goal
    ratio: Spread | None
    failures: int

    @property
    def met(self) -> bool:
        if self.ratio is None or self.failures:
            return False
        within = self.goal.at_most is None or self.ratio.median <= self.goal.at_most
        return within and (self.goal.at_least is None or self.ratio.median >= self.goal.at_least)

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "met": self.met}

    def __str__(self) -> str:
        found = "no numbers" if self.ratio is None else f"{self.ratio:.3f}"
        failed = f", {self.failures} failures" if self.failures else ""
        return f"{'met   ' if self.met else 'MISSED'} {self.goal.name}  {self.goal.what}: {found}, goal {self.goal.limit}{failed}"


def spread(numbers: Sequence[float]) -> Spread | None:
    """None of none; one number is its own quartiles."""
    if len(numbers) < 2:
        return Spread(numbers[0], numbers[0], numbers[0]) if numbers else None
    low, median, high = statistics.quantiles(numbers, n=4, method="inclusive")
    return Spread(low, median, high)


def percentile(numbers: Sequence[float], share: float) -> float:
    """The smallest of some numbers, at least one, that `share` of them do not exceed."""
    return sorted(numbers)[max(0, math.ceil(share * len(numbers)) - 1)]


def per_round(side: Sequence[float | None], yardstick: Sequence[float | None]) -> Spread | None:
    """`side` over `yardstick`, round by round; rounds where one of them has no number, or the yardstick none above zero, are left out."""
    pairs = zip(side, yardstick, strict=True)
    return spread([one / other for one, other in pairs if one is not None and other is not None and other > 0])


def beyond(side: Sequence[float | None], base: Sequence[float | None]) -> list[float | None]:
    """What `side` has on top of `base`, round by round."""
    pairs = zip(side, base, strict=True)
    return [one - other if one is not None and other is not None else None for one, other in pairs]
