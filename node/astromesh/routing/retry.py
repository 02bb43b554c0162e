"""Whether a model server is asked once more, and when. Pure.

Only after what certainly did not happen and may be over in a moment: nobody listening, a name that is not resolved, 429 and 503. Full
jitter: many callers that failed together come back spread out (Brooker, "Exponential Backoff and Jitter", AWS, 2015).
"""

from __future__ import annotations

from typing import Protocol

from astromesh.errors import AstromeshError, ModelFailed, Overloaded

RETRIES_MAX = 2
FIRST_WAIT_S = 0.2  # at most, and twice that the next time: a server that starts again on the same machine takes about that long
PATIENCE_S = 2.0  # while somebody else could be asked, nobody waits longer than this for one who says when to come back
_PASSING = ("model_connection_refused", "model_dns_resolution_failed")


class Chance(Protocol):
    """What this room needs of `random.Random`."""

    def uniform(self, a: float, b: float, /) -> float: ...


def retry_after_s(failure: AstromeshError, *, retries: int, left_s: float, others: bool, random: Chance) -> float | None:
    """How long to wait before the same server is asked again; None: it is not.

    `retries` were made before, `left_s` is left of the time, `others` could be asked instead. Never before a server that says when it
    wants to be asked again, and never where that would leave no time to answer.
    """
    if not failure.definite or retries >= RETRIES_MAX:
        return None
    told_s = _told_s(failure)
    if told_s is None:
        return None
    wait_s = told_s + random.uniform(0.0, FIRST_WAIT_S * 2**retries)
    return None if wait_s >= left_s or (others and wait_s > PATIENCE_S) else wait_s


def _told_s(failure: AstromeshError) -> float | None:
    """When the server wants to be asked again; 0 where it did not say, None where asking again is no use."""
    match failure:
        case Overloaded(retry_after_s=told_s):
            return told_s
        case ModelFailed(retry_after_s=int(told_s)):
            return told_s
        case ModelFailed(code=code) if code in _PASSING:
            return 0.0
        case _:
            return None
