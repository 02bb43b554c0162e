"""A request in the words of llama.cpp's server. Pure.

What the server would take and not do is refused here: it does not hold a model to a call, and has no way back into an answer. What an
answer is to obey goes along as our own grammar: from a schema the server would make another one, and from what is none it would make
nothing, without a word.
"""

from __future__ import annotations

from typing import Any

from astromesh.dialogue import Message, ModelRequest
from astromesh.errors import InvalidRequest
from astromesh.inference.request import grammar_of, tools_open
from astromesh.inference.sampling import plan

_BETTER = "pip install 'astromesh-node[local]' compiles an engine that can"


def as_body(request: ModelRequest) -> dict[str, Any]:
    """Raises `InvalidRequest` that names what this engine cannot honour."""
    if not request.transcript and request.prompt is None:
        raise InvalidRequest("there are no messages", param="messages")
    if request.resume is not None:
        raise InvalidRequest("the prebuilt engine cannot go on with an answer that broke off", hint=_BETTER, param="resume")
    if request.tool_choice not in (None, "auto", "none"):
        raise InvalidRequest("the prebuilt engine cannot hold a model to calling a tool", hint=_BETTER, param="tool_choice")
    sampling = plan(request.sampling)
    body: dict[str, Any] = {
        "stream": True,
        "stream_options": {"include_usage": True},
        "return_progress": True,
        "temperature": sampling.temperature,
        "top_k": sampling.top_k,
        "top_p": sampling.top_p,
        "min_p": sampling.min_p,
        "repeat_penalty": sampling.repeat_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "presence_penalty": sampling.presence_penalty,
        "seed": -1 if sampling.seed is None else sampling.seed,
        "max_tokens": -1 if sampling.max_tokens is None else sampling.max_tokens,
        "stop": list(sampling.stop),
        "logit_bias": [list(pair) for pair in sampling.logit_bias],
    }
    if request.prompt is not None:
        if sampling.logprobs is not None:
            raise InvalidRequest("the prebuilt engine tells no log-probabilities of a plain text", hint=_BETTER, param="logprobs")
        return {**body, "prompt": request.prompt}
    if sampling.logprobs is not None:
        body |= {"logprobs": True, "top_logprobs": max(1, sampling.logprobs)}
    if (grammar := grammar_of(request)) is not None:
        body["grammar"] = grammar
    if tools := tools_open(request):
        body["tools"] = [
            {"type": "function", "function": {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)}}
            for tool in tools
        ]
    return {**body, "messages": [_message(message) for message in request.transcript]}


def _message(message: Message) -> dict[str, Any]:
    body: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        body["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}} for call in message.tool_calls
        ]
    if message.tool_call_id is not None:
        body["tool_call_id"] = message.tool_call_id
    return body
