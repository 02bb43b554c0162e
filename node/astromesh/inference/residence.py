"""Which models stay in memory: who goes when another needs the room, who goes because nobody asks, and how long a load takes. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil

# Where nothing is known yet: weights come from a slow disk at 100 MB/s, and a worker takes a second to start.
LOAD_BYTES_S = 100e6
START_S = 1.0
ETA_S_MAX = 3600


@dataclass(frozen=True, slots=True)
class Resident:
    """A model that is loaded, or on its way. `busy`: somebody waits for it or reads from it, so it stays."""

    name: str
    needed_bytes: int
    used_s: float  # when it was last asked for
    busy: bool


def to_unload(residents: Iterable[Resident], *, needed_bytes: int, room_bytes: int) -> tuple[str, ...] | None:
    """Who has to go so that `needed_bytes` more fit into `room_bytes` together: the least recently used first, never a busy one.

    None: not even then.
    """
    resident = tuple(residents)
    over = sum(one.needed_bytes for one in resident) + needed_bytes - room_bytes
    leaving = []
    for one in sorted((one for one in resident if not one.busy), key=lambda one: (one.used_s, one.name)):
        if over <= 0:
            break
        leaving.append(one.name)
        over -= one.needed_bytes
    return tuple(leaving) if over <= 0 else None


def idle(one: Resident, *, now: float, idle_s: float) -> bool:
    """Whether nobody asked for it for `idle_s`. 0: nobody is ever idle."""
    return bool(idle_s) and not one.busy and now - one.used_s >= idle_s


def eta_s(*, progress: float, elapsed_s: float, size_bytes: int, last_s: float | None = None) -> int:
    """Whole seconds, at least one, until what has come so far is all there. `last_s`: how long it took the last time."""
    if progress >= 0.05 and elapsed_s > 0:
        left = elapsed_s * (1 - progress) / progress
    else:
        left = (last_s if last_s is not None else START_S + size_bytes / LOAD_BYTES_S) - elapsed_s
    return min(ETA_S_MAX, max(1, ceil(left)))


def average_tok_s(before: float | None, stream: float) -> float:
    """Moves a fifth of the way with each stream: one that shared its steps with many says less than all together."""
    return stream if before is None else before + (stream - before) / 5


def told_tok_s(told: float | None, now: float | None) -> float | None:
    """What is told to others: two digits, and another one only when it is off by a sixth: not every stream is news to the whole mesh."""
    if now is None or now <= 0:
        return told
    if told is not None and abs(now - told) <= told / 6:
        return told
    return float(f"{now:.2g}")
