"""What the port promises, held to every engine with a real model; and a name for what only one of them can."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.rig.eventually import eventually

from astromesh.dialogue import AnswerBegan, Message, ModelEvent, ModelReply, ModelRequest, Resume, Sampling, TextDelta, ToolSchema
from astromesh.errors import ContextExceeded, InvalidRequest, ModelFailed, ModelUnavailable
from astromesh.inference.backends.llama_cpp.engine import LlamaCppEngine
from astromesh.inference.backends.xllamacpp.engine import XllamacppEngine
from astromesh.inference.port import InferenceEngine, ModelSpecification

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]

ENGINES = (LlamaCppEngine, XllamacppEngine)
AMPLE_S = 120.0


@pytest.fixture(params=ENGINES, ids=lambda kind: kind.__name__)
def kind(request: pytest.FixtureRequest) -> Any:
    if not request.param.installed():
        pytest.fail(f"{request.param.__name__} is not installed: {request.param.extra_hint}", pytrace=False)
    return request.param


@pytest.fixture
async def engine(kind: Any, specification: ModelSpecification) -> AsyncIterator[Any]:
    engine = kind(replace(specification, context=1024, parallel=2))
    try:
        await engine.start()
        yield engine
    finally:
        await engine.close()


def asked(text: str, **how: Any) -> ModelRequest:
    sampling = Sampling(temperature=0.0, **{"max_tokens": 12, **how.pop("sampling", {})})
    return ModelRequest("smollm2", (Message("user", text),), sampling=sampling, **how)


async def answer(engine: InferenceEngine, request: ModelRequest) -> tuple[list[ModelEvent], ModelReply]:
    *pieces, reply = [event async for event in engine.complete(request, timeout_s=AMPLE_S)]
    assert isinstance(reply, ModelReply)
    return pieces, reply


def text_of(pieces: list[ModelEvent]) -> str:
    return "".join(piece.text for piece in pieces if isinstance(piece, TextDelta))


async def test_a_bias_of_a_token_that_the_model_has_not_is_refused_and_of_its_last_one_taken(engine: Any) -> None:
    for token in (-1, 49_152, 99_999_999):
        with pytest.raises(InvalidRequest, match=f"names token {token}, and the tokens of this model are 0 to 49151") as refused:
            await answer(engine, asked("Hi.", sampling={"logit_bias": ((token, 1.0),)}))
        assert refused.value.param == "logit_bias"
    await answer(engine, asked("Hi.", sampling={"logit_bias": ((49_151, -1.0),), "max_tokens": 1}))


async def test_text_streams_piece_by_piece_and_the_reply_is_what_streamed(engine: Any) -> None:
    pieces, reply = await answer(engine, asked("Count from one to five."))
    assert len([piece for piece in pieces if isinstance(piece, TextDelta)]) > 3
    assert (reply.text, reply.finish_reason, reply.usage.tokens_out) == (text_of(pieces), "length", 12)
    assert reply.usage.tokens_in > 5
    assert {"queue_ms", "prefill_ms", "decode_tok_s"} <= set(reply.timings)
    assert (engine.state, engine.load_progress, engine.problem) == ("loaded", 1.0, "")
    assert (engine.stats.finished, engine.stats.tokens_out, engine.stats.running, engine.stats.queued) == (1, 12, 0, 0)


async def test_greedy_text_is_the_same_again(engine: Any) -> None:
    first, again = [(await answer(engine, asked("Name a colour.")))[1].text for _ in range(2)]
    assert first == again


async def test_a_stop_string_ends_the_text_before_it(engine: Any) -> None:
    whole = (await answer(engine, asked("Name a colour.")))[1].text
    stop = whole.split()[2]
    cut = (await answer(engine, asked("Name a colour.", sampling={"stop": (stop,)})))[1]
    assert cut.finish_reason == "stop"
    assert cut.text == whole[: whole.index(stop)]


async def test_more_streams_than_it_has_places_for_are_all_answered_and_not_mixed(engine: Any) -> None:
    requests = [asked(f"Say the word {word}.") for word in ("apple", "river", "stone", "cloud", "paper")]
    together = await asyncio.gather(*(answer(engine, request) for request in requests))
    assert all(reply.usage.tokens_out for _, reply in together)
    assert engine.stats.finished == 5
    assert [text_of(pieces) for pieces, _ in together] == [reply.text for _, reply in together]


async def test_who_leaves_frees_the_place(engine: Any) -> None:
    stream = engine.complete(asked("Tell a very long story.", sampling={"max_tokens": 800}), timeout_s=AMPLE_S)
    await anext(stream)
    await stream.aclose()

    async def idle() -> bool:
        return bool(engine.stats.running == 0)

    await eventually(idle, 10.0)
    assert (await answer(engine, asked("Name a colour.")))[1].text


async def test_a_prompt_that_does_not_fit_is_refused_by_name(engine: Any) -> None:
    with pytest.raises(ContextExceeded) as refused:
        await answer(engine, asked("word " * 6000))
    assert "tokens" in refused.value.message
    assert "spec.inference.models[].context" in refused.value.hint
    assert refused.value.definite


async def test_a_plain_text_is_gone_on_with(engine: Any) -> None:
    request = ModelRequest("smollm2", (), sampling=Sampling(temperature=0.0, max_tokens=4), prompt="One, two, three,")
    assert (await answer(engine, request))[1].usage.tokens_out == 4


PLACE = {"type": "object", "properties": {"city": {"type": "string", "enum": ["Paris", "Rome"]}}, "required": ["city"]}
LONG = {
    "type": "object",
    "properties": {"n": {"type": "integer", "minimum": 3, "maximum": 5}, "ok": {"type": "boolean"}},
    "required": ["n", "ok"],
}


def obeying(schema: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "it", "schema": schema, **more}}


async def test_the_answer_keeps_to_a_schema(engine: Any) -> None:
    for wanted in (obeying(PLACE), obeying(PLACE, strict=True), obeying({"$defs": {"p": PLACE}, "$ref": "#/$defs/p"})):
        asking = asked("Which city has the Eiffel tower?", sampling={"max_tokens": 40}, response_format=wanted)
        assert json.loads((await answer(engine, asking))[1].text)["city"] in ("Paris", "Rome")
    told = json.loads(
        (await answer(engine, asked("How many?", sampling={"max_tokens": 40}, response_format=obeying(LONG, strict=True))))[1].text
    )
    assert told["n"] in (3, 4, 5)
    assert isinstance(told["ok"], bool)


async def test_an_answer_may_be_held_to_any_object_or_to_nothing(engine: Any) -> None:
    free = (await answer(engine, asked("Name a colour.")))[1].text
    assert (await answer(engine, asked("Name a colour.", response_format={"type": "text"})))[1].text == free
    begun = (await answer(engine, asked("Name a colour.", response_format={"type": "json_object"})))[1].text
    assert begun.startswith("{")


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({"type": "json_schema"}, "needs json_schema.schema"),
        ({"type": "json_schema", "json_schema": {"name": "it"}}, "needs json_schema.schema"),
        ({"type": "json_schema", "json_schema": PLACE}, "needs json_schema.schema"),
        ({"type": "grammar", "grammar": "root ::= [a-z]+"}, "'grammar' is not possible"),
        (obeying({"type": "string", "pattern": "^a+$"}, strict=True), "has pattern"),
        (obeying({"$ref": "#/$defs/nowhere"}), "what is not there"),
    ],
)
async def test_what_no_answer_can_be_held_to_is_refused_by_name(engine: Any, wanted: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidRequest, match=said) as refused:
        await answer(engine, asked("Name a colour.", response_format=wanted))
    assert refused.value.param == "response_format"
    assert engine.stats.running == 0


async def test_a_format_and_tools_that_may_be_called_do_not_go_together(engine: Any) -> None:
    tools = (ToolSchema("look", "Looks.", {"type": "object", "properties": {}}),)
    with pytest.raises(InvalidRequest, match="response_format and be free to call tools"):
        await answer(engine, asked("Hello", tools=tools, response_format=obeying(PLACE)))
    told = await answer(
        engine, asked("Where?", sampling={"max_tokens": 40}, tools=tools, tool_choice="none", response_format=obeying(PLACE))
    )
    assert json.loads(told[1].text)["city"] in ("Paris", "Rome")


async def test_log_probabilities_are_told_where_they_are_asked_for(engine: Any) -> None:
    reply = (await answer(engine, asked("Name a colour.", sampling={"max_tokens": 3, "logprobs": 2})))[1]
    assert len(reply.logprobs) == 3
    assert all(one.logprob <= 0 and len(one.top) == 2 for one in reply.logprobs)
    assert b"".join(one.piece for one in reply.logprobs).decode() == reply.text


async def test_a_worker_that_dies_is_told_to_its_stream_and_started_again(engine: Any) -> None:
    stream = engine.complete(asked("Tell a very long story.", sampling={"max_tokens": 800}), timeout_s=AMPLE_S)
    await anext(stream)
    psutil.Process(engine.worker_pid).kill()
    with pytest.raises(ModelFailed) as broken:
        async for _ in stream:
            pass
    assert not broken.value.definite

    async def loaded_again() -> bool:
        return bool(engine.stats.restarts == 1 and engine.state == "loaded")

    await eventually(loaded_again, 20.0)
    assert (await answer(engine, asked("Name a colour.")))[1].text


async def test_a_file_that_is_no_model_is_given_up_and_an_unloaded_one_answers_nobody(
    kind: Any, specification: ModelSpecification, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF" + bytes(64))
    engine = kind(replace(specification, path=broken))
    with pytest.raises(ModelFailed) as failure:
        await engine.start()
    assert failure.value.definite
    assert engine.state == "failed"
    await engine.close()
    with pytest.raises(ModelUnavailable):
        await answer(engine, asked("Hello"))


# What the prebuilt engine has not.


@pytest.fixture
async def prebuilt(specification: ModelSpecification) -> AsyncIterator[XllamacppEngine]:
    engine = XllamacppEngine(specification)
    try:
        await engine.start()
        yield engine
    finally:
        await engine.close()


async def test_the_prebuilt_engine_claims_no_kernel_and_tells_no_tokens(prebuilt: XllamacppEngine) -> None:
    pieces, _ = await answer(prebuilt, asked("Name a colour."))
    assert (prebuilt.kernel, prebuilt.warmth) == ("", b"")
    assert not [piece for piece in pieces if isinstance(piece, AnswerBegan) or (isinstance(piece, TextDelta) and piece.tokens)]


async def test_the_prebuilt_engine_refuses_by_name_what_it_cannot_do(prebuilt: XllamacppEngine) -> None:
    tool = ToolSchema("look", "Looks.", {"type": "object", "properties": {}})
    for request, named in (
        (asked("Hello", resume=Resume(prebuilt.identity, (1,), (4,))), "resume"),
        (asked("Hello", tools=(tool,), tool_choice="required"), "tool_choice"),
        (asked("Hello", tools=(tool,), tool_choice={"type": "function", "function": {"name": "look"}}), "tool_choice"),
    ):
        with pytest.raises(InvalidRequest) as refused:
            await answer(prebuilt, request)
        assert refused.value.param == named
    with pytest.raises(InvalidRequest, match="cannot hand"):
        await anext(prebuilt.export_session(asked("Hello"), timeout_s=AMPLE_S))
    assert (await answer(prebuilt, asked("Name a colour.")))[1].text


async def test_the_prebuilt_engine_can_be_reached_by_its_node_alone(prebuilt: XllamacppEngine) -> None:
    assert prebuilt.worker_pid is not None
    listening = psutil.Process(prebuilt.worker_pid).net_connections(kind="inet")
    assert listening == []
