"""How much a node may push, so that many changes cost a cluster no more than few.

Changes are free until their owner has pushed more than its share for a while. Then they wait, and since only the newest version of a slot
is ever sent, those that wait become one. What makes something usable or unusable may take all of the share, figures only the upper half of
what was saved: so nobody who changes figures for ever delays the news that a model is gone.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Final, Literal

# "at once": something becomes usable or unusable. "figures": only numbers change, and a second later is soon enough for them.
Urgency = Literal["at once", "figures"]

URGENCIES: Final[tuple[Urgency, ...]] = ("at once", "figures")

FIGURES_INTERVAL_S: Final = 1.0
# What a node may push, in bits a second with all headers, by the number of members: what the caps of 24, 64 and 128 kbit/s leave beside
# probes and rumours (12, 16 and 32). It carries 5, 20 and 40 changes a second in the whole cluster where its nodes take turns.
BUDGETS: Final = ((10, 12_000.0), (100, 48_000.0), (1000, 96_000.0))
SAVED_S: Final = 30.0  # what was not pushed may be pushed later at one go, up to this much of it
FIGURES_SHARE: Final = 0.5
# A usual change to one receiver: an entry of 252 bytes, the type byte, the header, those of IPv4 and UDP, and the seal.
PACKET_OVERHEAD_BYTES: Final = 28 + 29
CHANGE_BYTES: Final = 312


def budget_bytes_per_s(members: int) -> float:
    """Between the sizes that were reckoned, along the logarithm; below the first and above the last, as those."""
    members = min(max(members, BUDGETS[0][0]), BUDGETS[-1][0])
    for (low, low_bits), (high, high_bits) in pairwise(BUDGETS):
        if members <= high:
            share = math.log10(members / low) / math.log10(high / low)
            return (low_bits + share * (high_bits - low_bits)) / 8
    return BUDGETS[-1][1] / 8


class Pace:
    """A bucket of bytes to push. It holds half a minute's worth, and always one usual change to everybody twice."""

    def __init__(self) -> None:
        self._saved_bytes = math.inf  # until it is first looked at
        self._at_s = -math.inf

    def room_bytes(self, urgency: Urgency, *, members: int, now: float) -> float:
        """What may be pushed now; not more than nothing where it has to wait."""
        whole = self._whole_bytes(members)
        if now > self._at_s:
            earned = (now - self._at_s) * budget_bytes_per_s(members)
            self._saved_bytes = min(whole, self._saved_bytes + earned)
            self._at_s = now
        return self._saved_bytes - (whole * FIGURES_SHARE if urgency == "figures" else 0.0)

    def spend(self, count_bytes: int) -> None:
        self._saved_bytes -= count_bytes

    def room_s(self, wanted_bytes: float, urgency: Urgency, *, members: int, now: float) -> float:
        """When there will be room for so much."""
        lacking = wanted_bytes - self.room_bytes(urgency, members=members, now=now)
        return now if lacking <= 0 else now + lacking / budget_bytes_per_s(members)

    def _whole_bytes(self, members: int) -> float:
        return max(SAVED_S * budget_bytes_per_s(members), 2.0 * members * CHANGE_BYTES)
