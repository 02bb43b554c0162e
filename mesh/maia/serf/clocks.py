"""Lamport clocks, and what was heard by them: an order without anybody's time of day (Lamport, 1978)."""

from __future__ import annotations

import hashlib
from typing import Final

from maia.wire.serf import TIME_MAX

WINDOW: Final = 512  # times back that are remembered one by one; what is older counts as heard, as in Serf
HEARD_MAX: Final = 8192  # of all times: a script that has a hundred members tell something at once makes a hundred of one time


class LamportClock:
    """Later than everything heard so far."""

    __slots__ = ("time",)

    def __init__(self) -> None:
        self.time = 1

    def tick(self) -> int:
        """The time for something of ours."""
        now = self.time
        self.time = min(now + 1, TIME_MAX)
        return now

    def witness(self, time: int) -> None:
        if time >= self.time:
            self.time = min(time + 1, TIME_MAX)


class Heard:
    """Which broadcasts were heard already: each is told on once."""

    def __init__(self) -> None:
        self.clock = LamportClock()
        self._by_time: dict[int, dict[bytes, None]] = {}
        self._count = 0

    def is_news(self, time: int, body: bytes) -> bool:
        """Whether this was not heard before, which it was from now on."""
        clock = self.clock
        clock.witness(time)
        if time + WINDOW < clock.time:
            return False
        known = self._by_time.get(time)
        digest = hashlib.blake2b(body, digest_size=16).digest()
        if known is not None and digest in known:
            return False
        if self._count >= HEARD_MAX:
            self._forget()
            if self._count >= HEARD_MAX:
                return False  # to be deaf to what is new is bad, to tell the same for ever is worse
        self._by_time.setdefault(time, {})[digest] = None
        self._count += 1
        if len(self._by_time) > 2 * WINDOW:
            self._forget()
        return True

    def _forget(self) -> None:
        floor = self.clock.time - WINDOW
        self._by_time = {time: known for time, known in self._by_time.items() if time >= floor}
        self._count = sum(map(len, self._by_time.values()))
