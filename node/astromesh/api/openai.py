"""OpenAI's doors: chat completions and models, such that their own clients work unchanged.

Unknown keys are accepted and named in `X-Astromesh-Ignored`; a known key that cannot be honoured is refused by name. The client's messages
are the whole history, unless `X-Astromesh-Session` names a conversation of ours. `model: "agent:NAME"` asks an agent.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from time import time
from typing import Any, Literal

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from astromesh.api import errors
from astromesh.api.bodies import read
from astromesh.api.event_stream import EventStream
from astromesh.api.house import HOUSE, House
from astromesh.api.model_list import known_models
from astromesh.api.replies import REQUEST_ID, reply
from astromesh.dialogue import (
    Message,
    ModelEvent,
    ModelReply,
    ModelRequest,
    Sampling,
    TextDelta,
    ToolCall,
    ToolCallDelta,
    ToolSchema,
    Transcript,
    Usage,
)
from astromesh.errors import AstromeshError, Draining, InvalidRequest, UnknownModel
from astromesh.runtime.events import SESSION_ID_CHARACTERS_MAX, RunRequest
from astromesh.runtime.models import Routed

COMPLETION_TIMEOUT_S = 600.0  # as long as OpenAI's own clients wait by default
AGENT_PREFIX = "agent:"
STOPS_MAX = 16
KEYS_NAMED_MAX = 16  # in X-Astromesh-Ignored: clients commonly read headers of some thousand bytes
KEY_CHARACTERS_NAMED = 40

# Keys of OpenAI's that change what the answer must be, and that this node cannot honour yet: silence would be a lie.
_NOT_HONOURED = ("audio", "function_call", "functions", "logit_bias", "modalities", "prediction", "top_logprobs", "web_search_options")
_EMPTY: tuple[object, ...] = (None, [], {}, "")


class Open(BaseModel):
    """Takes keys that it does not know, so that they can be named."""

    model_config = ConfigDict(extra="allow")


class FunctionBody(BaseModel):
    name: str
    arguments: str = "{}"


class ToolCallBody(BaseModel):
    id: str
    type: Literal["function"] = "function"
    function: FunctionBody


class TextPart(BaseModel):
    type: str
    text: str | None = None


class MessageBody(Open):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[TextPart] | None = None
    tool_calls: list[ToolCallBody] | None = None
    tool_call_id: str | None = None


class FunctionSchema(Open):
    name: str
    description: str = ""
    parameters: dict[str, Any] = Field(default_factory=lambda: {"type": "object", "properties": {}})


class ToolBody(Open):
    type: Literal["function"]
    function: FunctionSchema


class StreamOptions(Open):
    include_usage: bool = False


class ChatBody(Open):
    """OpenAI's chat completion request."""

    model: str = Field(min_length=1, description="A model of the mesh, or agent:NAME.")
    messages: list[MessageBody] = Field(min_length=1, max_length=4096)
    stream: bool = False
    stream_options: StreamOptions | None = None
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=0)
    min_p: float | None = Field(None, ge=0, le=1)
    seed: int | None = None
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    repeat_penalty: float | None = Field(None, gt=0, le=10)
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    stop: str | list[str] | None = None
    tools: list[ToolBody] | None = Field(None, max_length=128)
    tool_choice: str | dict[str, Any] | None = None
    response_format: dict[str, Any] | None = None
    n: int | None = Field(None, ge=1)
    logprobs: bool | None = None


async def chat(request: web.Request) -> web.StreamResponse:
    house = request.app[HOUSE]
    if house.draining:
        raise Draining(f"{house.node} is shutting down", hint="ask another node of the mesh")
    body = await read(request, ChatBody)
    ignored = _ignored(body)
    headers = {"X-Astromesh-Ignored": _in_a_header(ignored)} if ignored else {}
    open_stream = _agent_stream if body.model.startswith(AGENT_PREFIX) else _model_stream
    async with open_stream(request, body) as stream:
        if body.stream:
            return await _streamed(request, body, stream, headers)
        return await _whole(request, body, stream, headers)


async def models(request: web.Request) -> web.Response:
    return reply({"object": "list", "data": list(known_models(request.app[HOUSE]).values())})


async def model(request: web.Request) -> web.Response:
    name = request.match_info["name"]
    found = known_models(request.app[HOUSE]).get(name)
    if found is None:
        raise UnknownModel(f"no node of this mesh offers a model named {name!r}", hint="GET /v1/models lists them")
    return reply(found)


