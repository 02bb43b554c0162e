"""What a local model can honour of a request, and the frame that tells its worker. Pure.

Whatever cannot be honoured is refused by name before it takes a place in the queue: a reply that ignored half of the question would be
worse than none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from astromesh.dialogue import Message, ModelRequest, Resume, ToolCall, ToolSchema, Transcript
from astromesh.errors import InvalidRequest
from astromesh.inference.grammar import json_grammar, object_grammar
from astromesh.inference.sampling import SamplingPlan, plan


def as_frame(request: ModelRequest, *, number: int) -> dict[str, Any]:
    """The request as its worker gets it. Raises `InvalidRequest`."""
    if not request.transcript and request.prompt is None:
        raise InvalidRequest("there are no messages", param="messages")
    tools = tools_open(request)
    return {
        "kind": "complete",
        "number": number,
        "prompt": request.prompt,
        "transcript": [_message(message) for message in request.transcript],
        "tools": [{"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)} for tool in tools],
        "forced": _forced(request.tool_choice, tools),
        "grammar": grammar_of(request),
        "sampling": asdict(plan(request.sampling)),
        "resume": None if request.resume is None else asdict(request.resume),
    }


def tools_open(request: ModelRequest) -> tuple[ToolSchema, ...]:
    """Those that may be called."""
    return () if request.tool_choice == "none" else request.tools


def grammar_of(request: ModelRequest) -> str | None:
    """What the answer is to obey, with any engine; said in OpenAI's words for it. Raises `InvalidRequest`."""
    grammar = _grammar(request.response_format or {})
    if grammar is not None and tools_open(request):
        raise InvalidRequest(
            "an answer cannot be held to a response_format and be free to call tools, with a model of this mesh",
            hint="leave one of them out, or send tool_choice: none",
            param="response_format",
        )
    return grammar


def _grammar(wish: Mapping[str, Any]) -> str | None:
    match wish.get("type", "text"):
        case "text":
            return None
        case "json_object":
            return object_grammar()
        case "json_schema":
            described = wish.get("json_schema")
            if not isinstance(described, Mapping) or not isinstance(described.get("schema"), Mapping):
                raise InvalidRequest(
                    "response_format of type json_schema needs json_schema.schema",
                    hint='send {"type": "json_schema", "json_schema": {"name": …, "schema": {…}}}',
                    param="response_format",
                )
            return json_grammar(described["schema"], param="response_format", strict=described.get("strict") is True)
        case kind:
            raise InvalidRequest(
                f"response_format {kind!r} is not possible with a model of this mesh",
                hint="text, json_object and json_schema are",
                param="response_format",
            )


def _forced(choice: str | Mapping[str, Any] | None, tools: Sequence[ToolSchema]) -> list[str]:
    """The names of the tools of which one must be called; none where the model may answer in words."""
    match choice:
        case None | "auto" | "none":
            return []
        case "required":
            wanted = [tool.name for tool in tools]
        case {"type": "function", "function": {"name": str(name)}}:
            wanted = [tool.name for tool in tools if tool.name == name]
        case _:
            raise InvalidRequest(
                'tool_choice may be \'none\', \'auto\', \'required\' or {"type": "function", "function": {"name": …}}', param="tool_choice"
            )
    if not wanted:
        raise InvalidRequest("tool_choice asks for a tool that is not among tools", hint="send it in tools, too", param="tool_choice")
    return wanted


def _message(message: Message) -> dict[str, Any]:
    return {
        "role": message.role,
        "content": message.content,
        "tool_calls": [[call.id, call.name, call.arguments] for call in message.tool_calls],
        "tool_call_id": message.tool_call_id,
    }


def transcript_of(frame: Mapping[str, Any]) -> Transcript:
    return tuple(
        Message(
            message["role"],
            message["content"],
            tuple(ToolCall(identifier, name, arguments) for identifier, name, arguments in message["tool_calls"]),
            message["tool_call_id"],
        )
        for message in frame["transcript"]
    )


def tools_of(frame: Mapping[str, Any]) -> tuple[ToolSchema, ...]:
    return tuple(ToolSchema(tool["name"], tool["description"], tool["parameters"]) for tool in frame["tools"])


def resume_of(frame: Mapping[str, Any]) -> Resume | None:
    values = frame["resume"]
    return None if values is None else Resume(values["identity"], tuple(values["tokens"]), tuple(values["borders"]))


def sampling_of(frame: Mapping[str, Any]) -> SamplingPlan:
    values = dict(frame["sampling"])
    biases = tuple((token, bias) for token, bias in values["logit_bias"])
    return SamplingPlan(**(values | {"stop": tuple(values["stop"]), "logit_bias": biases}))
