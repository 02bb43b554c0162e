"""llama.cpp as this project drives it: what it has beyond answering, which is the state of conversations."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, ClassVar

from astromesh.dialogue import ModelRequest
from astromesh.errors import AstromeshError, InvalidRequest, ModelFailed, ModelUnavailable
from astromesh.inference.backends.completing import CompletingEngine
from astromesh.inference.backends.process import WorkerProcess
from astromesh.inference.backends.supervised import EngineLimits, nobody
from astromesh.inference.encoding import Task
from astromesh.inference.engines import HOW_TO_GET_ONE
from astromesh.inference.frames import pack
from astromesh.inference.port import ModelSpecification
from astromesh.inference.request import as_frame
from astromesh.inference.session_state import STATE_BYTES_MAX


class LlamaCppEngine(CompletingEngine):
    """An `InferenceEngine` over the low-level functions of llama-cpp-python."""

    command: ClassVar[Sequence[str]] = (sys.executable, "-P", "-m", "astromesh.inference.backends.llama_cpp.worker")
    does: ClassVar[tuple[Task, ...]] = ("embed",)
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
        # Exports and imports under way. Bounded by what a state may have, in pieces of 1 MiB.
        self._sessions: dict[int, asyncio.Queue[Mapping[str, Any] | AstromeshError]] = {}

    @property
    def warmth(self) -> bytes:
        return self._warmth

    async def export_session(self, request: ModelRequest, *, timeout_s: float) -> AsyncGenerator[bytes, None]:
        frame = {**as_frame(request, number=self._numbers), "kind": "export"}
        async with self._session(timeout_s) as (process, answers):
            process.send(pack(frame))
            while (answer := await _frame_of(answers))["last"] is False:
                yield answer["data"]

    async def import_session(self, pieces: AsyncIterable[bytes], *, timeout_s: float) -> int:
        async with self._session(timeout_s) as (process, answers):
            number = self._numbers - 1
            size = 0
            async for piece in pieces:
                size += len(piece)
                if size > STATE_BYTES_MAX:
                    raise InvalidRequest(f"a session state of over {STATE_BYTES_MAX} bytes", param="session")
                process.send(pack({"kind": "import", "number": number, "data": piece, "last": False}))
            process.send(pack({"kind": "import", "number": number, "data": b"", "last": True}))
            tokens: int = (await _frame_of(answers))["tokens"]
            return tokens

    async def count_tokens(self, texts: Sequence[str], *, timeout_s: float) -> tuple[int, ...]:
        """How many tokens each is for this model. Answered between two steps of the worker. Raises `ModelUnavailable`, `ModelFailed`."""
        async with self._session(timeout_s) as (process, answers):
            process.send(pack({"kind": "count", "number": self._numbers - 1, "texts": list(texts)}))
            return tuple((await _frame_of(answers))["tokens"])

    @asynccontextmanager
    async def _session(self, timeout_s: float) -> AsyncGenerator[tuple[WorkerProcess, asyncio.Queue[Mapping[str, Any] | AstromeshError]]]:
        if self._state != "loaded" or self._process is None:
            raise ModelUnavailable(f"model {self.name} is {self._state} on this node", hint="astromesh-node models list shows its state")
        number = self._numbers
        self._numbers += 1
        answers = self._sessions[number] = asyncio.Queue()
        try:
            async with asyncio.timeout(timeout_s):
                yield self._process, answers
        except TimeoutError:
            raise ModelFailed(
                f"model {self.name} did not answer within {timeout_s:g} s", code="model_timeout", hint="raise the timeout"
            ) from None
        finally:
            del self._sessions[number]

    def _forget_worker(self) -> None:
        self._warmth = b""

    def _fail_running(self, error: AstromeshError) -> None:
        super()._fail_running(error)
        for session in self._sessions.values():
            session.put_nowait(error)

    def _hear_refused(self, number: int, refused: InvalidRequest) -> None:
        if (session := self._sessions.get(number)) is not None:
            session.put_nowait(refused)
        else:
            super()._hear_refused(number, refused)

    def _hear_work(self, frame: Mapping[str, Any]) -> None:
        match frame["kind"]:
            case "state" | "imported" | "counted":
                if (session := self._sessions.get(frame["number"])) is not None:
                    session.put_nowait(frame)
            case "warmth":
                self._warmth = frame["digests"]
                self._on_change()
            case _:
                super()._hear_work(frame)


async def _frame_of(answers: asyncio.Queue[Mapping[str, Any] | AstromeshError]) -> Mapping[str, Any]:
    answer = await answers.get()
    if isinstance(answer, AstromeshError):
        raise answer
    return answer
