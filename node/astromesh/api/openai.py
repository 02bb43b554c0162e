"""OpenAI's doors: completions and models, such that their own clients work unchanged.

Unknown keys are accepted and named in `X-Astromesh-Ignored`; a known key that cannot be honoured is refused by name. The client's messages
are the whole history, unless `X-Astromesh-Session` names a conversation of ours. `model: "agent:NAME"` asks an agent.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from aiohttp import web

from astromesh.api.bodies import read
from astromesh.api.choices import CHOICES_MAX, merged
from astromesh.api.house import HOUSE, House
from astromesh.api.model_list import known_models
from astromesh.api.openai_answers import Chat, Conducted, Text, answer
from astromesh.api.openai_bodies import ChatBody, CompletionBody, MessageBody, idle_for_agents, ignored, in_a_header
from astromesh.api.replies import REQUEST_ID, reply
from astromesh.dialogue import (
    Message,
    ModelEvent,
    ModelReply,
    ModelRequest,
    TextDelta,
    ToolCall,
    ToolCallDelta,
    ToolSchema,
    Transcript,
    Usage,
)
from astromesh.errors import Draining, InvalidRequest
from astromesh.runtime.events import SESSION_ID_CHARACTERS_MAX, RunRequest
from astromesh.runtime.models import Routed

COMPLETION_TIMEOUT_S = 600.0  # as long as OpenAI's own clients wait by default
AGENT_PREFIX = "agent:"
SESSION = "X-Astromesh-Session"

# An agent has its own.
_NOT_FOR_AGENTS = ("tools", "tool_choice", "response_format", "n", "logprobs", "top_logprobs", "logit_bias")
_ASKS_NOTHING: Mapping[str, tuple[Any, ...]] = {"tools": ([],), "response_format": ({"type": "text"},), "n": (1,), "logit_bias": ({},)}


async def chat(request: web.Request) -> web.StreamResponse:
    house = _open_house(request)
    body = await read(request, ChatBody)
    idle = ignored(body)
    if body.model.startswith(AGENT_PREFIX):
        idle = sorted([*idle, *idle_for_agents(body)])
        streams = [_agent_stream(request, body)]
    else:
        if SESSION in request.headers:
            raise InvalidRequest(
                f"{SESSION} names a conversation with an agent, and {body.model} is a model",
                hint='ask "agent:NAME", or send the whole conversation as messages',
                param=SESSION,
            )
        asked = ModelRequest(
            model=body.model,
            transcript=_transcript(body.messages),
            tools=tuple(ToolSchema(tool.function.name, tool.function.description, tool.function.parameters) for tool in body.tools or ()),
            tool_choice=body.tool_choice,
            sampling=body.sampling(),
            response_format=None if body.response_format == {"type": "text"} else body.response_format,
            stream=body.stream,
        )
        streams = _asked(house, [asked], body.n or 1)
        if body.parallel_tool_calls is False:
            streams = [_of_one_call(stream) for stream in streams]
    async with aclosing(merged(streams)) as pieces:
        return await answer(request, body, pieces, Chat(), in_a_header(idle))


async def completions(request: web.Request) -> web.StreamResponse:
    house = _open_house(request)
    body = await read(request, CompletionBody)
    headers = in_a_header(ignored(body))
    if body.model.startswith(AGENT_PREFIX):
        raise InvalidRequest("an agent is asked in messages, not by a prompt", hint="POST /v1/chat/completions", param="model")
    if body.echo and body.logprobs is not None:
        raise InvalidRequest("logprobs of an echoed prompt cannot be honoured by this node", hint="leave one of them out", param="echo")
    prompts = [body.prompt] if isinstance(body.prompt, str) else body.prompt
    count = body.n or 1
    if not 0 < len(prompts) * count <= CHOICES_MAX:
        raise InvalidRequest(
            f"{len(prompts)} prompts with {count} answers each, and 1 to {CHOICES_MAX} answers are possible",
            hint="send them in several requests",
            param="prompt",
        )
    asked = [ModelRequest(body.model, (), sampling=body.sampling(), stream=body.stream, prompt=prompt) for prompt in prompts]
    echoed = [prompt if body.echo else "" for prompt in prompts for _ in range(count)]
    async with aclosing(merged(_asked(house, asked, count))) as pieces:
        return await answer(request, body, pieces, Text(echoed), headers)


async def models(request: web.Request) -> web.Response:
    return reply({"object": "list", "data": list(known_models(request.app[HOUSE]).values())})


def _open_house(request: web.Request) -> House:
    house = request.app[HOUSE]
    if house.draining:
        raise Draining(f"{house.node} is shutting down", hint="ask another node of the mesh")
    return house


Stream = AsyncGenerator[Routed | ModelEvent, None]


def _asked(house: House, requests: Sequence[ModelRequest], count: int) -> list[Stream]:
    """Each request `count` times. Only the seeds differ, so a model reads the prompt that they share once."""
    streams = []
    for request in requests:
        for number in range(count):
            seed = None if request.sampling.seed is None else request.sampling.seed + number
            one = replace(request, sampling=replace(request.sampling, seed=seed))
            streams.append(house.models.complete(one, timeout_s=COMPLETION_TIMEOUT_S))
    return streams


async def _of_one_call(stream: Stream) -> Stream:
    """Without the calls of tools behind the first one: whoever makes them, no server and no template has to know of this wish."""
    async with aclosing(stream):
        async for piece in stream:
            match piece:
                case ToolCallDelta() if piece.index:
                    continue
                case ModelReply():
                    yield replace(piece, tool_calls=piece.tool_calls[:1])
                case _:
                    yield piece


async def _agent_stream(request: web.Request, body: ChatBody) -> Stream:
    """An agent's run in the shape of a completion."""
    given = [key for key in _NOT_FOR_AGENTS if getattr(body, key) not in (*_ASKS_NOTHING.get(key, ()), None, False)]
    if given:
        raise InvalidRequest(f"{given[0]} cannot be given to an agent: it has its own", hint="leave it out, or ask a model", param=given[0])
    transcript = _transcript(body.messages)
    if transcript[-1].role != "user":
        raise InvalidRequest("the last message to an agent must be the user's", hint="end messages with role user", param="messages")
    session_id = request.headers.get(SESSION)
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
        async for piece in _run_as_pieces(run.events):
            yield piece
    finally:
        await run.close()


async def _run_as_pieces(events: AsyncIterator[Any]) -> AsyncGenerator[Routed | ModelEvent, None]:
    async for event in events:
        match event.kind:
            case "route":
                yield _conducted(event.data)
            case "token":
                yield TextDelta(event.data["content"])
            case "done":
                yield _conducted(event.data)
                usage = event.data["usage"]
                yield ModelReply(
                    event.data["answer"],
                    finish_reason=event.data["finish_reason"],
                    usage=Usage(usage["tokens_in"], usage["tokens_out"]),
                    model=usage["model"],
                )


def _conducted(data: Mapping[str, Any]) -> Conducted:
    """`data` of a `route` or of `done`."""
    return Conducted(data["node"], data["route"], data["attempts"], home=data["home"])


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
