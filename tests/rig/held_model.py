"""A model that says its next word when the test lets it: another in-memory twin of a model server, for what happens in the middle."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from astromesh.dialogue import ModelEvent, ModelReply, ModelRequest, TextDelta, Usage

AMPLE_S = 10.0  # far more than anything here takes, and short enough to see a test fail instead of hang


class HeldModel:
    """One word for each `let()`, then its reply at one more; with a `failure`, that instead of the reply."""

    def __init__(self, *words: str, failure: Exception | None = None) -> None:
        self._words = words
        self._failure = failure
        self._allowed = asyncio.Semaphore(0)
        self.asked: list[ModelRequest] = []
        self.open = 0  # streams that were begun and not closed yet
        self.said = 0
        self.finished = 0
        self.begun = asyncio.Event()
        self.released = asyncio.Event()  # the last stream was closed, however it ended

    def let(self, pieces: int = 1) -> None:
        for _ in range(pieces):
            self._allowed.release()

    def let_all(self) -> None:
        self.let(len(self._words) + 1)

    async def complete(self, request: ModelRequest, *, timeout_s: float) -> AsyncGenerator[ModelEvent, None]:
        self.asked.append(request)
        self.open += 1
        self.begun.set()
        self.released.clear()
        try:
            for word in self._words:
                await self._next()
                self.said += 1
                yield TextDelta(word)
            await self._next()
            if self._failure is not None:
                raise self._failure
            self.finished += 1
            yield ModelReply("".join(self._words), usage=Usage(1, len(self._words)), model=request.model)
        finally:
            self.open -= 1
            if not self.open:
                self.released.set()

    async def _next(self) -> None:
        try:
            async with asyncio.timeout(AMPLE_S):
                await self._allowed.acquire()
        except TimeoutError:
            raise AssertionError("nobody let this model go on, and nobody left it") from None

    async def was_released(self) -> None:
        """Waits until nobody holds a stream of it open."""
        async with asyncio.timeout(AMPLE_S):
            await self.released.wait()

    async def was_begun(self) -> None:
        async with asyncio.timeout(AMPLE_S):
            await self.begun.wait()

    async def close(self) -> None:
        """Nothing is open."""
