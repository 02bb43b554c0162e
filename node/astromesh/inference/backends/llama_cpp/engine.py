"""llama.cpp as this project drives it: what it has beyond answering, which is the state of conversations."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

from astromesh.dialogue import EncodingTask, ModelRequest
from astromesh.errors import AstromeshError, InvalidRequest, ModelFailed, ModelUnavailable, Overloaded
from astromesh.inference.backends.completing import CompletingEngine
from astromesh.inference.backends.process import WorkerProcess
from astromesh.inference.backends.supervised import EngineLimits, nobody
from astromesh.inference.engines import HOW_TO_GET_ONE
from astromesh.inference.frames import pack
from astromesh.inference.port import ModelSpecification
from astromesh.inference.request import as_frame
from astromesh.inference.session_state import PIECE_BYTES, STATE_BYTES_MAX

# Exports, imports and counts at once. Counts are the many, and short; a state under way is memory on both sides.
SESSIONS_MAX = 16
# Tokenizing runs at 1 to 3 MB/s, and every stream waits for it.
COUNTED_CHARACTERS_MAX = 1 << 20


@dataclass(slots=True, eq=False)
class _Session:
    """What is asked of a worker beside answers and texts: an export, an import, a count."""

    number: int
    process: WorkerProcess
    # What it says: of an export as many pieces as it may send ahead, of all else one word.
    answers: asyncio.Queue[Mapping[str, Any] | AstromeshError] = field(default_factory=asyncio.Queue)
    over: bool = False  # it said its last word

    async def answer(self) -> Mapping[str, Any]:
        said = await self.answers.get()
        if isinstance(said, AstromeshError):
            raise said
        return said


class LlamaCppEngine(CompletingEngine):
    """An `InferenceEngine` over the low-level functions of llama-cpp-python."""

    command: ClassVar[Sequence[str]] = (sys.executable, "-P", "-m", "astromesh.inference.backends.llama_cpp.worker")
    does: ClassVar[tuple[EncodingTask, ...]] = ("embed",)
    needs: ClassVar[tuple[str, ...]] = ("llama_cpp",)
    absent: ClassVar[str] = "no inference engine is installed, so this node cannot run models itself"
    extra_hint: ClassVar[str] = HOW_TO_GET_ONE

    def __init__(
        self,
        model: ModelSpecification,
        *,
        limits: EngineLimits | None = None,
        command: Sequence[str] = (),
        on_change: Callable[[], None] = nobody,
    ) -> None:
        """`on_change` is called whenever `state` or `warmth` has become another one."""
        super().__init__(model, limits=limits, command=command, on_change=on_change)
        self._warmth = b""
        # Under way, by numbers of their own: from -1 downwards, so that a late word about one that was abandoned is told from a mistake.
        self._sessions: dict[int, _Session] = {}
        self._sessions_begun = 0
        self._importing_bytes = 0  # of all imports under way, held by the worker

    @property
    def warmth(self) -> bytes:
        return self._warmth

    async def export_session(self, request: ModelRequest, *, timeout_s: float) -> AsyncGenerator[bytes, None]:
        async with self._session(timeout_s) as session:
            self._say(session, lambda number: {**as_frame(request, number=number), "kind": "export"}, param="messages")
            while not (answer := await session.answer())["last"]:
                yield answer["data"]
                self._say(session, lambda number: {"kind": "more", "number": number}, param="messages")
            session.over = True

    async def import_session(self, pieces: AsyncIterable[bytes], *, timeout_s: float) -> int:
        size = 0
        try:
            async with self._session(timeout_s) as session:
                async for piece in pieces:
                    size += len(piece)
                    self._importing_bytes += len(piece)
                    self._check_import(size)
                    for start in range(0, len(piece), PIECE_BYTES):
                        self._send_state(session, piece[start : start + PIECE_BYTES], last=False)
                        await session.process.drain()
                    if not session.answers.empty():
                        break  # it was refused, or the worker has ended
                else:
                    self._send_state(session, b"", last=True)
                tokens: int = (await session.answer())["tokens"]
                session.over = True
                return tokens
        finally:
            self._importing_bytes -= size

    async def count_tokens(self, texts: Sequence[str], *, timeout_s: float) -> tuple[int, ...]:
        """How many tokens each is for this model. Answered between two steps of the worker.

        Raises `InvalidRequest`, `Overloaded`, `ModelUnavailable`, `ModelFailed`.
        """
        characters = sum(map(len, texts))
        if characters > COUNTED_CHARACTERS_MAX:
            raise InvalidRequest(f"{characters} characters are too many to be counted at once", hint="count them in parts", param="texts")
        async with self._session(timeout_s) as session:
            self._say(session, lambda number: {"kind": "count", "number": number, "texts": list(texts)}, param="texts")
            counted = tuple((await session.answer())["tokens"])
            session.over = True
            return counted

    @asynccontextmanager
    async def _session(self, timeout_s: float) -> AsyncGenerator[_Session, None]:
        """One that ends before its last word is cancelled there: half a state must not wait for its rest."""
        if self._state != "loaded" or self._process is None:
            raise ModelUnavailable(f"model {self.name} is {self._state} on this node", hint="astromesh-node models list shows its state")
        if len(self._sessions) >= SESSIONS_MAX:
            raise Overloaded(f"{len(self._sessions)} exports, imports and counts are under way for model {self.name}", hint="try again")
        self._sessions_begun += 1
        session = self._sessions[-self._sessions_begun] = _Session(-self._sessions_begun, self._process)
        try:
            async with asyncio.timeout(timeout_s):
                yield session
        except TimeoutError:
            raise ModelFailed(
                f"model {self.name} did not answer within {timeout_s:g} s", code="model_timeout", hint="raise the timeout"
            ) from None
        finally:
            del self._sessions[session.number]
            if not session.over:
                session.process.send(pack({"kind": "cancel", "number": session.number}))

    def _say(self, session: _Session, frame: Callable[[int], Mapping[str, Any]], *, param: str) -> None:
        session.process.send(self._packed(frame, number=session.number, param=param))

    def _send_state(self, session: _Session, data: bytes, *, last: bool) -> None:
        session.process.send(pack({"kind": "import", "number": session.number, "data": data, "last": last}))

    def _check_import(self, size: int) -> None:
        """Raises `InvalidRequest` for a state that is too large, `Overloaded` where several are it together."""
        if size > STATE_BYTES_MAX:
            raise InvalidRequest(f"a session state of over {STATE_BYTES_MAX} bytes", param="session")
        if self._importing_bytes > STATE_BYTES_MAX:
            raise Overloaded(f"other sessions are being imported for model {self.name}", hint="try again when they are there")

    def _forget_worker(self) -> None:
        self._warmth = b""

    def _fail_running(self, error: AstromeshError) -> None:
        super()._fail_running(error)
        for session in self._sessions.values():
            session.answers.put_nowait(error)

    def _hear_refused(self, number: int, refused: InvalidRequest) -> None:
        if number >= 0:
            super()._hear_refused(number, refused)
        elif (session := self._sessions.get(number)) is not None:
            session.answers.put_nowait(refused)

    def _hear_work(self, frame: Mapping[str, Any]) -> None:
        match frame["kind"]:
            case "state" | "imported" | "counted":
                if (session := self._sessions.get(frame["number"])) is not None:
                    session.answers.put_nowait(frame)
            case "warmth":
                self._warmth = frame["digests"]
                self._on_change()
            case _:
                super()._hear_work(frame)
