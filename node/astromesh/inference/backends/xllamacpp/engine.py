"""The node's side of the prebuilt engine: what every engine has, and a name for what this one has not."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, AsyncIterable, Mapping, Sequence
from typing import Any, ClassVar

from astromesh.dialogue import ModelRequest
from astromesh.errors import InvalidRequest
from astromesh.inference.backends.completing import CompletingEngine
from astromesh.inference.backends.xllamacpp.asking import as_body
from astromesh.inference.engines import HOW_TO_GET_ONE

_NO_SESSIONS = "the prebuilt engine cannot hand the state of a conversation over"


class XllamacppEngine(CompletingEngine):
    """An `InferenceEngine` over llama.cpp's own server."""

    command: ClassVar[Sequence[str]] = (sys.executable, "-P", "-m", "astromesh.inference.backends.xllamacpp.worker")
    needs: ClassVar[tuple[str, ...]] = ("xllamacpp",)
    absent: ClassVar[str] = "no inference engine is installed, so this node cannot run models itself"
    extra_hint: ClassVar[str] = HOW_TO_GET_ONE

    @property
    def warmth(self) -> bytes:
        """It keeps what it has read, and does not say which conversations those are."""
        return b""

    async def export_session(self, request: ModelRequest, *, timeout_s: float) -> AsyncGenerator[bytes, None]:
        if self.name:  # never otherwise; a generator that only raises would be none
            raise InvalidRequest(_NO_SESSIONS, param="session")
        yield b""

    async def import_session(self, pieces: AsyncIterable[bytes], *, timeout_s: float) -> int:
        raise InvalidRequest(_NO_SESSIONS, param="session")

    def _frame(self, request: ModelRequest, number: int) -> Mapping[str, Any]:
        top = request.sampling.logprobs
        return {"kind": "complete", "number": number, "body": as_body(request), "top": top}
