"""How long a model lets one wait: moving averages of the times to its first token and to its last. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

# Of the newest measurement. Ten answers later a tenth of what was believed is left: a server that has become slow is found out within
# some requests, and one long answer changes little.
WEIGHT = 0.2


@dataclass(frozen=True, slots=True)
class Latency:
    """`measured_s`: when it was measured last, on the clock of whoever measures."""

    first_token_s: float | None = None
    total_s: float | None = None
    measured_s: float = -inf

    def measured(self, *, first_token_s: float | None, total_s: float, now: float) -> Latency:
        """With one more answer. `first_token_s` is None where it came in one piece."""
        first = self.first_token_s if first_token_s is None else average(self.first_token_s, first_token_s)
        return Latency(first, average(self.total_s, total_s), now)


def average(before: float | None, newest: float) -> float:
    return newest if before is None else (1 - WEIGHT) * before + WEIGHT * newest


NEVER = Latency()
