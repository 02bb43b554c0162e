"""Values of ours as the bodies of link calls, and back: the only mapping to the wire.

A reader ignores keys that it does not know and fills in those that it misses: nodes of other versions live in the same mesh. A body that
cannot be read at all is the other node's fault and becomes an error, never a guess.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, NoReturn, cast, get_args

from astromesh import errors
from astromesh.dialogue import (
    AnswerBegan,
    EncodingRequest,
    Encodings,
    EncodingTask,
    FinishReason,
    Message,
    ModelEvent,
    ModelReply,
    ModelRequest,
    Resume,
    Role,
    Sampling,
    TextDelta,
    TokenLogprob,
    ToolCall,
    ToolCallDelta,
    ToolSchema,
    Usage,
    Vectors,
)
from astromesh.errors import AstromeshError, MalformedBody, ModelFailureCode
from astromesh.memory.port import TURNS_KEPT_MAX, History, Summary, Turn
from astromesh.runtime.agent import AgentChange, Changed, ChangeVerb
from astromesh.runtime.events import RunEvent, RunRequest

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
        "resume": None if request.resume is None else [request.resume.identity, list(request.resume.tokens), list(request.resume.borders)],
        "prompt": request.prompt,
    }


def to_request(body: Body) -> ModelRequest:
    with _Reading("a model request"):
        tool_choice, response_format = body.get("tool_choice"), body.get("response_format")
        return ModelRequest(
            model=_text(body["model"]),
            transcript=tuple(_to_message(message) for message in body["transcript"]),
            tools=tuple(
                ToolSchema(_text(tool["name"]), _text(tool["description"]), _object(tool["parameters"])) for tool in body.get("tools", ())
            ),
            tool_choice=tool_choice if tool_choice is None or isinstance(tool_choice, str) else _object(tool_choice),
            sampling=_to_sampling(body.get("sampling", {})),
            response_format=None if response_format is None else _object(response_format),
            stream=bool(body.get("stream", True)),
            resume=_to_resume(body.get("resume")),
            prompt=_text_or_none(body.get("prompt")),
        )


def _to_resume(value: Any) -> Resume | None:
    if value is None:
        return None
    identity, tokens, borders, *_ = value
    return Resume(_text(identity), _numbers(tokens), _numbers(borders))


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
            agent=_text(body["agent"]),
            query=_text(body["query"]),
            session_id=_text_or_none(body.get("session_id")),
            context=_object(body.get("context", {})),
            watched=bool(body.get("watched", True)),
            history=None if history is None else tuple(_to_message(message) for message in history),
        )


def from_run_event(event: RunEvent) -> dict[str, Any]:
    return {"position": event.position, "kind": event.kind, "data": event.data}


def to_run_event(body: Body) -> RunEvent:
    with _Reading("an event of a run"):
        return RunEvent(_number(body["position"]), _text(body["kind"]), _object(body["data"]))


def to_history_request(body: Body) -> tuple[str, str, int, bool]:
    """The agent's key, the session, how many turns at most, and whether all of them are to be forgotten."""
    with _Reading("a question about a history"):
        turns_max = min(_number(body.get("turns_max", TURNS_KEPT_MAX)), TURNS_KEPT_MAX)
        return _text(body["agent"]), _text(body["session_id"]), turns_max, bool(body.get("forget", False))


def from_history(history: History) -> Iterator[dict[str, Any]]:
    """Turn by turn: all together may be larger than one body."""
    for turn in history.turns:
        yield {"id": turn.id, "at": turn.at, "said": [_from_message(message) for message in turn.said]}
    yield {"summary": None if history.summary is None else [history.summary.text, history.summary.through]}


def to_history(bodies: Sequence[Body]) -> History:
    with _Reading("a history"):
        *turns, last = bodies
        summary = last["summary"]
        return History(
            tuple(Turn(_text(turn["id"]), float(turn["at"]), tuple(_to_message(said) for said in turn["said"])) for turn in turns),
            None if summary is None else Summary(*map(_text, summary)),
        )


def from_agent_change(change: AgentChange) -> dict[str, Any]:
    document = None if change.document is None else dict(change.document)
    return {"verb": change.verb, "name": change.name, "namespace": change.namespace, "document": document, "trial": change.trial}


