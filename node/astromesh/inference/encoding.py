"""What the rest of the node may ask of a model that reads texts and writes none: vectors, labels, ranks; and the values around it.

Numbers cross as bytes: the node itself has no use for an array library, and an idle one may not load it.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, Protocol

from astromesh.dialogue import Usage
from astromesh.inference.port import EngineState, EngineStats

Task = Literal["embed", "classify", "rerank"]
Capability = Literal["complete", "embed", "classify", "rerank"]

# As many as OpenAI takes in one request. 2,048 sentences keep a small model on two cores busy for 8 s.
TEXTS_MAX = 2048

_FLOAT_BYTES = 4


@dataclass(frozen=True, slots=True)
class Vectors:
    """`(texts, dimensions)` float32, little-endian, row after row; of embeddings every row has the length 1."""

    dimensions: int
    data: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if self.dimensions < 1 or len(self.data) % (_FLOAT_BYTES * self.dimensions):
            raise ValueError(f"{len(self.data)} bytes are no rows of {self.dimensions} numbers")

    def __len__(self) -> int:
        return len(self.data) // (_FLOAT_BYTES * self.dimensions)

    def rows(self) -> Iterator[bytes]:
        size = _FLOAT_BYTES * self.dimensions
        return (self.data[start : start + size] for start in range(0, len(self.data), size))

    def numbers(self) -> Iterator[list[float]]:
        """Row by row, since a large answer holds a million."""
        for row in self.rows():
            numbers = array("f", row)
            if sys.byteorder == "big":
                numbers.byteswap()
            yield numbers.tolist()


@dataclass(frozen=True, slots=True)
class EmbeddingRequest:
    """`dimensions`: how many numbers each vector must have; None takes what the model makes."""

    model: str
    texts: tuple[str, ...] = field(repr=False)
    dimensions: int | None = None


@dataclass(frozen=True, slots=True)
class Embeddings:
    """One row for each text, in their order. `truncated`: the places of those that were longer than the model reads, and were cut."""

    vectors: Vectors
    usage: Usage
    model: str
    truncated: tuple[int, ...] = ()


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
