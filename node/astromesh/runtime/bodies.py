"""Values of ours as the bodies of link calls, and back: the only mapping to the wire.

A reader ignores keys that it does not know and fills in those that it misses: nodes of other versions live in the same mesh. A body that
cannot be read at all is the other node's fault and becomes an error, never a guess.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from astromesh import errors
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
    Usage,
)
from astromesh.errors import AstromeshError, MalformedBody
from astromesh.runtime.events import RunRequest

Body = Mapping[str, Any]


def from_request(request: ModelRequest) -> dict[str, Any]:
    return {
        "model": request.model,
        "transcript": [_from_message(message) for message in request.transcript],
        "tools": [{"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)} for tool in request.tools],
        "tool_choice": request.tool_choice,
        "sampling": {key: value for key, value in asdict(request.sampling).items() if value not in (None, ())},
        "response_format": request.response_format,
        "stream": request.stream,
    }


def to_request(body: Body) -> ModelRequest:
    with _Reading("a model request"):
        return ModelRequest(
            model=str(body["model"]),
            transcript=tuple(_to_message(message) for message in body["transcript"]),
            tools=tuple(
                ToolSchema(str(tool["name"]), str(tool["description"]), dict(tool["parameters"])) for tool in body.get("tools", ())
            ),
            tool_choice=body.get("tool_choice"),
            sampling=_to_sampling(body.get("sampling", {})),
            response_format=body.get("response_format"),
            stream=bool(body.get("stream", True)),
        )


def from_run_request(request: RunRequest) -> dict[str, Any]:
    return {
        "agent": request.agent,
        "query": request.query,
        "session_id": request.session_id,
        "context": dict(request.context),
        "watched": request.watched,
        "history": None if request.history is None else [_from_message(message) for message in request.history],
    }


def to_run_request(body: Body) -> RunRequest:
    with _Reading("a run"):
        history = body.get("history")
        return RunRequest(
            agent=str(body["agent"]),
            query=str(body["query"]),
            session_id=None if body.get("session_id") is None else str(body["session_id"]),
            context=dict(body.get("context", {})),
            watched=bool(body.get("watched", True)),
            history=None if history is None else tuple(_to_message(message) for message in history),
        )


def from_event(event: ModelEvent) -> dict[str, Any]:
    match event:
        case TextDelta(text):
            return {"t": text}
        case ToolCallDelta():
            return {"call": [event.index, event.id, event.name, event.arguments]}
        case ModelReply():
            return {
                "reply": {
                    "text": event.text,
                    "tool_calls": [[call.id, call.name, call.arguments] for call in event.tool_calls],
                    "finish_reason": event.finish_reason,
                    "usage": [event.usage.tokens_in, event.usage.tokens_out, event.usage.cached_tokens],
                    "model": event.model,
                    "timings": dict(event.timings),
                }
            }


def to_event(body: Body) -> ModelEvent:
    with _Reading("a piece of a completion"):
        if (text := body.get("t")) is not None:
            return TextDelta(str(text))
        if (call := body.get("call")) is not None:
            index, id, name, arguments = call  # noqa: A001
            return ToolCallDelta(int(index), str(id), str(name), str(arguments))
        reply = body["reply"]
        tokens_in, tokens_out, cached = reply["usage"]
        return ModelReply(
            text=str(reply["text"]),
            tool_calls=tuple(ToolCall(str(id), str(name), str(arguments)) for id, name, arguments in reply["tool_calls"]),  # noqa: A001
            finish_reason=reply["finish_reason"],
            usage=Usage(int(tokens_in), int(tokens_out), int(cached)),
            model=str(reply["model"]),
            timings={str(key): float(value) for key, value in reply.get("timings", {}).items()},
        )


def from_error(error: AstromeshError) -> dict[str, Any]:
    """The error as the other node may see it. `kind` is its class, by name; a class that the reader does not know becomes the root."""
    body: dict[str, Any] = {
        "kind": type(error).__name__,
        "code": error.code,
        "message": error.message,
        "hint": error.hint,
        "definite": error.definite,
    }
    for detail in ("retry_after_s", "param", "details"):
        if (value := getattr(error, detail, None)) is not None:
            body[detail] = value
    return body


def to_error(body: Body) -> AstromeshError:
    kind = _KINDS.get(str(body.get("kind")), AstromeshError)
    wanted = inspect.signature(kind.__init__).parameters
    given = {key: body[key] for key in ("code", "hint", "definite", "retry_after_s", "param", "details") if key in wanted and key in body}
    return kind(str(body.get("message", "the other node gave no reason")), **given)


_KINDS: Mapping[str, Callable[..., AstromeshError]] = {
    name: kind for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, AstromeshError)
}


def _from_message(message: Message) -> dict[str, Any]:
    body: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        body["tool_calls"] = [[call.id, call.name, call.arguments] for call in message.tool_calls]
    if message.tool_call_id is not None:
        body["tool_call_id"] = message.tool_call_id
    return body


def _to_message(body: Body) -> Message:
    return Message(
        role=body["role"],
        content=str(body["content"]),
        tool_calls=tuple(ToolCall(str(id), str(name), str(arguments)) for id, name, arguments in body.get("tool_calls", ())),  # noqa: A001
        tool_call_id=body.get("tool_call_id"),
    )


def _to_sampling(body: Body) -> Sampling:
    known = {key: value for key, value in body.items() if key in Sampling.__dataclass_fields__}
    return Sampling(**{**known, "stop": tuple(known.get("stop", ()))})


class _Reading:
    """Turns whatever a malformed body makes Python raise into one error that says what was expected."""

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, mistake: BaseException | None, trace: object) -> None:
        if isinstance(mistake, (KeyError, TypeError, ValueError, AttributeError)):
            raise MalformedBody(
                f"the other node sent something that is not {self._what}", hint="do both nodes run the same version?"
            ) from mistake
