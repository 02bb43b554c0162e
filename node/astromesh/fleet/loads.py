"""How busy a node is, in two bytes: four figures of sixteen levels each. What a newer node appends is ignored."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from functools import lru_cache

LEVELS = 16
# Of requests: exact where one more matters, coarse where all that counts is "many".
_COUNTS = (0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192)


@dataclass(frozen=True, slots=True)
class Load:
    """As it was measured, or as the levels that arrived."""

    cpu_percent: float
    memory_percent: float
    active_requests: int
    queued_requests: int  # of those, how many wait for a worker

    @property
    def busy(self) -> float:
        """In requests: what waits counts twice, and a processor that others use up tells two idle nodes apart."""
        return self.active_requests + self.queued_requests + min(self.cpu_percent, 100.0) / 101


def write(load: Load) -> bytes:
    return bytes(
        (
            _share(load.cpu_percent) * LEVELS + _share(load.memory_percent),
            _count(load.active_requests) * LEVELS + _count(load.queued_requests),
        )
    )


@lru_cache(maxsize=4096)
def read(value: bytes) -> Load | None:
    """None for what is too short to be one."""
    if len(value) < 2:
        return None
    (cpu, memory), (active, queued) = divmod(value[0], LEVELS), divmod(value[1], LEVELS)
    return Load(_percent(cpu), _percent(memory), _COUNTS[active], _COUNTS[queued])


def _share(percent: float) -> int:
    return round(min(max(percent, 0.0), 100.0) * (LEVELS - 1) / 100)


def _percent(level: int) -> float:
    return round(level * 100 / (LEVELS - 1), 1)


def _count(requests: int) -> int:
    return bisect_right(_COUNTS, max(requests, 0)) - 1
