"""An engine whose worker turns texts into rows of numbers. Its frames: `encode` in, one `encoded` for each batch out."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import replace
from typing import Any, ClassVar

from astromesh.dialogue import EncodingRequest, Encodings, EncodingTask, Usage, Vectors
from astromesh.errors import InvalidRequest
from astromesh.inference.backends.supervised import WorkerEngine
from astromesh.inference.encoding import TEXTS_MAX


class EncodingEngine(WorkerEngine):
    does: ClassVar[tuple[EncodingTask, ...]] = ()  # of what an encoder does, what every model of this engine can do

    @property
    def tasks(self) -> tuple[EncodingTask, ...]:
        return self.does

    @property
    def labels(self) -> tuple[str, ...]:
        """Of a classifier, in the order of its numbers."""
        return ()

    async def encode(self, request: EncodingRequest, *, timeout_s: float) -> Encodings:
        self._check(request)
        texts = request.texts

        def frame(number: int) -> Mapping[str, Any]:
            return {"kind": "encode", "number": number, "texts": texts, "query": request.query, "dimensions": request.dimensions}

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
        return Encodings(Vectors(columns, b"".join(told)), Usage(tokens), self.name, tuple(sorted(truncated)), self.labels)

    def _check(self, request: EncodingRequest) -> None:
        """Raises `InvalidRequest`."""
        task, texts = request.task, request.texts
        if task not in self.tasks:
            raise InvalidRequest(
                f"model {self.name} cannot {task}; it can {' and '.join(self.tasks) or 'do nothing of that kind'}", param="model"
            )
        if not texts or len(texts) > TEXTS_MAX:
            raise InvalidRequest(f"{len(texts)} texts; from 1 to {TEXTS_MAX} are possible", hint="send them in parts", param="input")
        if (request.query is None) == (task == "rerank"):
            raise InvalidRequest("a query belongs to a rerank, and to nothing else", param="query")

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
