"""Waiting for something to become true, without a sleep of a fixed length and without asserting a time.

A goal in seconds is asserted where it is measured: `make proof` names a file in `PROOF_FIGURES`, and then every wait is held to its goal
itself and leaves its time there. Everywhere else a test waits for the event up to five times the goal, and prints how long it took: on a
shared machine a tighter limit would fail for reasons that are not ours.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import aiohttp

PATIENCE = 5
FIGURES = "PROOF_FIGURES"
# Fine enough to print a useful time, coarse enough not to load the node that is watched.
POLLS_PER_GOAL = 50
POLL_S_MIN = 0.01
POLL_S_MAX = 0.25


async def eventually(predicate: Callable[[], Awaitable[object]], goal_s: float, *, what: str = "") -> float:
    """Seconds until `predicate` first returned something true; printed, too.

    A predicate may fail an assertion or find nobody listening: that is "not yet", and the last reason is told when time runs out, as an
    `AssertionError`. Any other exception passes through. One call of the predicate that never returns is cut at the same limit.
    """
    name = what or getattr(predicate, "__name__", "the condition").strip("<>").replace("_", " ")
    figures = os.environ.get(FIGURES)
    patience = 1 if figures else PATIENCE
    poll_s = min(max(goal_s / POLLS_PER_GOAL, POLL_S_MIN), POLL_S_MAX)
    started = time.monotonic()
    reason = "it stayed false"
    try:
        async with asyncio.timeout(goal_s * patience):
            while True:
                try:
                    if await predicate():
                        break
                    reason = "it stayed false"
                except AssertionError as error:
                    reason = str(error) or "an assertion failed"
                except (aiohttp.ClientConnectionError, OSError) as error:
                    reason = f"{type(error).__name__}: {error}"
                await asyncio.sleep(poll_s)
    except TimeoutError:
        raise AssertionError(f"{name}: not within {goal_s * patience:g} s, {patience} times its goal. Last seen: {reason}") from None
    took_s = time.monotonic() - started
    print(f"{name}: {took_s:.3f} s (goal {goal_s:g} s)")
    if figures:
        with Path(figures).open("a") as file:
            file.write(json.dumps({"what": name, "took_s": round(took_s, 3), "goal_s": goal_s}) + "\n")
    return took_s
