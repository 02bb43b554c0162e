"""Whether the model servers of this node answer: each is asked now and then, and at once when a call to it failed.

A server that is down is hidden from routing, here and on every node that learns of it, until it answers again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from time import perf_counter
from typing import Literal

from astromesh.errors import AstromeshError, DeadlineExceeded
from astromesh.fleet.offers import Health, OfferedProvider
from astromesh.providers.port import Checkable
from astromesh.routing.latency import average
from astromesh.runtime.endpoints import Endpoint
from astromesh.specs.provider import Provider

log = logging.getLogger(__name__)

INTERVAL_S = 30.0  # of servers that others use through this node, where nobody says how often
TIMEOUT_S = 5.0
RECHECK_S = 0.5  # between two questions, however many calls fail meanwhile
WANTED_LOOK_S = 5.0  # of a server that nobody wants to be asked: an agent that comes may want it
DOWN_INTERVAL_S = 5.0  # a server that is down is missed: it is asked at least this often

# A status, or why there is none.
Answer = int | Literal["nobody", "late"]


def judged(before: Health, answer: Answer) -> Health:
    """Nobody there is down at once. One late answer may be a long prompt on a slow machine: degraded, and down after the second.

    Any answer is a server that lives, one that asks for a key or knows no such path included. Errors of its own are a server that is ill.
    """
    if answer == "nobody":
        return "down"
    if answer == "late":
        return "down" if before in ("degraded", "down") else "degraded"
    return "degraded" if answer >= 500 or answer == 429 else "healthy"


class Watched:
    """One server of the configuration, as it was when it was last asked."""

    def __init__(self, provider: Provider) -> None:
        self.provider = provider
        self.health: Health = "unknown"
        self.latency_ms: float | None = None  # moving average of its answers to these questions
        self.endpoint: Endpoint | None = None  # what calls to it have shown
        self.doubted = asyncio.Event()

    def doubt(self) -> None:
        """A call there failed: ask it now."""
        self.doubted.set()

    @property
    def interval_s(self) -> float | None:
        """How often it is asked; None: never, since nobody wants it and only this node uses it."""
        spec = self.provider.spec
        written = (spec.health_check.interval if spec.health_check is not None else None) or spec.health_check_interval
        by_agents = self.endpoint.checked_every_s if self.endpoint is not None else None
        written = min((every_s for every_s in (written, by_agents) if every_s is not None), default=None)
        if written is None and not self.provider.shared:
            return None
        interval_s = written or INTERVAL_S
        return min(interval_s, DOWN_INTERVAL_S) if self.health == "down" else interval_s

    def offered(self) -> OfferedProvider:
        provider = self.provider
        breaker = self.endpoint.state if self.endpoint is not None else ""
        return OfferedProvider(provider.name, provider.spec.type, provider.models, self.health, provider.shared, breaker)


class ProviderHealth:
    """All servers of a node: one task for each that is watched, ended by `close`. `changed` is called when one's health is another."""

    def __init__(self, providers: Iterable[Provider], *, changed: Callable[[], None]) -> None:
        self._watched = {provider.name: Watched(provider) for provider in providers}
        self._changed = changed
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._ending: set[asyncio.Task[None]] = set()

    def meet(self, endpoint: Callable[[Provider], Endpoint | None]) -> None:
        """Ties what questions show of a server to what calls show: a failed call is a reason to ask, and a silent server is tried last."""
        for watched in self._watched.values():
            if (found := endpoint(watched.provider)) is not None:
                watched.endpoint = found
                found.doubt = watched.doubt
                found.down = partial(_is_down, watched)
                found.changed = self._changed

    def of(self, name: str) -> Watched:
        return self._watched[name]

    def all(self) -> tuple[Watched, ...]:
        return tuple(self._watched.values())

    def offered(self) -> tuple[OfferedProvider, ...]:
        """For the catalogue, in the order of names."""
        return tuple(self._watched[name].offered() for name in sorted(self._watched))

    def watch(self, client: Callable[[Provider], Checkable | None]) -> None:
        """Asks from now on; `client` gives what asks a server, or None where that cannot be had."""
        for name, watched in self._watched.items():
            asker = client(watched.provider) if name not in self._tasks else None
            if asker is not None:
                self._tasks[name] = asyncio.create_task(self._keep_asking(watched, asker), name=f"health of {name}")

    def follow(self, providers: Iterable[Provider]) -> None:
        """These from now on, and no others; `meet` and `watch` them. What is known of those that are as before stays known."""
        before, self._watched = self._watched, {}
        for provider in providers:
            known = before.get(provider.name)
            stays = known is not None and known.provider.spec == provider.spec
            self._watched[provider.name] = known if known is not None and stays else Watched(provider)
        for name in [name for name in self._tasks if self._watched.get(name) is not before[name]]:
            task = self._tasks.pop(name)
            task.cancel()
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)

    async def close(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), *self._ending, return_exceptions=True)

    async def _keep_asking(self, watched: Watched, asker: Checkable) -> None:
        while True:
            if watched.interval_s is None:
                await asyncio.sleep(WANTED_LOOK_S)
                continue
            watched.doubted.clear()
            await self._ask(watched, asker)
            interval_s = watched.interval_s or INTERVAL_S
            await asyncio.sleep(min(RECHECK_S, interval_s))
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, interval_s - RECHECK_S)):
                    await watched.doubted.wait()

    async def _ask(self, watched: Watched, asker: Checkable) -> None:
        check = watched.provider.spec.health_check
        before = watched.health
        asked_at = perf_counter()
        answer: Answer
        try:
            answer = await asker.check(
                path=check.path if check is not None else None,
                timeout_s=(check.timeout if check is not None else None) or TIMEOUT_S,
            )
            watched.latency_ms = average(watched.latency_ms, (perf_counter() - asked_at) * 1e3)
        except DeadlineExceeded:
            answer = "late"
        except AstromeshError:
            answer = "nobody"
        watched.health = judged(before, answer)
        if watched.health != before:
            report = log.warning if watched.health == "down" else log.info
            report("provider %s is %s (%s)", watched.provider.name, watched.health, answer)
            self._changed()


def _is_down(watched: Watched) -> bool:
    return watched.health == "down"
