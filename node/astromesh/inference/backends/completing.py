"""An engine whose worker goes on with texts. Its frames: `complete` in, a `step` for each step of the streams that it has out."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from astromesh.dialogue import AnswerBegan, ModelEvent, ModelReply, ModelRequest
from astromesh.errors import InvalidRequest
from astromesh.inference.backends.encoding import EncodingEngine
from astromesh.inference.request import as_frame


class CompletingEngine(EncodingEngine):
    _kernel = ""

    @property
    def kernel(self) -> str:
        return self._kernel

    async def complete(self, request: ModelRequest, *, timeout_s: float) -> AsyncGenerator[ModelEvent, None]:
        async with aclosing(self._ask(lambda number: self._frame(request, number), timeout_s=timeout_s, param="messages")) as events:
            async for event in events:
                yield event
                if isinstance(event, ModelReply):
                    return

    def _frame(self, request: ModelRequest, number: int) -> Mapping[str, Any]:
        """The request as the worker takes it. Raises `InvalidRequest` for what it could not honour."""
        if request.resume is not None and request.resume.identity != self.identity:
            raise InvalidRequest(
                f"the answer to go on with was made by another file than the one that is {self.name} here",
                hint="ask again from the beginning",
                param="resume",
            )
        return as_frame(request, number=number)

    def _hear_loaded(self, frame: Mapping[str, Any]) -> None:
        self._kernel = frame["kernel"]

    def _hear_work(self, frame: Mapping[str, Any]) -> None:
        if frame["kind"] != "step":
            super()._hear_work(frame)
            return
        for began in frame["began"]:
            event = AnswerBegan(self.identity, self._kernel, tuple(began["borders"]), began["seed"])
            self._running[began["number"]].events.put_nowait(event)
        for number, *piece in frame["pieces"]:
            entry = self._running[number]
            entry.events.put_nowait(entry.answer.receive(*piece))
        for account in frame["ended"]:
            self._finish(account)
        self._send_waiting()

    def _finish(self, account: Mapping[str, Any]) -> None:
        entry = self._end(
            account["number"], tokens_in=account["tokens_in"], tokens_cached=account["cached_tokens"], tokens_out=account["tokens_out"]
        )
        timings: dict[str, float] = dict(account["timings"])
        assert entry.sent_s is not None
        timings["queue_ms"] += (entry.sent_s - entry.arrived_s) * 1e3
        self._stats = replace(self._stats, decode_tok_s=timings.get("decode_tok_s", self._stats.decode_tok_s))
        entry.events.put_nowait(entry.answer.reply(account, model=self.name, timings=timings))
