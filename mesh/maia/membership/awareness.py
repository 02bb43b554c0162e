"""Is it us? The local health score, by which a starved node trusts its own probes less.

Lifeguard: Dadgar, Phillips and Currey, 2018, §IV-A. Zero is healthy; every point stretches the deadline of a probe by one interval.
"""

from __future__ import annotations

from typing import Final

SCORE_MAX: Final = 7  # memberlist's AwarenessMaxMultiplier − 1


class Awareness:
    """Raised by missing nacks, failed probes and refutations of ourselves, lowered by every probe that succeeds."""

    __slots__ = ("score",)

    def __init__(self) -> None:
        self.score = 0

    def shift(self, points: int) -> None:
        self.score = max(0, min(SCORE_MAX, self.score + points))

    def stretched_s(self, seconds: float) -> float:
        return seconds * (self.score + 1)
