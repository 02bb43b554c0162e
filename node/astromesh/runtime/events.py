"""What a run is asked, and what happens in it as its watcher sees it: numbered events through one bounded queue.

Every door (JSON, event stream, OpenAI) drains the same queue. A slow reader slows the run, down to the model that makes the tokens; it
never makes the queue grow.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

from astromesh.dialogue import Transcript
from astromesh.errors import AstromeshError

EVENTS_WAITING_MAX = 256  # about two seconds of a fast model's tokens: a hiccup of the reader's costs nothing
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
    """One writer, one reader. `watched`: the reader wants tokens as they come, not only the end."""

    def __init__(self, *, watched: bool) -> None:
        self.watched = watched
        self._queue: asyncio.Queue[RunEvent | None] = asyncio.Queue(EVENTS_WAITING_MAX)
        self._position = 0
        self._over = False
        self._failure: AstromeshError | None = None

    async def tell(self, kind: str, data: Mapping[str, Any]) -> None:
        """Waits while the queue is full."""
        await self._queue.put(RunEvent(self._position, kind, data))
        self._position += 1

    def end(self, failure: AstromeshError | None) -> None:
        """Nothing is told after this. What was told before is still read, then a failure is raised where the events are read.

        Never waits: a run that is cancelled has no time left for a slow reader.
        """
        self._over, self._failure = True, failure
        if self._queue.empty():
            self._queue.put_nowait(None)  # a reader may be waiting

    async def __aiter__(self) -> AsyncIterator[RunEvent]:
        while not (self._over and self._queue.empty()):
            event = await self._queue.get()
            if event is not None:
                yield event
        if self._failure is not None:
            raise self._failure
