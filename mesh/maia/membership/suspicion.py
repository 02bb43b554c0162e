"""How long a doubt may last: the suspicion timer, shortened by everyone who independently confirms it.

Lifeguard: Dadgar, Phillips and Currey, 2018, §IV-B. A lone accuser may itself be starved, so its word starts the timer at its maximum.
"""

from __future__ import annotations

import math
from typing import Final

from maia.config import Profile

SUSPICION_MAX_MULTIPLIER: Final = 6  # memberlist's
# Of the minimum: who is given up by somebody who waited a whole one need not be waited for as long again by whoever heard of the doubt
# last, or all of them wait for him: among a hundred nodes the last verdict came 0.27 s after the first instead of 0.08 s (`gossip_scale`).
# What is left, 0.7 s of `lan-fast`, is still twice what an accusation takes to its subject and the refutation back.
CONDEMNED_SHARE: Final = 0.7
FLAT_CONFIRMATIONS: Final = 2  # a third and fourth witness would only make a correct verdict later


class Suspicion:
    """One member under suspicion. `deadline_s` is when it is given up unless it refutes."""

    __slots__ = ("_condemned", "_delayed_s", "_maximum_s", "_minimum_s", "_needed", "_not_before_s", "_started_s", "accusers", "deadline_s")

    def __init__(self, accuser: str, *, profile: Profile, living_count: int, now: float) -> None:
        self.accusers = [accuser]
        self._minimum_s, self._maximum_s = suspicion_bounds_s(profile, living_count)
        self._needed = confirmations_needed(profile, living_count)
        self._started_s = now
        self._delayed_s = 0.0
        self._not_before_s = -math.inf
        self._condemned = False
        self.deadline_s = self._deadline()

    def confirm(self, accuser: str) -> bool:
        """Count an independent accuser; True if it was news. Nobody counts twice, and none beyond the number needed."""
        if len(self.accusers) > self._needed or accuser in self.accusers:
            return False
        self.accusers.append(accuser)
        self.deadline_s = self._deadline()
        return True

    def condemn(self, accuser: str) -> None:
        """Somebody gave it up: it has no longer than most of the minimum, whoever else confirms."""
        if accuser not in self.accusers:
            self.accusers.append(accuser)
        self._condemned = True
        self.deadline_s = self._deadline()

    def delay(self, seconds: float, now: float) -> None:
        """Wait longer, and at least so long from now on, whoever confirms: this node was not able to hear a refutation."""
        self._delayed_s += seconds
        self._not_before_s = now + seconds
        self.deadline_s = self._deadline()

    def _deadline(self) -> float:
        timeout_s = self._minimum_s * (CONDEMNED_SHARE if self._condemned else 1.0)
        if self._needed > 0 and not self._condemned:
            share = math.log(len(self.accusers)) / math.log(self._needed + 1)
            timeout_s = max(self._minimum_s, self._maximum_s - (self._maximum_s - self._minimum_s) * share)
        return max(self._started_s + timeout_s + self._delayed_s, self._not_before_s)


def suspicion_bounds_s(profile: Profile, living_count: int) -> tuple[float, float]:
    """The shortest and the longest that a member of `profile` may be suspected, in seconds."""
    if profile.suspicion_flat_s is not None:
        minimum_s, maximum_s = profile.suspicion_flat_s
        return (profile.suspicion_pair_s if living_count <= 2 else minimum_s), maximum_s
    minimum_s = profile.suspicion_multiplier * max(1.0, math.log10(max(1, living_count))) * profile.probe_interval_s
    return minimum_s, SUSPICION_MAX_MULTIPLIER * minimum_s


def confirmations_needed(profile: Profile, living_count: int) -> int:
    """How many beside the first accuser shorten the timer to its minimum; 0 where so many others do not exist."""
    others = living_count - 2
    if profile.suspicion_flat_s is not None:
        return max(0, min(FLAT_CONFIRMATIONS, others))
    needed = profile.suspicion_multiplier - 2
    return needed if others >= needed else 0