def to_agent_change(body: Body) -> AgentChange:
    with _Reading("a change of an agent"):
        document = body.get("document")
        return AgentChange(
            verb=cast("ChangeVerb", _one_of(get_args(ChangeVerb), body["verb"])),
            name=_text(body["name"]),
            namespace=_text(body["namespace"]),
            document=None if document is None else _object(document),
            trial=bool(body.get("trial", False)),
        )


def from_changed(changed: Changed) -> dict[str, Any]:
    return {"status": changed.status, "warnings": list(changed.warnings)}


def to_changed(body: Body) -> Changed:
    with _Reading("what became of an agent"):
        return Changed(_text(body["status"]), tuple(map(_text, body.get("warnings", ()))))


def to_document(body: Body) -> dict[str, Any]:
    with _Reading("a document"):
        return _object(body["document"])


def from_event(event: ModelEvent) -> dict[str, Any]:
    match event:
        case TextDelta():
            return {"t": event.text, **_from_tokens(event.tokens), **_from_logprobs(event.logprobs)}
        case AnswerBegan():
            return {"began": [event.identity, event.kernel, list(event.borders), event.seed]}
        case ToolCallDelta():
            return {"call": [event.index, event.id, event.name, event.arguments], **_from_tokens(event.tokens)}
        case ModelReply():
            return {
                "reply": {
                    "text": event.text,
                    "tool_calls": [[call.id, call.name, call.arguments] for call in event.tool_calls],
                    "finish_reason": event.finish_reason,
                    "usage": [event.usage.tokens_in, event.usage.tokens_out, event.usage.cached_tokens],
                    "model": event.model,
                    "timings": dict(event.timings),
                    **_from_logprobs(event.logprobs),
                }
            }


def to_event(body: Body) -> ModelEvent:
    with _Reading("a piece of a completion"):
        if (text := body.get("t")) is not None:
            return TextDelta(_text(text), _numbers(body.get("ids", [])), _to_logprobs(body.get("lp", [])))
        if (began := body.get("began")) is not None:
            identity, kernel, borders, seed, *_ = began
            return AnswerBegan(_text(identity), _text(kernel), _numbers(borders), _number(seed))
        if (call := body.get("call")) is not None:
            index, id, name, arguments = call  # noqa: A001
            return ToolCallDelta(_number(index), _text(id), _text(name), _text(arguments), _numbers(body.get("ids", [])))
        reply = body["reply"]
        tokens_in, tokens_out, cached, *_ = reply["usage"]
        return ModelReply(
            text=_text(reply["text"]),
            tool_calls=_to_calls(reply["tool_calls"]),
            finish_reason=cast("FinishReason", _one_of(get_args(FinishReason), reply["finish_reason"])),
            usage=Usage(_number(tokens_in), _number(tokens_out), _number(cached)),
            model=_text(reply["model"]),
            timings={_text(key): float(value) for key, value in _object(reply.get("timings", {})).items()},
            logprobs=_to_logprobs(reply.get("lp", [])),
        )


def _from_tokens(tokens: tuple[int, ...]) -> dict[str, Any]:
    return {"ids": list(tokens)} if tokens else {}


def _from_logprobs(logprobs: tuple[TokenLogprob, ...]) -> dict[str, Any]:
    return {"lp": [[one.piece, one.logprob, [[other.piece, other.logprob] for other in one.top]] for one in logprobs]} if logprobs else {}


def _to_logprobs(rows: Any) -> tuple[TokenLogprob, ...]:
    return tuple(
        TokenLogprob(_bytes(piece), float(logprob), tuple(TokenLogprob(_bytes(other), float(chance)) for other, chance in top))
        for piece, logprob, top in rows
    )


# One body of a reply may be 10 MiB on a link: a large answer goes in several.
ROWS_BYTES = 1 << 20


def from_encoding_request(request: EncodingRequest) -> dict[str, Any]:
    return {
        "model": request.model,
        "task": request.task,
        "texts": list(request.texts),
        "dimensions": request.dimensions,
        "query": request.query,
    }


def to_encoding_request(body: Body) -> EncodingRequest:
    with _Reading("a request for encodings"):
        dimensions = body.get("dimensions")
        texts = tuple(map(_text, body["texts"])) if isinstance(body["texts"], list) else _wrong("no list of texts")
        return EncodingRequest(
            _text(body["model"]),
            texts,
            None if dimensions is None else _number(dimensions),
            cast("EncodingTask", _one_of(get_args(EncodingTask), body["task"])),
            _text_or_none(body.get("query")),
        )


