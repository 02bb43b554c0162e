"""Is it us? The local health score, by which a starved node trusts its own probes less.

Lifeguard: Dadgar, Phillips and Currey, 2018, §IV-A. Zero is healthy; every point stretches the deadline of a probe by one interval.
"""

from __future__ import annotations

from typing import Final

SCORE_MAX: Final = 7  # memberlist's AwarenessMaxMultiplier − 1
LAG_WINDOW_S: Final = 10.0  # longer than a suspicion of `lan-fast` lasts, so that a verdict shows the lag of the doubt that led to it


class Awareness:
    """Raised by missing nacks, failed probes and refutations of ourselves, lowered by every probe that succeeds."""

    __slots__ = ("_lag_before_s", "_lag_s", "_window_s", "score")

    def __init__(self) -> None:
        self.score = 0
        self._window_s = 0.0  # when the present window began
        self._lag_s = 0.0
        self._lag_before_s = 0.0

    def shift(self, points: int) -> None:
        self.score = max(0, min(SCORE_MAX, self.score + points))

    def stretched_s(self, seconds: float) -> float:
        return seconds * (self.score + 1)

    def lagged(self, seconds: float, now: float) -> None:
        """Our own timers came so late."""
        self._turn(now)
        self._lag_s = max(self._lag_s, seconds)

    def lag_s(self, now: float) -> float:
        """The worst lag of the last one to two windows."""
        self._turn(now)
        return max(self._lag_s, self._lag_before_s)

    def _turn(self, now: float) -> None:
        if now >= self._window_s + LAG_WINDOW_S:
            self._lag_before_s = self._lag_s if now < self._window_s + 2 * LAG_WINDOW_S else 0.0
            self._lag_s, self._window_s = 0.0, now
