"""The course of recent runs: a bounded ring of traces, each a list of spans, and behind it those on disk. Times and names, never what was
said."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from astromesh.telemetry.trace_file import Shown, TraceFile

TRACES_KEPT = 256
SPANS_MAX = 512  # of one trace; a run that does more has its first ones kept, and says so


@dataclass(slots=True)
class Span:
    """One act of a run, and the act that it was a part of. Times in milliseconds from the start of its trace."""

    name: str
    start_ms: float
    duration_ms: float | None  # None while it lasts
    attributes: dict[str, Any]
    id: str = ""  # its own within the trace
    parent: str = ""
    node: str = ""  # where it was performed

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "start_ms": round(self.start_ms, 3),
            "duration_ms": None if self.duration_ms is None else round(self.duration_ms, 3),
            "attributes": dict(self.attributes),
            **{key: value for key, value in (("id", self.id), ("parent", self.parent), ("node", self.node)) if value},
        }


@dataclass(slots=True)
class Trace:
    """A run as it went. `status` is "running" until it ended, then "ok", "blocked" or the code of the error."""

    id: str
    agent: str
    started_at: float  # seconds since the epoch
    node: str
    status: str = "running"
    duration_ms: float = 0.0
    spans: list[Span] = field(default_factory=list)
    spans_dropped: int = 0

    def begin(self, name: str, start_ms: float, *, parent: Span | None = None, attributes: dict[str, Any] | None = None) -> Span:
        """A span that lasts from now on. Its place is taken now, so that whatever is kept has its parent kept, too."""
        span = Span(name, start_ms, None, attributes if attributes is not None else {}, parent=parent.id if parent else "", node=self.node)
        self.add(span)
        return span

    def add(self, span: Span) -> None:
        """Gives it its id."""
        span.id = str(len(self.spans) + self.spans_dropped + 1)
        if len(self.spans) < SPANS_MAX:
            self.spans.append(span)
        else:
            self.spans_dropped += 1

    def graft(self, spans: Iterable[Span], *, under: Span, dropped: int = 0) -> None:
        """Spans of another node, parents first, whose times are from the start of `under`.

        The nodes' clocks are not compared: what a message took on its way there counts as a part of its wait.
        """
        ids: dict[str, str] = {}
        for span in spans:
            theirs = span.id
            span.parent = ids.get(span.parent, under.id)
            span.start_ms += under.start_ms
            self.add(span)
            ids[theirs] = span.id
        self.spans_dropped += dropped

    def as_json(self) -> dict[str, Any]:
        return {
            "trace_id": self.id,
            "agent": self.agent,
            "node": self.node,
            "started_at": self.started_at,
            "status": self.status,
            "duration_ms": round(self.duration_ms, 3),
            "spans": [span.as_json() for span in self.spans],
            "spans_dropped": self.spans_dropped,
        }


class Ring:
    """The last traces, by id. Those that ended are also on disk, where it has a `file`, and older ones are found there."""

    def __init__(self, *, kept: int = TRACES_KEPT) -> None:
        self._kept = kept
        self._traces: OrderedDict[str, Trace] = OrderedDict()
        self.file: TraceFile | None = None

    def add(self, trace: Trace) -> None:
        self._traces[trace.id] = trace
        self._traces.move_to_end(trace.id)  # ids may be the callers' own, and come again
        while len(self._traces) > self._kept:
            self._traces.popitem(last=False)

    def ended(self, trace: Trace) -> None:
        """Its status and duration are final."""
        if self.file is not None:
            self.file.keep(trace.as_json())

    def get(self, trace_id: str) -> Trace | None:
        return self._traces.get(trace_id)

    def recent(self, *, agent: str | None, limit: int) -> list[Trace]:
        """Newest first."""
        found = (trace for trace in reversed(self._traces.values()) if agent is None or trace.agent == agent)
        return [trace for trace, _ in zip(found, range(limit), strict=False)]

    async def find(self, trace_id: str) -> Shown | None:
        """Here or on disk."""
        if (trace := self._traces.get(trace_id)) is not None:
            return trace.as_json()
        return await self.file.find(trace_id) if self.file is not None else None

    async def latest(self, *, agent: str | None, limit: int) -> list[Shown]:
        """Newest first: those here, and then older ones from the disk."""
        found: list[Shown] = [trace.as_json() for trace in self.recent(agent=agent, limit=limit)]
        if len(found) < limit and self.file is not None:
            here = {(trace["trace_id"], trace["started_at"]) for trace in found}
            older = await self.file.recent(agent=agent, limit=limit)
            found += [trace for trace in older if (trace.get("trace_id"), trace.get("started_at")) not in here]
        return found[:limit]
