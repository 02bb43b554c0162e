"""What the rest of the node may ask of a model that reads texts and writes none: vectors, labels, ranks; and the values around it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from astromesh.dialogue import EmbeddingRequest, Embeddings, Usage
from astromesh.inference.port import EngineState, EngineStats

Task = Literal["embed", "classify", "rerank"]

# As many as OpenAI takes in one request. 2,048 sentences keep a small model on two cores busy for 8 s.
TEXTS_MAX = 2048


@dataclass(frozen=True, slots=True)
class Label:
    name: str
    score: float  # from 0 to 1, unless the model's manifest says that its numbers are told as they are


@dataclass(frozen=True, slots=True)
class Classification:
    """For each text all labels, best first."""

    labels: tuple[tuple[Label, ...], ...]
    usage: Usage
    truncated: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Ranking:
    """How well each document answers the query, in the order of the documents. Comparable within one ranking only."""

    scores: tuple[float, ...]
    usage: Usage
    truncated: tuple[int, ...] = ()


class TextEncoder(Protocol):
    """One such model, loaded on this machine. What it can do stands in `tasks`; anything else is refused by name."""

    @property
    def name(self) -> str: ...

    @property
    def identity(self) -> str:
        """The sha256 of the model's file, in hex."""
        ...

    @property
    def tasks(self) -> tuple[Task, ...]: ...

    @property
    def state(self) -> EngineState: ...

    @property
    def problem(self) -> str: ...

    @property
    def stats(self) -> EngineStats: ...

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    async def embed(self, request: EmbeddingRequest, *, timeout_s: float) -> Embeddings:
        """Raises what `InferenceEngine.complete` raises. Cancelling it ends the work."""
        ...

    async def classify(self, texts: tuple[str, ...], *, timeout_s: float) -> Classification: ...

    async def rerank(self, query: str, documents: tuple[str, ...], *, timeout_s: float) -> Ranking: ...
