"""Everything that crosses a link is the same on the other side; whatever else arrives is malformed, and nothing worse."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, get_args

import msgpack
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from astromesh import errors
from astromesh.dialogue import (
    FinishReason,
    Message,
    ModelReply,
    ModelRequest,
    Role,
    Sampling,
    TextDelta,
    TokenLogprob,
    ToolCall,
    ToolCallDelta,
    ToolSchema,
    Usage,
)
from astromesh.errors import AstromeshError, MalformedBody, ModelFailed, ModelFailureCode
from astromesh.runtime.bodies import (
    from_error,
    from_event,
    from_request,
    from_run_request,
    to_error,
    to_event,
    to_request,
    to_run_event,
    to_run_id,
    to_run_request,
)
from astromesh.runtime.events import RunEvent, RunRequest

text = st.text(max_size=20)
numbers = st.integers(0, 2**31)
plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=6,
)
objects = st.dictionaries(text, plain, max_size=3)
calls = st.builds(ToolCall, text, text, text)
messages = st.builds(Message, st.sampled_from(get_args(Role)), text, st.lists(calls, max_size=2).map(tuple), st.none() | text)
transcripts = st.lists(messages, max_size=3).map(tuple)
sampling = st.builds(
    Sampling,
    temperature=st.none() | st.floats(0, 2),
    top_p=st.none() | st.floats(0, 1),
    top_k=st.none() | numbers,
    seed=st.none() | numbers,
    max_tokens=st.none() | numbers,
    stop=st.lists(text, max_size=2).map(tuple),
    logit_bias=st.lists(st.tuples(numbers, st.floats(-100, 100)), max_size=2).map(tuple),
    logprobs=st.none() | st.integers(0, 20),
)
requests = st.builds(
    ModelRequest,
    model=text,
    transcript=transcripts,
    tools=st.lists(st.builds(ToolSchema, text, text, objects), max_size=2).map(tuple),
    tool_choice=st.none() | text | objects,
    sampling=sampling,
    response_format=st.none() | objects,
    stream=st.booleans(),
    prompt=st.none() | text,
)
chances = st.builds(TokenLogprob, st.binary(max_size=4), st.floats(allow_nan=False))
logprobs = st.lists(
    st.builds(TokenLogprob, st.binary(max_size=4), st.floats(max_value=0), st.lists(chances, max_size=2).map(tuple)), max_size=2
)
taken = st.lists(numbers, max_size=3).map(tuple)
run_requests = st.builds(
    RunRequest, text, text, session_id=st.none() | text, context=objects, watched=st.booleans(), history=st.none() | transcripts
)
replies = st.builds(
    ModelReply,
    text,
    st.lists(calls, max_size=2).map(tuple),
    st.sampled_from(get_args(FinishReason)),
    st.builds(Usage, numbers, numbers, numbers),
    text,
    st.dictionaries(text, st.floats(allow_nan=False), max_size=2),
    logprobs.map(tuple),
)
events = st.builds(TextDelta, text, taken, logprobs.map(tuple)) | st.builds(ToolCallDelta, numbers, text, text, text, taken) | replies
KINDS = sorted(
    (kind for kind in vars(errors).values() if inspect.isclass(kind) and issubclass(kind, AstromeshError)), key=lambda kind: kind.__name__
)


def over_the_wire(body: Mapping[str, Any]) -> Any:
    """A link packs its bodies as msgpack: tuples become lists, and nothing else changes."""
    return msgpack.unpackb(msgpack.packb(body))


@given(requests)
def test_a_request_for_a_completion_survives_the_wire(request: ModelRequest) -> None:
    assert to_request(over_the_wire(from_request(request))) == request


@given(run_requests)
def test_a_request_for_a_run_survives_the_wire(request: RunRequest) -> None:
    body = over_the_wire(from_run_request(request, run_id="r1"))
    assert (to_run_request(body), to_run_id(body)) == (request, "r1")


@given(events)
def test_every_piece_of_a_completion_survives_the_wire(event: TextDelta | ToolCallDelta | ModelReply) -> None:
    assert to_event(over_the_wire(from_event(event))) == event


def an_error(kind: type[AstromeshError]) -> AstromeshError:
    """One of that kind with everything that it can carry, none of it a default."""
    carried: dict[str, Any] = {
        "hint": "turn it off and on",
        "code": "model_timeout",
        "definite": True,
        "retry_after_s": 17,
        "param": "messages",
        "details": {"error": "timeout", "steps": [{"action": "clock"}]},
    }
    wanted = inspect.signature(kind.__init__).parameters
    return kind("it broke", **{key: value for key, value in carried.items() if key in wanted})


def carried(error: AstromeshError) -> dict[str, Any]:
    return {"kind": type(error), "text": str(error), "code": error.code, "definite": error.definite, **vars(error)}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_error_survives_the_wire_with_all_that_it_carries(kind: type[AstromeshError]) -> None:
    error = an_error(kind)
    assert carried(to_error(over_the_wire(from_error(error)))) == carried(error)


@pytest.mark.parametrize("code", get_args(ModelFailureCode))
@pytest.mark.parametrize("definite", [True, False])
def test_a_models_failure_keeps_its_code_and_its_verdict(code: ModelFailureCode, *, definite: bool) -> None:
    error = to_error(over_the_wire(from_error(ModelFailed("it broke", code=code, hint="the knob", definite=definite))))
    assert isinstance(error, ModelFailed)
    assert (error.code, error.definite, error.hint) == (code, definite, "the knob")


def test_an_error_that_only_a_newer_node_knows_is_an_error_of_ours_with_its_words() -> None:
    error = to_error(
        {"kind": "MoonInTheWay", "code": "eclipse", "message": "no sight", "hint": "wait", "definite": True, "retry_after_s": 5}
    )
    assert (type(error), error.message, error.hint) == (AstromeshError, "no sight", "wait")


def test_a_failure_without_any_word_is_still_an_error() -> None:
    assert to_error({}).message


WRONG = st.none() | st.booleans() | st.integers() | text | st.lists(plain, max_size=2) | objects


@given(st.dictionaries(st.sampled_from(["kind", "code", "message", "hint", "definite", "retry_after_s", "param", "details"]), WRONG))
@example({"kind": "ModelFailed"})
@example({"kind": "ModelFailed", "code": ["model_timeout"], "definite": "yes"})
@example({"kind": "DeadlineExceeded", "details": 7})
@example({"kind": "ModelUnavailable", "retry_after_s": "soon"})
@example({"kind": "Overloaded", "retry_after_s": -1})
@example({"kind": ["Overloaded"]})
@example({"kind": "InvalidRequest", "param": 7, "hint": None})
def test_an_error_that_is_malformed_is_an_error_all_the_same_and_has_the_types_that_its_class_promises(body: dict[str, Any]) -> None:
    error = to_error(body)
    assert isinstance(error, AstromeshError)
    assert isinstance(error.message, str)
    assert isinstance(error.hint, str)
    assert isinstance(error.code, str)
    assert isinstance(error.definite, bool)
    assert isinstance(getattr(error, "retry_after_s", 0), int | None)
    assert (getattr(error, "retry_after_s", 0) or 0) >= 0
    assert isinstance(getattr(error, "param", None), str | None)
    assert isinstance(getattr(error, "details", None), Mapping | None)


READERS: list[Callable[[Any], Any]] = [to_request, to_run_request, to_event, to_run_event]
KEYS = ["model", "transcript", "tools", "tool_choice", "sampling", "response_format", "agent", "query", "session_id", "context", "history"]
KEYS += ["t", "call", "reply", "position", "kind", "data", "watched", "stream"]


@given(st.dictionaries(st.sampled_from(KEYS), WRONG))
@example({"model": "m", "transcript": [{"role": "wizard", "content": "hi"}]})
@example({"model": "m", "transcript": [{"role": ["user"], "content": "hi"}]})
@example({"model": "m", "transcript": [], "tools": [["name", "description"]]})
@example({"model": "m", "transcript": [], "tool_choice": 7})
@example({"model": "m", "transcript": [], "response_format": [7]})
@example({"model": "m", "transcript": [], "sampling": [["temperature", 1]]})
@example({"model": "m", "transcript": [], "sampling": {"temperature": "hot"}})
@example({"model": "m", "transcript": [], "sampling": {"stop": 7}})
@example({"model": "m", "transcript": [], "sampling": {"stop": [7]}})
@example({"agent": "desk", "query": "hi", "context": [1, 2]})
@example({"agent": "desk", "query": "hi", "context": 7})
@example({"agent": "desk", "query": "hi", "history": [{"role": "user", "content": "hi", "tool_calls": [["id"]]}]})
@example({"reply": {"text": "", "tool_calls": [], "finish_reason": "boredom", "usage": [1, 2, 3], "model": "m"}})
@example({"reply": {"text": "", "tool_calls": [], "finish_reason": ["stop"], "usage": [1, 2, 3], "model": "m"}})
@example({"reply": {"text": "", "tool_calls": [], "finish_reason": "stop", "usage": [1, 2, 3], "model": "m", "timings": 7}})
@example({"reply": {"text": "", "tool_calls": [], "finish_reason": "stop", "usage": ["x", 2, 3], "model": "m"}})
@example({"reply": {"text": "", "tool_calls": [], "finish_reason": "stop", "usage": [float("inf"), 2, 3], "model": "m"}})
@example({"call": [float("nan"), "", "", ""]})
@example({"position": 1, "kind": "token", "data": 7})
@example({"position": "one", "kind": "token", "data": {}})
def test_whatever_is_malformed_is_a_malformed_body_and_nothing_else(body: dict[str, Any]) -> None:
    for read in READERS:
        try:
            value = read(body)
        except MalformedBody:
            continue
        match value:
            case ModelRequest():
                assert to_request(over_the_wire(from_request(value))) == value
            case RunRequest():
                assert to_run_request(over_the_wire(from_run_request(value))) == value
            case RunEvent():
                assert isinstance(value.data, Mapping)
            case _:
                assert to_event(over_the_wire(from_event(value))) == value


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("body", [{}, [], None, 7, "text", {"model": None}, {"reply": None}])
def test_what_is_no_body_at_all_is_malformed(read: Callable[[Any], Any], body: Any) -> None:
    with pytest.raises(MalformedBody, match="the other node sent something that is not"):
        read(body)


def test_keys_of_newer_nodes_are_ignored_and_missing_ones_filled_in() -> None:
    assert to_request({"model": "m", "transcript": [], "mood": "sunny", "sampling": {"spice": 7}}) == ModelRequest("m", ())
    assert to_run_request({"agent": "desk", "query": "hi", "mood": "sunny"}) == RunRequest("desk", "hi", None, {}, watched=True)
    reply = {"text": "yes", "tool_calls": [], "finish_reason": "stop", "usage": [1, 2, 3, 4], "model": "m", "mood": "sunny"}
    assert to_event({"reply": reply}) == ModelReply("yes", usage=Usage(1, 2, 3), model="m")
