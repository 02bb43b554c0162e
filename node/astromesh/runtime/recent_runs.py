"""Runs under way and those that ended lately, by id: to read their events again, to end them, and to keep one alive for a reader who lost
his connection and said before that he would come back."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager, nullcontext
from time import monotonic
from typing import Protocol

from astromesh.errors import EventsGone, InvalidRequest, Overloaded, UnknownRun
from astromesh.runtime.events import RunEvent, RunEvents

# A page that lost its connection asks again after `retry:` and a handshake or two; whoever needs longer has left.
RESUME_GRACE_S = 10.0
KEPT_S = 300.0  # after its end: somebody comes back from a dead spot, or wants to know how it ended
ENDED_KEPT_MAX = 256
KEPT_BYTES_MAX = 32 << 20  # of all runs together, beside what their own readers have yet to read
IDS_KEPT_MAX = 4096  # of runs whose events are gone, to say so instead of "unknown"
FOLLOWERS_MAX = 64  # who look on, of all runs together; each costs a connection and its buffers


class FollowedRun(Protocol):
    """What is needed of a run of `runtime.engine`."""

    @property
    def id(self) -> str: ...

    @property
    def told(self) -> RunEvents: ...

    def cancel(self) -> None: ...


class RecentRuns:
    def __init__(self) -> None:
        self._runs: OrderedDict[str, FollowedRun] = OrderedDict()  # in the order in which they began
        self._ended_s: dict[str, float] = {}  # when, in the order in which they did
        self._gone: OrderedDict[str, None] = OrderedDict()
        self._readers: dict[FollowedRun, int] = {}  # of runs under way whose reader may come back: how many connections he has
        self._abandoned: dict[FollowedRun, asyncio.TimerHandle] = {}
        self._kept_bytes = 0
        self._followers = 0

    def add(self, run: FollowedRun) -> None:
        """An id may be the callers' own and come again: then the newest is meant."""
        if (before := self._runs.pop(run.id, None)) is not None:
            before.told.grew = lambda _bytes: None
            self._kept_bytes -= before.told.kept_bytes
            self._ended_s.pop(run.id, None)
        self._gone.pop(run.id, None)
        self._runs[run.id] = run
        run.told.keep()
        run.told.grew = lambda change: self._grew(run, change)
        self._kept_bytes += run.told.kept_bytes

    def ended(self, run: FollowedRun) -> None:
        self._wait_no_longer(run)
        self._readers.pop(run, None)
        if self._runs.get(run.id) is run:
            self._ended_s[run.id] = monotonic()
            self._make_room()

    def find(self, run_id: str) -> FollowedRun:
        """Raises `UnknownRun`, or `EventsGone` where it ended too long ago."""
        self._make_room()
        if (run := self._runs.get(run_id)) is not None:
            return run
        if run_id in self._gone:
            raise EventsGone(f"what run {run_id} told is no longer kept", hint="GET /v1/traces/{id} has its course")
        raise UnknownRun(
            f"this node knows of no run {run_id}", hint="ask the node that was asked for it; its answer's X-Request-Id is the id"
        )

    def knows(self, run_id: str) -> bool:
        """Also where nothing of it is kept any more."""
        return run_id in self._runs or run_id in self._gone

    def follows(self, run: FollowedRun, after: int) -> bool:
        """Whether anything is told behind that position, now or later. What ended a run is told behind its last event.

        A position that never was is for `follow` to refuse.
        """
        last = run.told.told - (run.told.failure is None)
        return not run.told.over or after < last or after > run.told.told

    def cancel(self, run_id: str) -> None:
        """Raises `UnknownRun` where none of that id is under way."""
        run = self._runs.get(run_id)
        if run is None or run.told.over:
            raise UnknownRun(f"no run {run_id} is under way on this node", hint="it may have ended; ask the node that was asked for it")
        run.cancel()

    @contextmanager
    def attend(self, run: FollowedRun) -> Iterator[None]:
        """As long as this lasts its reader is here. When none is any more the run waits for one to come back, and ends without him."""
        self._wait_no_longer(run)
        self._readers[run] = self._readers.get(run, 0) + 1
        try:
            yield
        finally:
            if run in self._readers:
                self._readers[run] -= 1
                if not self._readers[run]:
                    self._abandoned[run] = asyncio.get_running_loop().call_later(RESUME_GRACE_S, run.cancel)

    @contextmanager
    def follow(self, run: FollowedRun, *, after: int) -> Iterator[AsyncGenerator[RunEvent, None]]:
        """Its events behind that position. Of a run whose reader may come back, this is he: an older connection of his may not know yet
        that it is dead.

        Raises `EventsGone` where the next one is no longer kept, `InvalidRequest` where there never was one in that position, `Overloaded`
        where too many look on.
        """
        if after > run.told.told:
            raise InvalidRequest(
                f"run {run.id} has told {run.told.told} events, and none of id {after}",
                hint="send the id of one of its events as Last-Event-ID",
                param="Last-Event-ID",
            )
        if run.told.first > after + 1:
            raise EventsGone(
                f"event {after + 1} of run {run.id} is no longer kept", hint=f"the oldest that is kept is {run.told.first}; begin there"
            )
        if self._followers >= FOLLOWERS_MAX:
            raise Overloaded(f"{FOLLOWERS_MAX} others read events of runs again", hint="ask again soon")
        returned = run in self._readers
        self._followers += 1
        try:
            with self.attend(run) if returned else nullcontext():
                yield run.told.read(after=after, paces=returned)
        finally:
            self._followers -= 1

    def _wait_no_longer(self, run: FollowedRun) -> None:
        if (timer := self._abandoned.pop(run, None)) is not None:
            timer.cancel()

    def _grew(self, run: FollowedRun, change: int) -> None:
        self._kept_bytes += change
        if change > 0 and self._kept_bytes > KEPT_BYTES_MAX:
            self._make_room()
            if self._kept_bytes > KEPT_BYTES_MAX:
                run.told.shrink()

    def _make_room(self) -> None:
        """Those that ended first go first."""
        now = monotonic()
        while self._ended_s:
            run_id, ended_s = next(iter(self._ended_s.items()))
            crowded = len(self._ended_s) > ENDED_KEPT_MAX or self._kept_bytes > KEPT_BYTES_MAX
            if not crowded and now - ended_s <= KEPT_S:
                break
            self._forget(run_id)

    def _forget(self, run_id: str) -> None:
        del self._ended_s[run_id]
        self._runs.pop(run_id).told.forget()
        self._gone[run_id] = None
        while len(self._gone) > IDS_KEPT_MAX:
            self._gone.popitem(last=False)
