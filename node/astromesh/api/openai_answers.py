"""Answers in OpenAI's shapes: whole or as a stream, of one choice or of several."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from time import time
from typing import Any, Protocol

from aiohttp import web

from astromesh.api import errors, event_stream
from astromesh.api.choices import together
from astromesh.api.event_stream import EventStream
from astromesh.api.house import HOUSE, House
from astromesh.api.openai_bodies import SampledBody
from astromesh.api.replies import REQUEST_ID, reply
from astromesh.dialogue import ModelEvent, ModelReply, TextDelta, TokenLogprob, ToolCallDelta, Usage
from astromesh.errors import AstromeshError
from astromesh.runtime.models import Routed

LOGPROB_MIN = -9999.0  # OpenAI's number for what cannot be; JSON has no infinity

Pieces = AsyncIterator[tuple[int, Routed | ModelEvent]]


@dataclass(frozen=True, slots=True)
class Conducted(Routed):
    """Of an agent's run: also who conducts it."""

    home: str = ""


class Shape(Protocol):
    """One of the two kinds of completion."""

    prefix: str
    whole_object: str
    chunk_object: str

    def choice(self, index: int, reply: ModelReply) -> dict[str, Any]: ...

    def opening(self, index: int) -> dict[str, Any]:
        """The first chunk of a choice, before its first piece."""
        ...

    def piece(self, index: int, event: TextDelta | ToolCallDelta) -> dict[str, Any]: ...

    def ending(self, index: int, reply: ModelReply) -> dict[str, Any]: ...


async def answer(request: web.Request, body: SampledBody, pieces: Pieces, shape: Shape, headers: Mapping[str, str]) -> web.StreamResponse:
    if body.stream:
        return await _streamed(request, body, pieces, shape, headers)
    return await _whole(request, body, pieces, shape, headers)


async def _whole(request: web.Request, body: SampledBody, pieces: Pieces, shape: Shape, headers: Mapping[str, str]) -> web.Response:
    routed: Routed | None = None
    replies: dict[int, ModelReply] = {}
    async for index, piece in pieces:
        match piece:
            case Routed() if index == 0:
                routed = piece  # an agent may ask several models: the last one made the answer
            case ModelReply():
                replies[index] = piece
    if not replies:
        raise AstromeshError("the completion ended without a reply")
    answer = {
        "id": f"{shape.prefix}-{request[REQUEST_ID]}",
        "object": shape.whole_object,
        "created": int(time()),
        "model": body.model,
        "choices": [shape.choice(index, replies[index]) for index in sorted(replies)],
        "usage": _usage([replies[index].usage for index in sorted(replies)]),
    }
    if len(replies) == 1 and replies[0].timings:
        answer["timings"] = dict(replies[0].timings)
    return reply(answer, headers={**headers, **route_headers(routed, request.app[HOUSE])})


async def _streamed(
    request: web.Request, body: SampledBody, pieces: Pieces, shape: Shape, headers: Mapping[str, str]
) -> web.StreamResponse:
    base = {"id": f"{shape.prefix}-{request[REQUEST_ID]}", "object": shape.chunk_object, "created": int(time()), "model": body.model}
    usages: list[Usage] = []
    opened: set[int] = set()
    house = request.app[HOUSE]
    # The first piece says who does it, for the headers; what fails before has a status of its own. Neither is waited for in silence for
    # longer than a connection may be silent.
    first = asyncio.create_task(_first(pieces), name="first piece of a completion")
    try:
        await asyncio.wait([first], timeout=event_stream.HEARTBEAT_S)
        routed = first.result()[1] if first.done() else None
        assert routed is None or isinstance(routed, Routed), "a completion begins with who does it"
        async with EventStream(request, {**headers, **(route_headers(routed, house) if routed is not None else {})}) as out:
            try:
                index, _ = await first
                opened.add(index)
                await out.data({**base, "choices": [shape.opening(index)]})
                async for index, piece in pieces:
                    match piece:
                        case Routed() if index not in opened:
                            opened.add(index)
                            await out.data({**base, "choices": [shape.opening(index)]})
                        case TextDelta() | ToolCallDelta():
                            await out.data({**base, "choices": [shape.piece(index, piece)]})
                        case ModelReply():
                            usages.append(piece.usage)
                            await out.data({**base, "choices": [shape.ending(index, piece)]})
                if body.stream_options and body.stream_options.include_usage:
                    await out.data({**base, "choices": [], "usage": _usage(usages)})
                await out.done()
            except AstromeshError as failure:
                await out.data(errors.openai_error(failure)[1])
            return await out.end()
    finally:
        if not first.done():
            # Who asks for the pieces has to let go of them before they can be closed.
            first.cancel()
            await asyncio.wait([first])


