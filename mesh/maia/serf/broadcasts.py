"""What is to be told to everybody: each told as often as a rumour is, in a share of the packets that rumours cannot take.

memberlist tells its own messages first, so that a large cluster that changes tells no event any more. Here whatever did not fit beside
rumours three times goes before them once. So either has a part of the way, and neither stops the other.
"""

from __future__ import annotations

import math
from typing import Final

BYTES_MAX: Final = 128 * 1024  # a hundred full packets; beyond it what was told most goes first
COUNT_MAX: Final = 1024
TELLINGS: Final = 4  # times the logarithm of the members: as often as a rumour
PASSED_OVER_MAX: Final = 3  # packets: a quarter of them is the share


class Broadcast:
    __slots__ = ("encoded", "number", "subject", "told")

    def __init__(self, subject: object, encoded: bytes, number: int) -> None:
        self.subject = subject
        self.encoded = encoded
        self.number = number
        self.told = 0


class Broadcasts:
    """The queue. What is newer about a subject replaces what is older."""

    def __init__(self) -> None:
        self.waiting: dict[object, Broadcast] = {}  # by subject; looked at before every packet, so no call stands before it
        self._size = 0
        self._numbered = 0
        self._passed_over = 0

    def __contains__(self, subject: object) -> bool:
        return subject in self.waiting

    @property
    def urgent(self) -> bool:
        """Whether it is their turn to go first."""
        return self._passed_over >= PASSED_OVER_MAX

    def add(self, subject: object, encoded: bytes) -> None:
        """Tell this, a whole message, from now on."""
        self._drop(subject)
        self._numbered += 1
        self.waiting[subject] = Broadcast(subject, encoded, self._numbered)
        self._size += len(encoded)
        while self._size > BYTES_MAX or len(self.waiting) > COUNT_MAX:
            self._drop(max(self.waiting.values(), key=lambda broadcast: (broadcast.told, -broadcast.number)).subject)

    def take(self, budget_bytes: int, most: int, *, overhead_bytes: int, living_count: int) -> list[bytes]:
        """Those that fit the budget with `overhead_bytes` each, at most `most`, counted as told once more.

        Least told first, then longest, then newest.
        """
        tellings = TELLINGS * math.ceil(math.log10(living_count + 1))
        taken: list[bytes] = []
        waiting = sorted(self.waiting.values(), key=lambda broadcast: (broadcast.told, -len(broadcast.encoded), -broadcast.number))
        for place, broadcast in enumerate(waiting):
            size = len(broadcast.encoded) + overhead_bytes
            if size > budget_bytes or len(taken) >= most:
                if place == 0:
                    self._passed_over += 1
                continue
            if place == 0:
                self._passed_over = 0
            budget_bytes -= size
            taken.append(broadcast.encoded)
            broadcast.told += 1
            if broadcast.told >= tellings:
                self._drop(broadcast.subject)
        return taken

    def _drop(self, subject: object) -> None:
        gone = self.waiting.pop(subject, None)
        if gone is not None:
            self._size -= len(gone.encoded)
