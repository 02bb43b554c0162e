"""Values of ours as the bodies of link calls, and back: the only mapping to the wire.

A reader ignores keys that it does not know and fills in those that it misses: nodes of other versions live in the same mesh. A body that
cannot be read at all is the other node's fault and becomes an error, never a guess.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, cast, get_args

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
from astromesh.errors import AstromeshError, ModelFailureCode
from astromesh.memory.port import TURNS_KEPT_MAX, History, Summary, Turn
from astromesh.runtime.agent import AgentChange, Changed, ChangeVerb
from astromesh.runtime.events import RunEvent, RunRequest
from astromesh.runtime.reading import Reading, a_number, a_text, an_object, one_of, some_bytes, some_numbers, text_or_none, wrong

Body = Mapping[str, Any]


def from_request(request: ModelRequest) -> dict[str, Any]:
    return {
        "model": request.model,
        "transcript": [from_message(message) for message in request.transcript],
        "tools": [{"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)} for tool in request.tools],
        "tool_choice": request.tool_choice,
        "sampling": {key: value for key, value in asdict(request.sampling).items() if value not in (None, ())},
        "response_format": request.response_format,
        "stream": request.stream,
        "resume": None if request.resume is None else [request.resume.identity, list(request.resume.tokens), list(request.resume.borders)],
        "prompt": request.prompt,
    }


def to_request(body: Body) -> ModelRequest:
    with Reading("a model request"):
        tool_choice, response_format = body.get("tool_choice"), body.get("response_format")
        return ModelRequest(
            model=a_text(body["model"]),
            transcript=tuple(to_message(message) for message in body["transcript"]),
            tools=tuple(
                ToolSchema(a_text(tool["name"]), a_text(tool["description"]), an_object(tool["parameters"]))
                for tool in body.get("tools", ())
            ),
            tool_choice=tool_choice if tool_choice is None or isinstance(tool_choice, str) else an_object(tool_choice),
            sampling=_to_sampling(body.get("sampling", {})),
            response_format=None if response_format is None else an_object(response_format),
            stream=bool(body.get("stream", True)),
            resume=_to_resume(body.get("resume")),
            prompt=text_or_none(body.get("prompt")),
        )


def _to_resume(value: Any) -> Resume | None:
    if value is None:
        return None
    identity, tokens, borders, *_ = value
    return Resume(a_text(identity), some_numbers(tokens), some_numbers(borders))


def from_run_request(request: RunRequest, *, run_id: str) -> dict[str, Any]:
    return {
        "run_id": run_id,
        "agent": request.agent,
        "query": request.query,
        "session_id": request.session_id,
        "context": dict(request.context),
        "watched": request.watched,
        "history": None if request.history is None else [from_message(message) for message in request.history],
    }


def to_run_request(body: Body) -> RunRequest:
    with Reading("a run"):
        history = body.get("history")
        return RunRequest(
            agent=a_text(body["agent"]),
            query=a_text(body["query"]),
            session_id=text_or_none(body.get("session_id")),
            context=an_object(body.get("context", {})),
            watched=bool(body.get("watched", True)),
            history=None if history is None else tuple(to_message(message) for message in history),
        )


def to_run_id(body: Body) -> str | None:
    """Under which another node was asked for a run; nodes of before do not say it."""
    with Reading("a run"):
        return text_or_none(body.get("run_id"))


def from_run_event(event: RunEvent) -> dict[str, Any]:
    return {"position": event.position, "kind": event.kind, "data": event.data}


def to_run_event(body: Body) -> RunEvent:
    with Reading("an event of a run"):
        return RunEvent(a_number(body["position"]), a_text(body["kind"]), an_object(body["data"]))


def to_history_request(body: Body) -> tuple[str, str, int, bool]:
    """The agent's key, the session, how many turns at most, and whether all of them are to be forgotten."""
    with Reading("a question about a history"):
        turns_max = min(a_number(body.get("turns_max", TURNS_KEPT_MAX)), TURNS_KEPT_MAX)
        return a_text(body["agent"]), a_text(body["session_id"]), turns_max, bool(body.get("forget", False))


def from_history(history: History) -> Iterator[dict[str, Any]]:
    """Turn by turn: all together may be larger than one body."""
    for turn in history.turns:
        yield {"id": turn.id, "at": turn.at, "said": [from_message(message) for message in turn.said]}
    yield {"summary": None if history.summary is None else [history.summary.text, history.summary.through]}


def to_history(bodies: Sequence[Body]) -> History:
    with Reading("a history"):
        *turns, last = bodies
        summary = last["summary"]
        return History(
            tuple(Turn(a_text(turn["id"]), float(turn["at"]), tuple(to_message(said) for said in turn["said"])) for turn in turns),
            None if summary is None else Summary(*map(a_text, summary)),
        )


def from_agent_change(change: AgentChange) -> dict[str, Any]:
    document = None if change.document is None else dict(change.document)
    return {"verb": change.verb, "name": change.name, "namespace": change.namespace, "document": document, "trial": change.trial}