Pieces = AsyncIterator[Routed | ModelEvent]


@asynccontextmanager
async def _model_stream(request: web.Request, body: ChatBody) -> AsyncGenerator[Pieces, None]:
    asked = ModelRequest(
        model=body.model,
        transcript=_transcript(body.messages),
        tools=tuple(ToolSchema(tool.function.name, tool.function.description, tool.function.parameters) for tool in body.tools or ()),
        tool_choice=body.tool_choice,
        sampling=_sampling(body),
        response_format=None if body.response_format == {"type": "text"} else body.response_format,
        stream=body.stream,
    )
    async with aclosing(request.app[HOUSE].models.complete(asked, timeout_s=COMPLETION_TIMEOUT_S)) as stream:
        yield stream


@asynccontextmanager
async def _agent_stream(request: web.Request, body: ChatBody) -> AsyncGenerator[Pieces, None]:
    """An agent's run in the shape of a completion."""
    given = [key for key in ("tools", "tool_choice", "response_format") if getattr(body, key) is not None]
    if given:
        raise InvalidRequest(f"{given[0]} cannot be given to an agent: it has its own", hint="leave it out, or ask a model", param=given[0])
    transcript = _transcript(body.messages)
    if transcript[-1].role != "user":
        raise InvalidRequest("the last message to an agent must be the user's", hint="end messages with role user", param="messages")
    session_id = request.headers.get("X-Astromesh-Session")
    if session_id is not None and not 0 < len(session_id) <= SESSION_ID_CHARACTERS_MAX:
        raise InvalidRequest(
            f"X-Astromesh-Session must have 1 to {SESSION_ID_CHARACTERS_MAX} characters",
            hint="use the session_id of an earlier answer",
            param="X-Astromesh-Session",
        )
    if session_id is not None and len(transcript) > 1:
        raise InvalidRequest(
            "X-Astromesh-Session names the history, so the messages may hold the new one only",
            hint="send one user message",
            param="messages",
        )
    house = request.app[HOUSE]
    asked = RunRequest(
        body.model.removeprefix(AGENT_PREFIX),
        transcript[-1].content,
        session_id=session_id,
        context={},
        watched=body.stream,
        history=None if session_id is not None else transcript[:-1],
    )
    run = house.runtime.start(asked, request_id=request[REQUEST_ID])
    try:
        yield _run_as_pieces(run.events)
    finally:
        await run.close()


async def _run_as_pieces(events: AsyncIterator[Any]) -> AsyncGenerator[Routed | ModelEvent, None]:
    async for event in events:
        match event.kind:
            case "route":
                yield Routed(event.data["node"], event.data["route"], event.data["attempts"])
            case "token":
                yield TextDelta(event.data["content"])
            case "done":
                usage = event.data["usage"]
                yield ModelReply(
                    event.data["answer"],
                    finish_reason=event.data["finish_reason"],
                    usage=Usage(usage["tokens_in"], usage["tokens_out"]),
                    model=usage["model"],
                )


async def _whole(request: web.Request, body: ChatBody, stream: Pieces, headers: Mapping[str, str]) -> web.Response:
    routed: Routed | None = None
    async for piece in stream:
        match piece:
            case Routed():
                routed = piece
            case ModelReply():
                message: dict[str, Any] = {"role": "assistant", "content": piece.text}
                if piece.tool_calls:
                    message["content"] = piece.text or None
                    message["tool_calls"] = [
                        {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
                        for call in piece.tool_calls
                    ]
                answer = {
                    "id": f"chatcmpl-{request[REQUEST_ID]}",
                    "object": "chat.completion",
                    "created": int(time()),
                    "model": body.model,
                    "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": piece.finish_reason}],
                    "usage": _usage(piece.usage),
                }
                if piece.timings:
                    answer["timings"] = dict(piece.timings)
                return reply(answer, headers={**headers, **_route_headers(routed, request.app[HOUSE])})
    raise AstromeshError("the completion ended without a reply")


