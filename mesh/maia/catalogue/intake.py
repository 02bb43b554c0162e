"""Where entries wait to be checked: a signature costs a tenth of a millisecond, and whoever can send can send thousands of them.

What is no news costs nothing, and what does not come with its owner's key next to nothing. Of what we did not ask for, so much is checked a
second and the rest dropped: the roots then differ, and we ask for it. What we asked for waits, and is checked in slices, between which the
mesh does everything else.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from typing import Final

from maia.catalogue.catalogue import Catalogue
from maia.config import Address
from maia.errors import DatagramRejected
from maia.view import Counters
from maia.wire.offers import Entry

UNASKED_PER_S: Final = 100  # 72 to 140 µs each: one per cent of a core
SLICE_CHECKS: Final = 32  # five milliseconds at most
SLICE_PAUSE_S: Final = 0.016  # two thousand a second, a fifth of a core while it lasts
WAITING_BYTES_MAX: Final = 4 * 1024 * 1024  # one whole exchange; what is beyond is asked for again
ENTRY_OVERHEAD_BYTES: Final = 512  # what an entry with an empty value takes in memory
ASKED_MAX: Final = 4096  # sixteen wants of the longest
ASKED_FOR_S: Final = 5.0  # an answer that comes later was not waited for


class Intake:
    """Between the network and a catalogue."""

    def __init__(self, catalogue: Catalogue, counters: Counters) -> None:
        self._catalogue = catalogue
        self._counters = counters
        self._allowance = float(UNASKED_PER_S)
        self._allowed_s = -math.inf
        self._asked: dict[tuple[str, str], tuple[Address, float]] = {}
        self._waiting: deque[Entry] = deque()
        self._waiting_bytes = 0
        self._slice_s = -math.inf
        self.later_generation = -1  # the newest life of ours that somebody has entries of, signed by ourselves

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def due_s(self) -> float:
        return self._slice_s if self._waiting else math.inf

    def ask(self, slots: Iterable[tuple[str, str]], peer: Address, now: float) -> None:
        """We ask `peer` for these (node, key): each may then come once as something asked for."""
        for slot in slots:
            self._asked.pop(slot, None)
            if len(self._asked) >= ASKED_MAX:
                del self._asked[next(iter(self._asked))]
            self._asked[slot] = (peer, now + ASKED_FOR_S)

    def hear(self, entries: Iterable[Entry], sender: Address | None, now: float) -> list[Entry]:
        """Entries that came by themselves, or in answer to `ask`. Returns those that were kept at once."""
        answers: list[Entry] = []
        kept: list[Entry] = []
        for entry in entries:
            slot = (entry.node, entry.key)
            asked = self._asked.get(slot)
            if asked is not None and asked[0] == sender:
                del self._asked[slot]
                if now <= asked[1]:
                    answers.append(entry)
                    continue
            if not self._worth_a_check(entry):
                continue
            if not self._allowed(now):
                self._counters.reject("unchecked")
            elif self._check(entry):
                kept.append(entry)
        return kept + self.pull(answers, now) if answers else kept

    def pull(self, entries: Iterable[Entry], now: float) -> list[Entry]:
        """Entries that we asked for. Returns those that were kept at once; the rest waits for `tick`."""
        for entry in entries:
            if not self._worth_a_check(entry):
                continue
            size = ENTRY_OVERHEAD_BYTES + len(entry.value)
            if self._waiting_bytes + size > WAITING_BYTES_MAX:
                self._counters.reject("unchecked")
                continue
            self._waiting.append(entry)
            self._waiting_bytes += size
        return self.tick(now)

    def tick(self, now: float) -> list[Entry]:
        """One slice, if it is time for it. Returns what was kept."""
        if not self._waiting or now < self._slice_s:
            return []
        kept: list[Entry] = []
        checks = 0
        while self._waiting and checks < SLICE_CHECKS:
            entry = self._waiting.popleft()
            self._waiting_bytes -= ENTRY_OVERHEAD_BYTES + len(entry.value)
            if self._worth_a_check(entry):  # still: another peer may have brought it meanwhile
                checks += 1
                if self._check(entry):
                    kept.append(entry)
        self._slice_s = now + SLICE_PAUSE_S
        return kept

    def _worth_a_check(self, entry: Entry) -> bool:
        if not self._catalogue.lacks(entry.node, entry.generation, entry.key, entry.version) and not self._catalogue.overtaken(entry):
            return False
        try:
            self._catalogue.check_signer(entry)
        except DatagramRejected as error:
            self._counters.reject(error.reason)
            return False
        return True

    def _allowed(self, now: float) -> bool:
        if now > self._allowed_s:
            self._allowance = min(UNASKED_PER_S, self._allowance + (now - self._allowed_s) * UNASKED_PER_S)
            self._allowed_s = now
        if self._allowance < 1:
            return False
        self._allowance -= 1
        return True

    def _check(self, entry: Entry) -> bool:
        try:
            if entry.node != self._catalogue.me:
                return self._catalogue.accept(entry)
            self._catalogue.check_signature(entry)
        except DatagramRejected as error:
            self._counters.reject(error.reason)
            return False
        self.later_generation = max(self.later_generation, entry.generation)
        return False
