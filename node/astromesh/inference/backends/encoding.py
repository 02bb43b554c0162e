"""An engine whose worker turns texts into rows of numbers. Its frames: `encode` in, one `encoded` for each batch out."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from astromesh.dialogue import EmbeddingRequest, Embeddings, Usage, Vectors
from astromesh.errors import InvalidRequest
from astromesh.inference.backends.supervised import WorkerEngine
from astromesh.inference.encoding import TEXTS_MAX, Task


@dataclass(frozen=True, slots=True)
class Rows:
    """What a worker told of some texts, in their order."""

    vectors: Vectors
    tokens: int
    truncated: tuple[int, ...]


class EncodingEngine(WorkerEngine):
    does: ClassVar[tuple[Task, ...]] = ()  # of what an encoder does, what every model of this engine can do

    @property
    def tasks(self) -> tuple[Task, ...]:
        return self.does

    async def embed(self, request: EmbeddingRequest, *, timeout_s: float) -> Embeddings:
        rows = await self._encode("embed", request.texts, timeout_s=timeout_s, dimensions=request.dimensions)
        return Embeddings(rows.vectors, Usage(rows.tokens), self.name, rows.truncated)

    async def _encode(
        self, task: Task, texts: tuple[str, ...], *, timeout_s: float, query: str | None = None, dimensions: int | None = None
    ) -> Rows:
        if task not in self.tasks:
            raise InvalidRequest(
                f"model {self.name} cannot {task}; it can {' and '.join(self.tasks) or 'do nothing of that kind'}", param="model"
            )
        if not texts or len(texts) > TEXTS_MAX:
            raise InvalidRequest(f"{len(texts)} texts; from 1 to {TEXTS_MAX} are possible", hint="send them in parts", param="input")

        def frame(number: int) -> Mapping[str, Any]:
            return {"kind": "encode", "number": number, "texts": texts, "query": query, "dimensions": dimensions}

        told: list[bytes] = [b""] * len(texts)
        tokens, truncated, columns = 0, [], 0
        async with aclosing(self._ask(frame, timeout_s=timeout_s, param="input")) as answers:
            async for answer in answers:
                columns = answer["columns"]
                for place, row in zip(answer["rows"], Vectors(columns, answer["data"]).rows(), strict=True):
                    told[place] = row
                tokens += answer["tokens"]
                truncated += answer["truncated"]
                if answer["last"]:
                    break
        return Rows(Vectors(columns, b"".join(told)), tokens, tuple(sorted(truncated)))

    def _hear_work(self, frame: Mapping[str, Any]) -> None:
        if frame["kind"] != "encoded":
            super()._hear_work(frame)
            return
        number = frame["number"]
        self._running[number].events.put_nowait(frame)
        if frame["last"]:
            self._end(number, tokens_in=frame["tokens"])
            self._send_waiting()
        else:
            self._stats = replace(self._stats, tokens_in=self._stats.tokens_in + frame["tokens"])
