"""What everybody is to be told: encoded messages, each told as often as it takes to reach all, then dropped."""

from __future__ import annotations

import math
from typing import Final

TELLINGS: Final = 4


class Telling:
    __slots__ = ("encoded", "number", "subject", "told")

    def __init__(self, subject: object, encoded: bytes, number: int) -> None:
        self.subject = subject
        self.encoded = encoded
        self.number = number
        self.told = 0


class Tellings:
    """A queue of them. What is newer about a subject replaces what is older: it says more. Beyond the bounds the most told go first."""

    def __init__(self, *, count_max: int, bytes_max: int) -> None:
        self.waiting: dict[object, Telling] = {}  # by subject; looked at before every packet, so no call stands before it
        self.passed_over = 0  # packets in a row that had no room for what was first in turn
        self._count_max = count_max
        self._bytes_max = bytes_max
        self._bytes = 0
        self._numbered = 0

    def __len__(self) -> int:
        return len(self.waiting)

    def __contains__(self, subject: object) -> bool:
        return subject in self.waiting

    def add(self, subject: object, encoded: bytes) -> None:
        """Tell this, a whole message, from now on."""
        self._drop(subject)
        self._numbered += 1
        self.waiting[subject] = Telling(subject, encoded, self._numbered)
        self._bytes += len(encoded)
        while self._bytes > self._bytes_max or len(self.waiting) > self._count_max:
            self._drop(max(self.waiting.values(), key=lambda telling: (telling.told, -telling.number)).subject)

    def take(self, budget_bytes: int, most: int, *, overhead_bytes: int, living_count: int) -> list[bytes]:
        """Those that fit the budget with `overhead_bytes` each, at most `most`, counted as told once more.

        Least told first, then longest, then newest; what does not fit is skipped for what does.
        """
        if not self.waiting:
            return []
        limit = tellings(living_count)
        waiting = sorted(self.waiting.values(), key=lambda telling: (telling.told, -len(telling.encoded), -telling.number))
        fits_first = most > 0 and len(waiting[0].encoded) + overhead_bytes <= budget_bytes
        self.passed_over = 0 if fits_first else self.passed_over + 1
        taken: list[bytes] = []
        for telling in waiting:
            if len(taken) >= most:
                break
            size = len(telling.encoded) + overhead_bytes
            if size > budget_bytes:
                continue
            budget_bytes -= size
            taken.append(telling.encoded)
            telling.told += 1
            if telling.told >= limit:
                self._drop(telling.subject)
        return taken

    def _drop(self, subject: object) -> None:
        gone = self.waiting.pop(subject, None)
        if gone is not None:
            self._bytes -= len(gone.encoded)


def tellings(living_count: int) -> int:
    """How often one node tells a thing."""
    # λ·log(n) tellings reach everyone with high probability (SWIM: Das, Gupta and Motivala, 2002, §5); memberlist uses λ = 4, as do we.
    return TELLINGS * math.ceil(math.log10(living_count + 1))