def from_encodings(made: Encodings) -> Iterator[dict[str, Any]]:
    """Rows, in bodies of a bounded size, and then what they are."""
    data = made.vectors.data
    for start in range(0, len(data), ROWS_BYTES):
        yield {"rows": data[start : start + ROWS_BYTES]}
    yield {
        "dimensions": made.vectors.dimensions,
        "usage": [made.usage.tokens_in, made.usage.tokens_out, made.usage.cached_tokens],
        "model": made.model,
        "truncated": list(made.truncated),
        "labels": list(made.labels),
    }


def to_encodings(bodies: Sequence[Body], *, request: EncodingRequest) -> Encodings:
    """What was asked for: another number of rows, or of numbers in each, is no answer."""
    with _Reading("encodings"):
        *parts, what = bodies
        tokens_in, tokens_out, cached, *_ = what["usage"]
        vectors = Vectors(_number(what["dimensions"]), b"".join(_bytes(part["rows"]) for part in parts))
        labels = tuple(map(_text, what.get("labels", ())))
        if len(vectors) != len(request.texts):
            _wrong(f"{len(vectors)} rows for {len(request.texts)} texts")
        if vectors.dimensions != {"classify": len(labels), "rerank": 1}.get(request.task, vectors.dimensions):
            _wrong(f"{vectors.dimensions} numbers in a row")
        usage = Usage(_number(tokens_in), _number(tokens_out), _number(cached))
        return Encodings(vectors, usage, _text(what["model"]), _numbers(what.get("truncated", [])), labels)


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
    """Never fails: what is malformed in it is left out, for there is an error to be told anyhow."""
    kind = _KINDS.get(str(body.get("kind")), AstromeshError)
    wanted = inspect.signature(kind.__init__).parameters
    given = {key: body[key] for key, fits in _CARRIED.items() if key in wanted and key in body and fits(body[key])}
    if "code" in wanted:
        given.setdefault("code", "model_provider_unavailable")
    message = body.get("message")
    return kind(message if isinstance(message, str) and message else "the other node gave no reason", **given)


_CARRIED: Mapping[str, Callable[[Any], bool]] = {
    "code": lambda value: value in get_args(ModelFailureCode),
    "hint": lambda value: isinstance(value, str),
    "definite": lambda value: isinstance(value, bool),
    "retry_after_s": lambda value: type(value) is int and value >= 0,
    "param": lambda value: isinstance(value, str),
    "details": lambda value: isinstance(value, dict),
}
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
        role=cast("Role", _one_of(get_args(Role), body["role"])),
        content=_text(body["content"]),
        tool_calls=_to_calls(body.get("tool_calls", ())),
        tool_call_id=_text_or_none(body.get("tool_call_id")),
    )


def _to_calls(rows: Any) -> tuple[ToolCall, ...]:
    return tuple(ToolCall(_text(id), _text(name), _text(arguments)) for id, name, arguments in rows)  # noqa: A001


def _to_sampling(body: Body) -> Sampling:
    known: dict[str, Any] = {key: value for key, value in body.items() if key in Sampling.__dataclass_fields__ and value is not None}
    stop = tuple(_text(one) for one in known.pop("stop", ()))
    logit_bias = tuple((_number(token), float(bias)) for token, bias in known.pop("logit_bias", ()))
    for key, value in known.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            _wrong(f"{key} is no number")
    return Sampling(**known, stop=stop, logit_bias=logit_bias)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else _wrong("no text")


def _bytes(value: Any) -> bytes:
    return value if isinstance(value, bytes) else _wrong("no bytes")


def _text_or_none(value: Any) -> str | None:
    return None if value is None else _text(value)


def _number(value: Any) -> int:
    return value if type(value) is int else _wrong("no whole number")


def _numbers(value: Any) -> tuple[int, ...]:
    return tuple(map(_number, value)) if isinstance(value, list) else _wrong("no list of numbers")


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else _wrong("no object")


def _one_of(known: tuple[str, ...], value: Any) -> str:
    return value if isinstance(value, str) and value in known else _wrong(f"none of {', '.join(known)}")


def _wrong(what: str) -> NoReturn:
    raise TypeError(what)


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
