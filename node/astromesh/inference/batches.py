"""Which texts go through an encoder together. Pure.

Texts of one length share a batch, because every row is as long as the longest. Jobs take turns, batch by batch, so that somebody's two
thousand documents do not stand in front of somebody else's one question, and a cancelled job ends with its batch.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

# Measured with MiniLM (8 bits) on two cores: 247 sentences a second one by one, 296 in batches of 16 and of 32. More rows gain nothing, and
# a batch has to be short: it is what a cancel, and everybody else, waits for.
ROWS_MAX = 16
# 16 rows of 256 tokens take 1 s here; of longer rows fewer go together.
TOKENS_MAX = 4096


@dataclass(frozen=True, slots=True)
class Batch:
    """`rows` are places in the job's texts. `last`: the job has no more."""

    job: int
    rows: tuple[int, ...]
    last: bool


class Batches:
    def __init__(self, *, rows_max: int = ROWS_MAX) -> None:
        self._rows_max = rows_max
        self._jobs: deque[tuple[int, deque[Batch]]] = deque()

    def submit(self, job: int, lengths: Sequence[int]) -> None:
        """A job of texts of so many tokens each, one at least."""
        self._jobs.append((job, deque(_cut(job, lengths, self._rows_max))))

    def next(self) -> Batch | None:
        """The first of the job whose turn it is; None where there is nothing to do."""
        if not self._jobs:
            return None
        job, batches = self._jobs.popleft()
        batch = batches.popleft()
        if batches:
            self._jobs.append((job, batches))
        return batch

    def cancel(self, job: int) -> bool:
        """Whether it was there."""
        for entry in self._jobs:
            if entry[0] == job:
                self._jobs.remove(entry)
                return True
        return False


def _cut(job: int, lengths: Sequence[int], rows_max: int) -> list[Batch]:
    parts: list[list[int]] = []
    # The longest first: what fits then fits for all that follow, and memory is short at once or never.
    for place in sorted(range(len(lengths)), key=lambda place: (-lengths[place], place)):
        if not parts or len(parts[-1]) >= rows_max or (len(parts[-1]) + 1) * lengths[parts[-1][0]] > TOKENS_MAX:
            parts.append([])
        parts[-1].append(place)
    return [Batch(job, tuple(part), index == len(parts) - 1) for index, part in enumerate(parts)]