async def _streamed(request: web.Request, body: ChatBody, stream: Pieces, headers: Mapping[str, str]) -> web.StreamResponse:
    base = {"id": f"chatcmpl-{request[REQUEST_ID]}", "object": "chat.completion.chunk", "created": int(time()), "model": body.model}

    def chunk(delta: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
        return {**base, "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}]}

    # The first piece says who does it; what fails before has a status of its own.
    routed = await anext(stream)
    assert isinstance(routed, Routed), "a completion begins with who does it"
    async with EventStream(request, {**headers, **_route_headers(routed, request.app[HOUSE])}) as out:
        await out.data(chunk({"role": "assistant", "content": ""}))
        try:
            async for piece in stream:
                match piece:
                    case TextDelta(text):
                        await out.data(chunk({"content": text}))
                    case ToolCallDelta():
                        await out.data(chunk({"tool_calls": [_tool_call_delta(piece)]}))
                    case ModelReply():
                        await out.data(chunk({}, piece.finish_reason))
                        if body.stream_options and body.stream_options.include_usage:
                            await out.data({**base, "choices": [], "usage": _usage(piece.usage)})
            await out.done()
        except AstromeshError as failure:
            await out.data(errors.openai_error(failure)[1])
        return await out.end()


def _route_headers(routed: Routed | None, house: House) -> dict[str, str]:
    assert routed is not None, "a completion begins with who does it"
    return {
        "X-Astromesh-Node": routed.node,
        "X-Astromesh-Home": house.node,
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


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.tokens_in,
        "completion_tokens": usage.tokens_out,
        "total_tokens": usage.tokens_in + usage.tokens_out,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }


def _ignored(body: ChatBody) -> list[str]:
    """The keys that were accepted and do nothing. Raises `InvalidRequest` for those whose silence would be a lie."""
    extra = body.model_extra or {}
    for key in _NOT_HONOURED:
        if extra.get(key) is not None:
            raise InvalidRequest(f"{key} cannot be honoured by this node", hint=f"leave {key} out", param=key)
    if body.n is not None and body.n != 1:
        raise InvalidRequest("n must be 1: this node makes one choice a request", hint="send the request n times", param="n")
    if body.logprobs:
        raise InvalidRequest("logprobs cannot be honoured by this node", hint="leave logprobs out", param="logprobs")
    parts: list[tuple[str, Open | None]] = [("", body), ("stream_options.", body.stream_options)]
    parts += [("messages.", message) for message in body.messages]
    for tool in body.tools or ():
        parts += [("tools.", tool), ("tools.function.", tool.function)]
    # What is empty says nothing, and clients send it along with their own model's earlier answers.
    return sorted(
        {f"{where}{key}" for where, part in parts if part for key, value in (part.model_extra or {}).items() if value not in _EMPTY}
    )


def _in_a_header(keys: list[str]) -> str:
    """The keys are the client's own words: they are made fit for a header, and are as many as one may hold."""
    named = ", ".join(ascii(key)[1:-1][:KEY_CHARACTERS_NAMED] for key in keys[:KEYS_NAMED_MAX])
    return named if len(keys) <= KEYS_NAMED_MAX else f"{named} and {len(keys) - KEYS_NAMED_MAX} more"


def _transcript(messages: list[MessageBody]) -> Transcript:
    return tuple(_message(message, index) for index, message in enumerate(messages))


def _message(message: MessageBody, index: int) -> Message:
    if isinstance(message.content, list):
        for part in message.content:
            if part.type != "text":
                raise InvalidRequest(
                    f"messages.{index}.content: parts of type {part.type} cannot be honoured by this node",
                    hint="send text parts",
                    param="messages",
                )
        content = "".join(part.text or "" for part in message.content)
    else:
        content = message.content or ""
    calls = tuple(ToolCall(call.id, call.function.name, call.function.arguments) for call in message.tool_calls or ())
    if message.role == "tool" and message.tool_call_id is None:
        raise InvalidRequest(
            f"messages.{index}: a tool's message needs tool_call_id", hint="name the call that it answers", param="messages"
        )
    return Message("system" if message.role == "developer" else message.role, content, calls, message.tool_call_id)


def _sampling(body: ChatBody) -> Sampling:
    stop = (body.stop,) if isinstance(body.stop, str) else tuple(body.stop or ())
    if len(stop) > STOPS_MAX:
        raise InvalidRequest(f"more than {STOPS_MAX} stop strings", hint="send fewer", param="stop")
    return Sampling(
        temperature=body.temperature,
        top_p=body.top_p,
        top_k=body.top_k,
        min_p=body.min_p,
        seed=body.seed,
        presence_penalty=body.presence_penalty,
        frequency_penalty=body.frequency_penalty,
        repeat_penalty=body.repeat_penalty,
        max_tokens=body.max_completion_tokens if body.max_completion_tokens is not None else body.max_tokens,
        stop=stop,
    )
