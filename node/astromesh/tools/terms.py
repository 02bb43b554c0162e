"""On what terms an agent has a tool. Pure."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

RESULT_TOKENS_MAX = 8000  # of one call, where nothing else is said: a prompt of several results still fits a common context
CALL_TIMEOUT_S = 30.0


class CallRate:
    """So many calls in any window of so many seconds; counted on this node."""

    def __init__(self, calls_max: int, window_s: float) -> None:
        self.calls_max = calls_max
        self.window_s = window_s
        self._made: deque[float] = deque(maxlen=calls_max)

    def take(self, now: float) -> float:
        """0 where the call may be made, and it is counted; else the seconds until one may be, and nothing is counted."""
        if len(self._made) == self.calls_max and (wait_s := self._made[0] + self.window_s - now) > 0:
            return wait_s
        self._made.append(now)
        return 0.0


@dataclass(frozen=True, slots=True)
class Terms:
    """`kind`: of tool, as documents say it. `refused`: why it is neither offered nor called.

    `dry_run`: it is offered, and a call is answered and not made. `timeout_s`: None where the run's own limit is the only one.
    """

    kind: str = "builtin"
    refused: str = ""
    dry_run: bool = False
    rate: CallRate | None = None
    result_tokens_max: int = RESULT_TOKENS_MAX
    timeout_s: float | None = CALL_TIMEOUT_S
