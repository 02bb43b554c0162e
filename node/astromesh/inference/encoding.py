"""What the rest of the node may ask of a model that reads texts and writes none: vectors, scores of labels, ranks."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from astromesh.dialogue import EncodingRequest, Encodings, EncodingTask
from astromesh.inference.port import EngineState, EngineStats

# As many as OpenAI takes in one request. 2,048 sentences keep a small model on two cores busy for 8 s.
TEXTS_MAX = 2048


@runtime_checkable
class TextEncoder(Protocol):
    """One such model, loaded on this machine. What it can do stands in `tasks`; anything else is refused by name."""

    @property
    def name(self) -> str: ...

    @property
    def identity(self) -> str:
        """The sha256 of the model's file, in hex."""
        ...

    @property
    def tasks(self) -> tuple[EncodingTask, ...]: ...

    @property
    def state(self) -> EngineState: ...

    @property
    def problem(self) -> str: ...

    @property
    def stats(self) -> EngineStats: ...

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    async def encode(self, request: EncodingRequest, *, timeout_s: float) -> Encodings:
        """Scores of a classifier are from 0 to 1 unless its manifest says that they are told as they are; ranks are comparable within one
        answer only. Raises what `InferenceEngine.complete` raises. Cancelling it ends the work.
        """
        ...
