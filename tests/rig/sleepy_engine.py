"""An engine that loads when the test lets it, and answers at once: an in-memory twin of a worker process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Callable

from astromesh.dialogue import ModelEvent, ModelReply, ModelRequest, TextDelta, Usage
from astromesh.errors import AstromeshError, ModelUnavailable
from astromesh.inference.port import EngineState, EngineStats, ModelSpecification


class SleepyEngine:
    """`loads`: whether by itself; else `let()`. `answers`: whether it ends answers by itself; else `answer()`. `fails`: at its start.

    `breaks`: at its end. `asked` and `closing` tell when somebody does that; `keep_open()` holds its end up until `let_go()`.
    """

    def __init__(
        self,
        model: ModelSpecification,
        *,
        on_change: Callable[[], None] = lambda: None,
        loads: bool = True,
        fails: AstromeshError | None = None,
        answers: bool = True,
        tok_s: float = 50.0,
    ) -> None:
        self.model = model
        self.state: EngineState = "unloaded"
        self.load_progress = 0.0
        self.problem = ""
        self.kernel = "0123456789abcdef"
        self.warmth = b""
        self.stats = EngineStats()
        self.tok_s = tok_s
        self.starts = 0
        self.breaks: Exception | None = None
        self.asked = asyncio.Event()
        self.closing = asyncio.Event()
        self._on_change = on_change
        self._fails = fails
        self._loaded = asyncio.Event()
        self._answered = asyncio.Event()
        self._let_go = asyncio.Event()
        self._let_go.set()
        if loads:
            self._loaded.set()
        if answers:
            self._answered.set()

    @property
    def name(self) -> str:
        return self.model.name

    @property
    def identity(self) -> str:
        return self.model.identity

    def let(self) -> None:
        self._loaded.set()

    def answer(self) -> None:
        self._answered.set()

    def keep_open(self) -> None:
        self._let_go.clear()

    def let_go(self) -> None:
        self._let_go.set()

    def give_up(self, problem: str) -> None:
        """As one whose worker died again and again."""
        self.state, self.problem = "failed", problem
        self._on_change()

    async def start(self) -> None:
        self.starts += 1
        self.state = "loading"
        await self._loaded.wait()
        if self._fails is not None:
            self.state = "failed"
            raise self._fails
        self.state, self.load_progress = "loaded", 1.0
        self._on_change()

    async def close(self) -> None:
        self.closing.set()
        if self.breaks is not None:
            raise self.breaks
        await self._let_go.wait()
        self.state = "unloaded"
        self._on_change()

    async def complete(self, request: ModelRequest, *, timeout_s: float) -> AsyncGenerator[ModelEvent, None]:
        if self.state != "loaded":
            raise ModelUnavailable(f"{self.name} is {self.state}")
        self.asked.set()
        yield TextDelta("Yes")
        await self._answered.wait()
        yield ModelReply("Yes", usage=Usage(1, 20), model=self.name, timings={"decode_tok_s": self.tok_s})

    async def export_session(self, request: ModelRequest, *, timeout_s: float) -> AsyncGenerator[bytes, None]:
        for piece in ():
            yield piece

    async def import_session(self, pieces: AsyncIterable[bytes], *, timeout_s: float) -> int:
        return 0
