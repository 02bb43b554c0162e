"""What is still to be told: one rumour per member, each told often enough that everybody hears it, then dropped."""

from __future__ import annotations

import math
from typing import Final

RETRANSMIT_MULTIPLIER: Final = 4
RUMOURS_MAX: Final = 2048  # a join into a mesh of a thousand queues one each; beyond it the most told go first


class Rumour:
    __slots__ = ("encoded", "number", "subject", "told")

    def __init__(self, subject: str, encoded: bytes, number: int) -> None:
        self.subject = subject
        self.encoded = encoded
        self.number = number
        self.told = 0


class Rumours:
    """The queue. The newest rumour about a member replaces the older one: it says more."""

    def __init__(self) -> None:
        self.waiting: dict[str, Rumour] = {}  # by subject; looked at before every packet, so no call stands before it
        self._numbered = 0

    def __len__(self) -> int:
        return len(self.waiting)

    def __contains__(self, subject: str) -> bool:
        return subject in self.waiting

    def add(self, subject: str, encoded: bytes) -> None:
        self._numbered += 1
        if subject not in self.waiting and len(self.waiting) >= RUMOURS_MAX:
            most_told = max(self.waiting.values(), key=lambda rumour: (rumour.told, -rumour.number))
            del self.waiting[most_told.subject]
        self.waiting[subject] = Rumour(subject, encoded, self._numbered)

    def take(self, budget_bytes: int, most: int, *, overhead_bytes: int, living_count: int) -> list[bytes]:
        """Encoded rumours that fit the budget with `overhead_bytes` each, at most `most`, counted as told once more.

        Least told first, then longest, then newest; what does not fit is skipped for what does.
        """
        if not self.waiting:
            return []
        limit = transmit_limit(living_count)
        taken: list[bytes] = []
        for rumour in sorted(self.waiting.values(), key=lambda rumour: (rumour.told, -len(rumour.encoded), -rumour.number)):
            size = len(rumour.encoded) + overhead_bytes
            if size > budget_bytes:
                continue
            budget_bytes -= size
            taken.append(rumour.encoded)
            rumour.told += 1
            if rumour.told >= limit:
                del self.waiting[rumour.subject]
            if len(taken) >= most:
                break
        return taken


def transmit_limit(living_count: int) -> int:
    """How often one node tells a rumour."""
    # λ·log(n) tellings reach everyone with high probability (SWIM: Das, Gupta and Motivala, 2002, §5); memberlist uses λ = 4, as do we.
    return RETRANSMIT_MULTIPLIER * math.ceil(math.log10(living_count + 1))
