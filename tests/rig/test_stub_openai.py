"""The stub speaks OpenAI's dialect: their own client understands it, and its failures are those of real servers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import openai
import pytest
from tests.rig.eventually import eventually
from tests.rig.server_process import server_process
from tests.rig.stub_answers import Say
from tests.rig.stub_openai import Mode, StubOpenAI

WEATHER: Any = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
}


@pytest.fixture
async def stub() -> AsyncIterator[StubOpenAI]:
    async with StubOpenAI(pause_s=0.005) as server:
        yield server


@pytest.fixture
async def client(stub: StubOpenAI) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=stub.endpoint, api_key="none", max_retries=0, timeout=5) as theirs:
        yield theirs


def asks(text: str) -> Any:
    return [{"role": "system", "content": "Be brief."}, {"role": "user", "content": text}]


async def test_the_official_client_reads_a_whole_answer_and_its_usage(client: openai.AsyncOpenAI) -> None:
    reply = await client.chat.completions.create(model="stub", messages=asks("good morning, world"))
    assert reply.choices[0].message.content == "You said: good morning, world"
    assert reply.choices[0].finish_reason == "stop"
    assert reply.usage is not None
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (5, 5)


async def test_a_stream_brings_the_same_words_one_by_one_and_usage_last_without_choices(client: openai.AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(
        model="stub", messages=asks("one two"), stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    words = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]
    assert words == ["You", " said:", " one", " two"]
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 4
    assert [chunk.usage for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)


async def test_usage_is_sent_only_to_those_who_ask_and_the_stream_ends_with_done(stub: StubOpenAI) -> None:
    body = {"model": "stub", "messages": asks("one"), "stream": True}
    async with aiohttp.ClientSession() as session, session.post(f"{stub.endpoint}/chat/completions", json=body) as response:
        events = (await response.text()).strip().split("\n\n")
    assert events[-1] == "data: [DONE]"
    assert not any("usage" in json.loads(event.removeprefix("data: ")) for event in events[:-1])


async def test_tool_calls_come_in_pieces_that_make_whole_arguments(client: openai.AsyncOpenAI) -> None:
    question = asks('call weather {"city": "Århus \\"N\\""}\ncall weather {"city": "Oslo"}\ncall unheard_of {}')
    stream = await client.chat.completions.create(model="stub", messages=question, tools=[WEATHER], stream=True)
    names: dict[int, str] = {}
    pieces: dict[int, list[str]] = {}
    finish = None
    async for chunk in stream:
        finish = chunk.choices[0].finish_reason or finish
        for call in chunk.choices[0].delta.tool_calls or []:
            assert call.function is not None
            names.setdefault(call.index, call.function.name or "")
            pieces.setdefault(call.index, []).append(call.function.arguments or "")
    assert names == {0: "weather", 1: "weather"}
    assert [json.loads("".join(each)) for each in pieces.values()] == [{"city": 'Århus "N"'}, {"city": "Oslo"}]
    assert min(len(each) for each in pieces.values()) > 2
    assert finish == "tool_calls"


async def test_results_of_tools_are_answered_with_their_words(client: openai.AsyncOpenAI) -> None:
    first = await client.chat.completions.create(model="stub", messages=asks('call weather {"city": "Oslo"}'), tools=[WEATHER])
    asked = first.choices[0].message
    assert asked.tool_calls is not None
    history = [*asks("weather?"), asked.to_dict(), {"role": "tool", "tool_call_id": asked.tool_calls[0].id, "content": "4 degrees"}]
    second = await client.chat.completions.create(model="stub", messages=history, tools=[WEATHER])
    assert second.choices[0].message.content == "The tools said: 4 degrees"


async def test_an_answer_longer_than_the_limit_is_cut_and_says_so(client: openai.AsyncOpenAI) -> None:
    reply = await client.chat.completions.create(model="stub", messages=asks("one two three"), max_tokens=3)
    assert reply.choices[0].message.content == "You said: one"
    assert reply.choices[0].finish_reason == "length"


async def test_what_was_queued_is_said_in_order_and_then_the_stub_is_its_usual_self(stub: StubOpenAI, client: openai.AsyncOpenAI) -> None:
    stub.say("stub", "first", Say(calls=(("weather", {"city": "Oslo"}),)))
    replies = [await client.chat.completions.create(model="stub", messages=asks("hi")) for _ in range(3)]
    assert [reply.choices[0].message.content for reply in replies] == ["first", None, "You said: hi"]
    assert [bool(reply.choices[0].message.tool_calls) for reply in replies] == [False, True, False]


@pytest.mark.parametrize(
    ("model", "status", "code"),
    [
        ("refuses-400", 400, "context_length_exceeded"),
        ("fails-500", 500, None),
        ("rate-limits-429", 429, "rate_limit_exceeded"),
        ("unheard-of", 404, "model_not_found"),
    ],
)
async def test_errors_have_the_shape_that_the_official_client_expects(
    client: openai.AsyncOpenAI, model: str, status: int, code: str | None
) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        await client.chat.completions.create(model=model, messages=asks("hi"))
    assert (caught.value.status_code, caught.value.code) == (status, code)
    assert caught.value.body is not None
    assert (caught.value.response.headers.get("retry-after") is not None) == (status == 429)


async def test_half_a_stream_is_words_and_then_a_broken_connection(client: openai.AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(model="half-a-stream", messages=asks("one two three four"), stream=True)
    words = []

    async def read() -> None:
        async for chunk in stream:
            words.append(chunk.choices[0].delta.content or "")  # noqa: PERF401  the words before the break are the point

    with pytest.raises(openai.APIConnectionError):
        await read()
    assert "".join(words).startswith("You said:")


async def test_half_an_answer_that_is_not_streamed_breaks_too(client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.APIConnectionError):
        await client.chat.completions.create(model="half-a-stream", messages=asks("one"))


@pytest.mark.parametrize("model", ["hangs", "stalls-mid-stream", "slow"])
async def test_a_client_that_leaves_is_counted_once(stub: StubOpenAI, model: str) -> None:
    async def leave() -> None:
        body = {"model": model, "messages": asks("word " * 2000), "stream": True}
        async with aiohttp.ClientSession() as session, session.post(f"{stub.endpoint}/chat/completions", json=body) as response:
            await response.read()

    async def is_asked() -> bool:
        return stub.active == 1

    async def is_left_alone() -> bool:
        return stub.active == 0

    visitor = asyncio.create_task(leave())
    await eventually(is_asked, 1)
    visitor.cancel()
    await eventually(is_left_alone, 1)
    assert stub.cancelled == 1


async def test_a_model_changes_its_mode_while_the_stub_runs(stub: StubOpenAI, client: openai.AsyncOpenAI) -> None:
    stub.modes["stub"] = Mode.FAILS
    with pytest.raises(openai.InternalServerError):
        await client.chat.completions.create(model="stub", messages=asks("hi"))
    stub.modes["stub"] = Mode.ANSWERS
    await client.chat.completions.create(model="stub", messages=asks("hi"))
    assert [request.path for request in stub.asked("stub")] == ["/v1/chat/completions"] * 2


async def test_only_the_key_opens_a_stub_that_has_one() -> None:
    async with StubOpenAI(api_key="sesame") as stub:
        async with openai.AsyncOpenAI(base_url=stub.endpoint, api_key="sesame", max_retries=0) as client:
            assert [model.id async for model in client.models.list()] == ["stub"]
        async with openai.AsyncOpenAI(base_url=stub.endpoint, api_key="wrong", max_retries=0) as client:
            with pytest.raises(openai.AuthenticationError):
                await client.models.list()


async def test_as_a_process_it_prints_its_url_and_answers_there() -> None:
    async with (
        server_process("tests.rig.stub_openai", "--port", "0", "--models", "a,b") as server,
        openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client,
    ):
        assert [model.id async for model in client.models.list()] == ["a", "b"]
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.ClientConnectionError):
            await session.get(f"{server.url}/v1/models")
