"""What all acts of one run have in common: who conducts it, when it has to end, what it told and what it used so far."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

from astromesh.dialogue import FinishReason, Usage
from astromesh.errors import AstromeshError
from astromesh.runtime.events import RunEvents
from astromesh.runtime.targets import Spending
from astromesh.telemetry.traces import Span, Trace

KEEPING_S = 10.0  # for a turn to be written: a disk that is slower than that is not there


@dataclass(frozen=True, slots=True)
class Used:
    """What one completion took."""

    source: str  # the provider's name
    model: str
    role: str
    usage: Usage
    cost: float = 0.0


@dataclass(slots=True)
class Tally:
    """What a run has done and used so far. `node`, `route` and `finish_reason` are those of the last text that its reader sees."""

    steps: list[dict[str, Any]] = field(default_factory=list)
    calls: int = 0
    usage: Usage = field(default_factory=Usage)
    spending: Spending = field(default_factory=Spending)
    handoffs: list[dict[str, Any]] = field(default_factory=list)
    model: str = ""  # the last one, by its own name
    node: str = ""  # who made the tokens
    route: str = "local"
    attempts: int = 0  # the most that one completion took
    finish_reason: FinishReason = "stop"

    def add(self, used: Used) -> None:
        self.calls += 1
        self.usage += used.usage
        self.model = used.model
        self.spending.add(source=used.source, model=used.model, role=used.role, usage=used.usage, cost=used.cost)

    def routed(self, data: Mapping[str, Any], *, seen: bool) -> None:
        """`data` of a `route` event; `seen`: what is made there is shown."""
        if seen or not self.node:
            self.node, self.route = str(data["node"]), str(data["route"])
        self.attempts = max(self.attempts, int(data["attempts"]))


class Course:
    def __init__(self, events: RunEvents, trace: Trace, *, home: str, session_id: str, began_at: float, deadline: float) -> None:
        """`home`: the label of the node that conducts the run. `began_at`, `deadline`: on the clock of `perf_counter`, seconds."""
        self.events = events
        self.trace = trace
        self.home = home
        self.session_id = session_id
        self.deadline = deadline
        self.tally = Tally()
        self.limit: asyncio.Timeout | None = None  # what ends the run, where that is seen to here
        self._began_at = began_at
        self._tokens = 0

    @property
    def node(self) -> str:
        """The label of the node where this is."""
        return self.trace.node

    @property
    def remaining_s(self) -> float:
        return self.deadline - perf_counter()

    def keep(self) -> None:
        """Its answer is there and is about to be kept: a limit that strikes from now on would deny what is on disk."""
        if self.limit is not None and not self.limit.expired():
            self.limit.reschedule(asyncio.get_running_loop().time() + KEEPING_S)

    async def show(self, text: str) -> str:
        """The next piece of what the reader of the run is told."""
        if text:
            await self.events.tell("token", {"content": text, "index": self._tokens})
            self._tokens += 1
        return text

    async def used(self, used: Used) -> None:
        self.tally.add(used)
        await self.events.tell(
            "usage",
            {
                "provider": used.source,
                "model": used.model,
                "role": used.role,
                "tokens_in": used.usage.tokens_in,
                "tokens_out": used.usage.tokens_out,
                "cached_tokens": used.usage.cached_tokens,
                "cost": used.cost,
            },
        )

    @contextmanager
    def span(self, name: str, *, under: Span | None, **attributes: Any) -> Iterator[Span]:
        """From here to the end of the block, and how that ended."""
        began_at = perf_counter()
        span = self.trace.begin(name, (began_at - self._began_at) * 1e3, parent=under, attributes=attributes)
        try:
            yield span
        except AstromeshError as error:
            span.attributes["error"] = error.code
            raise
        finally:
            span.duration_ms = (perf_counter() - began_at) * 1e3
