"""How busy each node says it is: the part of what a node offers that is worth nothing a moment later.

So it is no entry: unsigned, in no hash, kept by nobody for anybody else. It comes with acks, and what is old counts as unknown. A liar
gains calls or is spared them, and whoever calls it notices.
"""

from __future__ import annotations

from typing import Final

from maia.config import LOAD_BYTES_MAX
from maia.errors import MisuseError
from maia.view import LoadSeen

# A round of probes reaches every peer within this up to 75 nodes under `lan-fast`; a load that is older says nothing about now.
LOAD_KEPT_S: Final = 15.0


class Loads:
    """The last word of each living member, and this node's own."""

    def __init__(self) -> None:
        self.own = b""
        self._seen: dict[str, LoadSeen] = {}

    def report(self, value: bytes) -> None:
        """What this node says of itself from now on; empty says nothing. Raises `MisuseError` for what is too long."""
        check_load(value)
        self.own = value

    def hear(self, name: str, value: bytes, now: float) -> None:
        """A living member said this of itself."""
        self._seen[name] = LoadSeen(value, now)

    def forget(self, name: str) -> None:
        """It is gone: whoever returns begins anew."""
        self._seen.pop(name, None)

    def seen(self, name: str, now: float) -> LoadSeen | None:
        """The last word of a member; None where it is unknown or too old."""
        seen = self._seen.get(name)
        return seen if seen is not None and now <= seen.at_s + LOAD_KEPT_S else None


def check_load(value: bytes) -> None:
    """Raises `MisuseError` for a load that cannot travel."""
    if len(value) > LOAD_BYTES_MAX:
        raise MisuseError(f"a load of {len(value)} bytes; at most {LOAD_BYTES_MAX} travel with an ack")
