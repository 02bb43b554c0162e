"""Whether this node can still read what members send: after a rotation that it slept through it cannot, and it must blame nobody for it.

A node without the key in use hears nothing while all others still hear it. It would give up everybody, and say so to those who can read
it. So while it is deaf it accuses nobody, and its owner is told which key is missing, where somebody could name it.
"""

from __future__ import annotations

import math
from typing import Final

from maia.view import KeyMissing, MeshEvent

UNREAD_MIN: Final = 8  # packets in a row that no key opens, from members: one that was changed on the way is no sign
UNREAD_S: Final = 1.0  # and for so long: during a rotation by hand the first that use a new key are ahead by less
TOLD_PAUSE_S: Final = 60.0  # it lasts until a person brings the key, who reads it once a minute
TOLD_MAX: Final = 16  # fingerprints remembered; whoever can name more of them holds a key and is making them up


class Hearing:
    """Where `unread` is not 0, the owner calls `opened` with the next packet that opens."""

    __slots__ = ("_events", "_since_s", "_told_s", "deaf", "unread")

    def __init__(self, events: list[MeshEvent]) -> None:
        self._events = events
        self._since_s = math.inf
        self._told_s: dict[str, float] = {}
        self.unread = 0
        self.deaf = False

    def opened(self) -> None:
        self.unread = 0
        self.deaf = False

    def unreadable(self, now: float) -> bool:
        """A member sent what no key of ours opens. True where somebody should be asked for the name of the key: at most once a minute."""
        if self.unread == 0:
            self._since_s = now
        self.unread += 1
        self.deaf = self.unread >= UNREAD_MIN and now >= self._since_s + UNREAD_S
        return self.deaf and self.missing("", now)

    def missing(self, fingerprint: str, now: float) -> bool:
        """The cluster seals with a key that we lack. True if that was news."""
        self._told_s = {name: told_s for name, told_s in self._told_s.items() if now < told_s + TOLD_PAUSE_S}
        if fingerprint in self._told_s or len(self._told_s) >= TOLD_MAX:
            return False
        self._told_s[fingerprint] = now
        self._events.append(KeyMissing(fingerprint))
        return True