async def _first(pieces: Pieces) -> tuple[int, Routed | ModelEvent]:
    return await anext(pieces)


class Chat:
    prefix = "chatcmpl"
    whole_object = "chat.completion"
    chunk_object = "chat.completion.chunk"

    def choice(self, index: int, reply: ModelReply) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": reply.text}
        if reply.tool_calls:
            message["content"] = reply.text or None
            message["tool_calls"] = [
                {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
                for call in reply.tool_calls
            ]
        return {"index": index, "message": message, "logprobs": _logprobs(reply.logprobs), "finish_reason": reply.finish_reason}

    def opening(self, index: int) -> dict[str, Any]:
        return self._chunk(index, {"role": "assistant", "content": ""})

    def piece(self, index: int, event: TextDelta | ToolCallDelta) -> dict[str, Any]:
        if isinstance(event, ToolCallDelta):
            return self._chunk(index, {"tool_calls": [_tool_call_delta(event)]})
        return self._chunk(index, {"content": event.text}, logprobs=_logprobs(event.logprobs))

    def ending(self, index: int, reply: ModelReply) -> dict[str, Any]:
        return self._chunk(index, {}, finish_reason=reply.finish_reason)

    def _chunk(
        self, index: int, delta: dict[str, Any], *, logprobs: dict[str, Any] | None = None, finish_reason: str | None = None
    ) -> dict[str, Any]:
        return {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}


class Text:
    """The older kind. `echoed` is what each choice begins with."""

    prefix = "cmpl"
    whole_object = "text_completion"
    chunk_object = "text_completion"

    def __init__(self, echoed: Sequence[str]) -> None:
        self._echoed = echoed
        self._offsets = [len(text) for text in echoed]

    def choice(self, index: int, reply: ModelReply) -> dict[str, Any]:
        return self._chunk(index, self._echoed[index] + reply.text, reply.logprobs, finish_reason=reply.finish_reason)

    def opening(self, index: int) -> dict[str, Any]:
        return self._chunk(index, self._echoed[index])

    def piece(self, index: int, event: TextDelta | ToolCallDelta) -> dict[str, Any]:
        return self._chunk(index, event.text, event.logprobs) if isinstance(event, TextDelta) else self._chunk(index, "")

    def ending(self, index: int, reply: ModelReply) -> dict[str, Any]:
        return self._chunk(index, "", finish_reason=reply.finish_reason)

    def _chunk(self, index: int, text: str, logprobs: tuple[TokenLogprob, ...] = (), *, finish_reason: str | None = None) -> dict[str, Any]:
        told: dict[str, Any] | None = None
        if logprobs:
            told = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
            for one in logprobs:
                told["tokens"].append(one.text)
                told["token_logprobs"].append(_finite(one.logprob))
                told["top_logprobs"].append({other.text: _finite(other.logprob) for other in one.top})
                told["text_offset"].append(self._offsets[index])
                self._offsets[index] += len(one.text)
        return {"index": index, "text": text, "logprobs": told, "finish_reason": finish_reason}


def _logprobs(logprobs: tuple[TokenLogprob, ...]) -> dict[str, Any] | None:
    return {"content": [{**_chance(one), "top_logprobs": [_chance(other) for other in one.top]} for one in logprobs]} if logprobs else None


def _chance(one: TokenLogprob) -> dict[str, Any]:
    return {"token": one.text, "logprob": _finite(one.logprob), "bytes": list(one.piece)}


def _finite(logprob: float) -> float:
    return max(logprob, LOGPROB_MIN)


def route_headers(routed: Routed | None, house: House) -> dict[str, str]:
    assert routed is not None, "a completion begins with who does it"
    return {
        "X-Astromesh-Node": routed.node,
        "X-Astromesh-Home": routed.home if isinstance(routed, Conducted) else house.node,
        "X-Astromesh-Route": routed.kind,
        "X-Astromesh-Attempts": str(routed.attempt),
    }


def _tool_call_delta(piece: ToolCallDelta) -> dict[str, Any]:
    function: dict[str, Any] = {"arguments": piece.arguments}
    if piece.name:
        function["name"] = piece.name
    delta: dict[str, Any] = {"index": piece.index, "function": function}
    if piece.id:
        delta |= {"id": piece.id, "type": "function"}
    return delta


def _usage(usages: Sequence[Usage]) -> dict[str, Any]:
    usage = together(usages)
    return {
        "prompt_tokens": usage.tokens_in,
        "completion_tokens": usage.tokens_out,
        "total_tokens": usage.tokens_in + usage.tokens_out,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }
