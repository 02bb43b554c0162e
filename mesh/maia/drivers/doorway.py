"""Who may keep a connection open at the TCP door, and who has to go when it is full.

A connection costs whoever opens it nothing. So none is owed to anybody: where one too many comes, or where all together hold too much, the
one goes that is most likely nobody's. Members come before strangers, and what is new before what has been there for long, since an exchange
takes milliseconds. Nothing here touches a socket.
"""

from __future__ import annotations

from typing import Final

from maia.config import Address

HELD_BYTES_MAX: Final = 32 * 1024 * 1024  # of all connections together: a mass join holds a tenth of it, and one exchange may hold eight


class Visitor:
    """One connection. `member`: a living member gossips from its host."""

    __slots__ = ("address", "held_bytes", "member", "number")

    def __init__(self, address: Address, *, member: bool) -> None:
        self.address = address
        self.member = member
        self.number = 0
        self.held_bytes = 0


class Doorway:
    """At most `visitors_max` at once, holding at most `held_bytes_max` between them."""

    def __init__(self, *, visitors_max: int, held_bytes_max: int = HELD_BYTES_MAX) -> None:
        self._visitors_max = visitors_max
        self._held_bytes_max = held_bytes_max
        self._visitors: dict[int, Visitor] = {}
        self._numbered = 0
        self._held_bytes = 0

    def __len__(self) -> int:
        return len(self._visitors)

    def enter(self, visitor: Visitor) -> Visitor | None:
        """Let `visitor` in. Returns who has to go for it, perhaps itself: a stranger where only members are."""
        self._numbered += 1
        visitor.number = self._numbered
        self._visitors[visitor.number] = visitor
        if len(self._visitors) <= self._visitors_max:
            return None
        # The longest there of the strangers; among members the longest there as well, but never for a stranger.
        victim = min(self._visitors.values(), key=lambda other: (other.member, other.number))
        self.leave(victim)
        return victim

    def hold(self, visitor: Visitor, held_bytes: int) -> Visitor | None:
        """`visitor` now holds so much. Returns who has to go for it, perhaps itself: the stranger that holds most, or else the member."""
        if visitor.number not in self._visitors:
            return None
        self._held_bytes += held_bytes - visitor.held_bytes
        visitor.held_bytes = held_bytes
        if self._held_bytes <= self._held_bytes_max:
            return None
        victim = max(self._visitors.values(), key=lambda other: (not other.member, other.held_bytes, -other.number))
        self.leave(victim)
        return victim

    def leave(self, visitor: Visitor) -> None:
        """It is gone; once more does nothing."""
        if self._visitors.pop(visitor.number, None) is not None:
            self._held_bytes -= visitor.held_bytes
