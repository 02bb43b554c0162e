"""What time it is for the mesh, and whether it stood still."""

from __future__ import annotations

import time


class Clock:
    """The monotonic clock, and how far the wall clock ran away from it.

    A suspended machine stops the monotonic clock and not the wall; whoever was away so long must blame nobody for not having answered.
    """

    def __init__(self) -> None:
        self._apart_s = time.time() - time.monotonic()

    def now(self) -> float:
        return time.monotonic()

    def jumped_s(self) -> float:
        """How far the two clocks moved apart since the last call, in either direction."""
        apart_s = time.time() - time.monotonic()
        jumped_s = abs(apart_s - self._apart_s)
        self._apart_s = apart_s
        return jumped_s