def to_agent_change(body: Body) -> AgentChange:
    with Reading("a change of an agent"):
        document = body.get("document")
        return AgentChange(
            verb=cast("ChangeVerb", one_of(get_args(ChangeVerb), body["verb"])),
            name=a_text(body["name"]),
            namespace=a_text(body["namespace"]),
            document=None if document is None else an_object(document),
            trial=bool(body.get("trial", False)),
        )


def from_changed(changed: Changed) -> dict[str, Any]:
    return {"status": changed.status, "warnings": list(changed.warnings)}


def to_changed(body: Body) -> Changed:
    with Reading("what became of an agent"):
        return Changed(a_text(body["status"]), tuple(map(a_text, body.get("warnings", ()))))


def to_document(body: Body) -> dict[str, Any]:
    with Reading("a document"):
        return an_object(body["document"])


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
    with Reading("a piece of a completion"):
        if (text := body.get("t")) is not None:
            return TextDelta(a_text(text), some_numbers(body.get("ids", [])), _to_logprobs(body.get("lp", [])))
        if (began := body.get("began")) is not None:
            identity, kernel, borders, seed, *_ = began
            return AnswerBegan(a_text(identity), a_text(kernel), some_numbers(borders), a_number(seed))
        if (call := body.get("call")) is not None:
            index, id, name, arguments = call  # noqa: A001
            return ToolCallDelta(a_number(index), a_text(id), a_text(name), a_text(arguments), some_numbers(body.get("ids", [])))
        reply = body["reply"]
        tokens_in, tokens_out, cached, *_ = reply["usage"]
        return ModelReply(
            text=a_text(reply["text"]),
            tool_calls=_to_calls(reply["tool_calls"]),
            finish_reason=cast("FinishReason", one_of(get_args(FinishReason), reply["finish_reason"])),
            usage=Usage(a_number(tokens_in), a_number(tokens_out), a_number(cached)),
            model=a_text(reply["model"]),
            timings={a_text(key): float(value) for key, value in an_object(reply.get("timings", {})).items()},
            logprobs=_to_logprobs(reply.get("lp", [])),
        )


def _from_tokens(tokens: tuple[int, ...]) -> dict[str, Any]:
    return {"ids": list(tokens)} if tokens else {}


def _from_logprobs(logprobs: tuple[TokenLogprob, ...]) -> dict[str, Any]:
    return {"lp": [[one.piece, one.logprob, [[other.piece, other.logprob] for other in one.top]] for one in logprobs]} if logprobs else {}


def _to_logprobs(rows: Any) -> tuple[TokenLogprob, ...]:
    return tuple(
        TokenLogprob(some_bytes(piece), float(logprob), tuple(TokenLogprob(some_bytes(other), float(chance)) for other, chance in top))
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
    with Reading("a request for encodings"):
        dimensions = body.get("dimensions")
        texts = tuple(map(a_text, body["texts"])) if isinstance(body["texts"], list) else wrong("no list of texts")
        return EncodingRequest(
            a_text(body["model"]),
            texts,
            None if dimensions is None else a_number(dimensions),
            cast("EncodingTask", one_of(get_args(EncodingTask), body["task"])),
            text_or_none(body.get("query")),
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
    with Reading("encodings"):
        *parts, what = bodies
        tokens_in, tokens_out, cached, *_ = what["usage"]
        vectors = Vectors(a_number(what["dimensions"]), b"".join(some_bytes(part["rows"]) for part in parts))
        labels = tuple(map(a_text, what.get("labels", ())))
        if len(vectors) != len(request.texts):
            wrong(f"{len(vectors)} rows for {len(request.texts)} texts")
        if vectors.dimensions != {"classify": len(labels), "rerank": 1}.get(request.task, vectors.dimensions):
            wrong(f"{vectors.dimensions} numbers in a row")
        usage = Usage(a_number(tokens_in), a_number(tokens_out), a_number(cached))
        return Encodings(vectors, usage, a_text(what["model"]), some_numbers(what.get("truncated", [])), labels)


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


def from_message(message: Message) -> dict[str, Any]:
    body: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        body["tool_calls"] = [[call.id, call.name, call.arguments] for call in message.tool_calls]
    if message.tool_call_id is not None:
        body["tool_call_id"] = message.tool_call_id
    return body


def to_message(body: Body) -> Message:
    return Message(
        role=cast("Role", one_of(get_args(Role), body["role"])),
        content=a_text(body["content"]),
        tool_calls=_to_calls(body.get("tool_calls", ())),
        tool_call_id=text_or_none(body.get("tool_call_id")),
    )


def _to_calls(rows: Any) -> tuple[ToolCall, ...]:
    return tuple(ToolCall(a_text(id), a_text(name), a_text(arguments)) for id, name, arguments in rows)  # noqa: A001


def _to_sampling(body: Body) -> Sampling:
    known: dict[str, Any] = {key: value for key, value in body.items() if key in Sampling.__dataclass_fields__ and value is not None}
    stop = tuple(a_text(one) for one in known.pop("stop", ()))
    logit_bias = tuple((a_number(token), float(bias)) for token, bias in known.pop("logit_bias", ()))
    for key, value in known.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            wrong(f"{key} is no number")
    return Sampling(**known, stop=stop, logit_bias=logit_bias)
