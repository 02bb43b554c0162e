"""Who means to stay and who means to leave: the newest intent about each member, by Serf's clock of statuses.

Whoever is given up after an intent to leave has left, and has not failed; whoever is given up already and is then said to leave has left,
too (`force-leave`). Only the member itself overrules an intent to leave that it does not have, by a newer one to stay.
"""

from __future__ import annotations

from enum import Enum
from typing import Final, NamedTuple

from maia.serf.clocks import LamportClock
from maia.view import Status

PENDING_S: Final = 300.0  # Serf's: an intent about somebody whom we have not met yet is kept for so long
PENDING_MAX: Final = 1024  # a thousand that join elsewhere are heard of before they are met


class Outcome(Enum):
    """What an intent is to this node."""

    OLD = "old"  # nothing
    NEWS = "news"  # to be told on
    DEPARTED = "departed"  # to be told on, and a dead member has left
    REFUTED = "refuted"  # about this node, which means to stay and has to say so


class Pending(NamedTuple):
    time: int
    leaves: bool
    until_s: float


class Intents:
    """Times and leavers by name. Who is a member, and how it is, the caller says."""

    def __init__(self, me: str) -> None:
        self._me = me
        self.clock = LamportClock()
        self.leaving = False  # this node itself
        self.times: dict[str, int] = {}
        self._leavers: dict[str, None] = {}
        self._pending: dict[str, Pending] = {}

    def hear_join(self, node: str, time: int, *, status: Status | None, now: float) -> Outcome:
        """`status` is None for somebody unknown."""
        self.clock.witness(time)
        if status is None:
            return self._wait(node, Pending(time, leaves=False, until_s=now + PENDING_S), now)
        if time <= self.times.get(node, 0):
            return Outcome.OLD
        self.times[node] = time
        self._leavers.pop(node, None)
        return Outcome.NEWS

    def hear_leave(self, node: str, time: int, *, status: Status | None, now: float) -> Outcome:
        self.clock.witness(time)
        if status is None:
            return self._wait(node, Pending(time, leaves=True, until_s=now + PENDING_S), now)
        if time <= self.times.get(node, 0):
            return Outcome.OLD
        if node == self._me and not self.leaving:
            return Outcome.REFUTED
        self.times[node] = time
        match status:
            case "dead":
                return Outcome.DEPARTED
            case "alive" | "suspect":
                self._leavers[node] = None
            case "left":
                pass
        return Outcome.NEWS

    def stay(self) -> int:
        """This node says that it stays: the time of that."""
        time = self.clock.tick()
        self.times[self._me] = time
        return time

    def leave(self) -> int:
        """This node says that it leaves: the time of that."""
        self.leaving = True
        return self.stay()

    def met(self, node: str, now: float) -> None:
        """Somebody new: what was heard of it before counts now."""
        pending = self._pending.pop(node, None)
        if pending is not None and pending.until_s > now:
            self.times[node] = pending.time
            if pending.leaves:
                self._leavers[node] = None

    def returned(self, node: str) -> None:
        self._leavers.pop(node, None)

    def gone(self, node: str) -> bool:
        """It was given up or said goodbye: True if it had meant to leave."""
        meant_to = node in self._leavers
        self._leavers.pop(node, None)
        return meant_to

    def forget(self, node: str) -> None:
        self._leavers.pop(node, None)
        self.times.pop(node, None)

    def _wait(self, node: str, pending: Pending, now: float) -> Outcome:
        known = self._pending.get(node)
        if known is not None and known.until_s > now and pending.time <= known.time:
            return Outcome.OLD
        if known is not None:
            del self._pending[node]
        elif len(self._pending) >= PENDING_MAX:
            oldest = next(iter(self._pending))
            if self._pending[oldest].until_s > now + PENDING_S / 2:
                return Outcome.OLD  # so many unknown names in so short a time are nobody's
            del self._pending[oldest]
        self._pending[node] = pending
        return Outcome.NEWS
