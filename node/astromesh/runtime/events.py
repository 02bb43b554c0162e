"""What a run is asked, and what happens in it: numbered events, each told once and, where somebody may ask for them, kept for a while.

Every door (JSON, event stream, WebSocket, OpenAI) reads the same events. One reader sets the pace: when it is slow, so is the run, down to
the model that makes the tokens. Others may look on from any event that is still kept; who falls behind that is told so and holds up nobody.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Any

import orjson

from astromesh.dialogue import Transcript
from astromesh.errors import AstromeshError, EventsGone

EVENTS_WAITING_MAX = 256  # about two seconds of a fast model's tokens: a hiccup of the reader's costs nothing
EVENTS_KEPT_BYTES_MAX = 1 << 20  # of one run, beyond what its reader has yet to read: some two thousand tokens
EVENT_BYTES = 400  # of the objects that an event is made of, beside its text
SESSION_ID_CHARACTERS_MAX = 200  # a UUID has 36; the rest is for callers who name their own


@dataclass(frozen=True, slots=True)
class RunRequest:
    """A question to an agent. No `session_id`: a fresh conversation, so that two strangers never share a history."""

    agent: str
    query: str
    session_id: str | None
    context: Mapping[str, Any]
    watched: bool  # somebody wants the tokens as they come
    history: Transcript | None = None  # the caller's own account of the conversation so far: then nothing is recalled, nothing remembered


@dataclass(frozen=True, slots=True)
class RunEvent:
    """`kind` is the event's name on every door, `data` plain JSON, `position` its number in the run, from 0."""

    position: int
    kind: str
    data: Mapping[str, Any]


class RunEvents:
    """What one run told. `watched`: its reader wants tokens as they come, not only the end."""

    def __init__(self, *, watched: bool) -> None:
        self.watched = watched
        self.failure: AstromeshError | None = None
        self.over = False
        self.kept_bytes = 0
        self.kept_bytes_max = 0  # of what was read; `keep` says that somebody may read it again
        self.grew: Callable[[int], None] = lambda _bytes: None  # called with every change of `kept_bytes`
        self._kept: deque[tuple[RunEvent, int]] = deque()  # with the bytes of each
        self._told = 0
        self._read = 0  # how many the reader that sets the pace has taken
        self._pacing: object = None  # that reader
        self._news = asyncio.Event()
        self._room = asyncio.Event()

    @property
    def told(self) -> int:
        """How many there are: the position of the next."""
        return self._told

    @property
    def first(self) -> int:
        """The position of the oldest that is kept."""
        return self._told - len(self._kept)

    async def tell(self, kind: str, data: Mapping[str, Any]) -> None:
        """Waits while the reader that sets the pace is too far behind."""
        while self._told - self._read >= EVENTS_WAITING_MAX:
            self._room.clear()
            await self._room.wait()
        size = EVENT_BYTES + len(orjson.dumps(data))
        self._kept.append((RunEvent(self._told, kind, data), size))
        self._told += 1
        self._count(size)
        self._trim(self.kept_bytes_max)
        self._news.set()

    def end(self, failure: AstromeshError | None) -> None:
        """Nothing is told after this. What was told before is still read, then a failure is raised where the events are read.

        Never waits: a run that is cancelled has no time left for a slow reader.
        """
        self.over, self.failure = True, failure
        self._news.set()

    def keep(self) -> None:
        """What was read stays for others, within limits."""
        self.kept_bytes_max = EVENTS_KEPT_BYTES_MAX

    def shrink(self) -> None:
        """Keeps only what the reader that sets the pace has yet to read."""
        self._trim(0)

    def forget(self) -> None:
        """Keeps nothing. For a run that is over."""
        self._kept.clear()
        self._count(-self.kept_bytes)

    async def read(self, *, after: int = -1, paces: bool) -> AsyncGenerator[RunEvent, None]:
        """The events behind that position as they come; at the end a failure is raised.

        `paces`: the run waits for this reader from now on, and for no other. Raises `EventsGone` where it does not wait and an event was
        dropped that this reader had yet to read.
        """
        position = after + 1
        me = object()
        if paces:
            self._pacing, self._read = me, position
        while True:
            while position < self._told:
                if position < self.first:
                    raise EventsGone(f"event {position} of this run is no longer kept", hint=f"the oldest that is kept is {self.first}")
                event, _ = self._kept[position - self.first]
                position += 1
                if self._pacing is me:
                    self._read = position
                    self._room.set()
                    self._trim(self.kept_bytes_max)
                yield event
            if self.over:
                break
            self._news.clear()
            await self._news.wait()
        if self.failure is not None:
            raise self.failure

    async def __aiter__(self) -> AsyncIterator[RunEvent]:
        async for event in self.read(paces=True):
            yield event

    async def seen(self, kinds: Collection[str], *, within_s: float) -> RunEvent | None:
        """The first of these kinds, which is not taken by that; None where none came in time. Raises what ended the run before."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s), aclosing(self.read(paces=False)) as events:
                async for event in events:
                    if event.kind in kinds:
                        return event
        return None

    def _trim(self, bytes_max: int) -> None:
        """Drops the oldest, and nothing that the reader has yet to read."""
        while self.kept_bytes > bytes_max and self.first < self._read:
            self._count(-self._kept.popleft()[1])

    def _count(self, change: int) -> None:
        self.kept_bytes += change
        self.grew(change)
