"""A model server over its own protocol: what it says comes out as our values, what goes wrong as our errors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager

import orjson
import pytest
from aiohttp import web
from tests.rig.answering import a_server_that, pouring, saying
from tests.rig.ports import free_port
from tests.rig.stub_answers import Say
from tests.rig.stub_openai import StubOpenAI

from astromesh.dialogue import (
    Message,
    ModelEvent,
    ModelReply,
    ModelRequest,
    Sampling,
    TextDelta,
    TokenLogprob,
    ToolCall,
    ToolCallDelta,
    ToolSchema,
    Usage,
)
from astromesh.errors import AstromeshError, InvalidRequest, ModelFailed, ModelRefused, Overloaded
from astromesh.providers.backends import openai_compat
from astromesh.providers.backends.openai_compat import OpenAICompat

KEY = "sk-super-secret-0123456789"
WEATHER = ToolSchema("weather", "The weather.", {"type": "object", "properties": {"city": {"type": "string"}}})
AMPLE_S = 60.0


def asks(text: str, *, model: str = "stub", stream: bool = True, tools: tuple[ToolSchema, ...] = ()) -> ModelRequest:
    return ModelRequest(model, (Message("user", text),), tools, stream=stream)


@asynccontextmanager
async def calling(url: str, *, api_key: str | None = None, api_key_env: str | None = None) -> AsyncIterator[OpenAICompat]:
    provider = OpenAICompat("lab", url, api_key=api_key, api_key_env=api_key_env)
    try:
        yield provider
    finally:
        await provider.close()


async def everything(provider: OpenAICompat, request: ModelRequest, *, timeout_s: float = AMPLE_S) -> list[ModelEvent]:
    return [event async for event in provider.complete(request, timeout_s=timeout_s)]


async def failure(provider: OpenAICompat, request: ModelRequest, *, timeout_s: float = AMPLE_S) -> AstromeshError:
    with pytest.raises(AstromeshError) as raised:
        await everything(provider, request, timeout_s=timeout_s)
    return raised.value


@pytest.fixture
async def stub() -> AsyncIterator[StubOpenAI]:
    async with StubOpenAI(pause_s=0.005) as server:
        yield server


# What it says.


async def test_a_watched_request_streams_its_words_and_ends_with_the_whole_and_its_usage(stub: StubOpenAI) -> None:
    async with calling(stub.endpoint) as provider:
        *words, end = await everything(provider, asks("one two"))
    assert words == [TextDelta("You"), TextDelta(" said:"), TextDelta(" one"), TextDelta(" two")]
    assert end == ModelReply("You said: one two", usage=Usage(2, 4), model="stub")
    assert stub.requests[0].body["stream_options"] == {"include_usage": True}


async def test_a_request_that_nobody_watches_is_asked_for_in_one_piece(stub: StubOpenAI) -> None:
    async with calling(stub.endpoint) as provider:
        assert await everything(provider, asks("one two", stream=False)) == [
            ModelReply("You said: one two", usage=Usage(2, 4), model="stub")
        ]
    assert stub.requests[0].body["stream"] is False


async def test_tool_calls_in_pieces_are_put_together(stub: StubOpenAI) -> None:
    async with calling(stub.endpoint) as provider:
        *pieces, end = await everything(
            provider, asks('call weather {"city": "Rome \\"caput\\""}\ncall weather {"city": "Oslo"}', tools=(WEATHER,))
        )
    assert isinstance(end, ModelReply)
    assert [(call.name, orjson.loads(call.arguments)) for call in end.tool_calls] == [
        ("weather", {"city": 'Rome "caput"'}),
        ("weather", {"city": "Oslo"}),
    ]
    assert end.finish_reason == "tool_calls"
    deltas = [piece for piece in pieces if isinstance(piece, ToolCallDelta)]
    assert len(deltas) > 4
    for index, call in enumerate(end.tool_calls):
        mine = [piece for piece in deltas if piece.index == index]
        assert (mine[0].id, mine[0].name) == (call.id, call.name)
        assert "".join(piece.arguments for piece in mine) == call.arguments


async def test_tool_calls_in_one_piece_are_the_same(stub: StubOpenAI) -> None:
    stub.say("stub", Say(text="Looking.", calls=(("weather", {"city": "Rome"}),)))
    async with calling(stub.endpoint) as provider:
        (end,) = await everything(provider, asks("weather?", stream=False, tools=(WEATHER,)))
    assert isinstance(end, ModelReply)
    assert (end.text, [(call.name, call.arguments) for call in end.tool_calls]) == ("Looking.", [("weather", '{"city":"Rome"}')])


async def test_the_whole_request_is_told_in_openais_words_and_what_is_unset_is_left_out(stub: StubOpenAI) -> None:
    request = ModelRequest(
        "stub",
        (
            Message("system", "Be brief."),
            Message("user", "Weather?"),
            Message("assistant", "", (ToolCall("c1", "weather", '{"city":"Rome"}'),)),
            Message("tool", "Sunny.", tool_call_id="c1"),
        ),
        (WEATHER,),
        tool_choice="auto",
        sampling=Sampling(temperature=0.0, seed=7, max_tokens=100, stop=("END",), logit_bias=((7, -1.5),), logprobs=2),
        response_format={"type": "json_object"},
        stream=False,
    )
    async with calling(stub.endpoint) as provider:
        await everything(provider, request)
    assert stub.requests[0].body == {
        "model": "stub",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Weather?"},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Rome"}'}}],
            },
            {"role": "tool", "content": "Sunny.", "tool_call_id": "c1"},
        ],
        "stream": False,
        "tools": [
            {"type": "function", "function": {"name": "weather", "description": "The weather.", "parameters": dict(WEATHER.parameters)}}
        ],
        "temperature": 0.0,
        "seed": 7,
        "max_tokens": 100,
        "stop": ["END"],
        "logit_bias": {"7": -1.5},
        "logprobs": True,
        "top_logprobs": 2,
        "tool_choice": "auto",
        "response_format": {"type": "json_object"},
    }


async def test_log_probabilities_of_a_server_are_told_whole_and_streamed() -> None:
    other = b'{"token": "No", "logprob": -1, "bytes": [78, 111]}'
    told = b'{"content": [{"token": "Yes", "logprob": -0.5, "bytes": null, "top_logprobs": [%b]}]}' % other
    expected = (TokenLogprob(b"Yes", -0.5, (TokenLogprob(b"No", -1.0),)),)
    whole = b'{"choices": [{"message": {"content": "Yes"}, "logprobs": %b}]}' % told
    async with a_server_that(saying(whole)) as url, calling(url) as provider:
        (reply,) = await everything(provider, asks("hello", stream=False))
    assert isinstance(reply, ModelReply)
    assert reply.logprobs == expected
    chunk = b'data: {"choices": [{"delta": {"content": "Yes"}, "logprobs": %b, "finish_reason": "stop"}]}\n\n' % told
    async with a_server_that(saying(chunk + b"data: [DONE]\n\n")) as url, calling(url) as provider:
        delta, reply = await everything(provider, asks("hello"))
    assert isinstance(reply, ModelReply)
    assert delta == TextDelta("Yes", logprobs=expected)
    assert reply.logprobs == expected


async def test_a_prompt_without_roles_is_refused_by_name_and_never_sent(stub: StubOpenAI) -> None:
    async with calling(stub.endpoint) as provider:
        error = await failure(provider, ModelRequest("stub", (), prompt="Once upon"))
    assert isinstance(error, InvalidRequest)
    assert error.param == "prompt"
    assert stub.requests == []


async def test_an_answer_that_was_cut_says_so(stub: StubOpenAI) -> None:
    async with calling(stub.endpoint) as provider:
        request = ModelRequest("stub", (Message("user", "one two three"),), sampling=Sampling(max_tokens=2))
        (*_, end) = await everything(provider, request)
    assert isinstance(end, ModelReply)
    assert (end.finish_reason, end.text) == ("length", "You said:")


async def test_tokens_pass_through_as_they_are_made_and_leaving_ends_the_request_at_the_server(stub: StubOpenAI) -> None:
    async with calling(stub.endpoint) as provider:
        async with aclosing(provider.complete(asks("one two", model="stalls-mid-stream"), timeout_s=AMPLE_S)) as stream:
            assert await anext(stream) == TextDelta("You")
            assert stub.active == 1
        async with asyncio.timeout(AMPLE_S):
            while stub.active:
                await asyncio.sleep(0.001)
    assert stub.cancelled == 1


async def test_a_key_given_or_found_in_its_variable_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_KEY", f"{KEY}\n")
    async with (
        StubOpenAI(api_key=KEY) as stub,
        calling(stub.endpoint, api_key=KEY) as given,
        calling(stub.endpoint, api_key_env="LAB_KEY") as found,
    ):
        assert await everything(given, asks("hello"))
        assert await everything(found, asks("hello"))


# What goes wrong: its class, its code, whether it certainly did not happen, and the knob that the hint names.


async def test_a_request_that_the_server_finds_wrong_is_the_callers_mistake(stub: StubOpenAI) -> None:
    async with calling(stub.endpoint) as provider:
        error = await failure(provider, asks("hello", model="refuses-400"))
    assert isinstance(error, ModelRefused)
    assert (error.code, error.definite) == ("model_refused_request", True)
    assert "maximum context length is 8 tokens" in error.message
    assert error.hint


async def test_a_key_that_the_server_refuses_names_the_knob_and_never_the_key() -> None:
    async with StubOpenAI(api_key="another") as stub, calling(stub.endpoint, api_key=KEY) as provider:
        error = await failure(provider, asks("hello"))
    assert isinstance(error, ModelFailed)
    assert (error.code, error.definite) == ("model_missing_api_key", True)
    assert "api_key" in error.hint
    assert KEY not in error.message + error.hint


async def test_a_server_that_repeats_the_key_in_its_complaint_does_not_get_it_into_ours() -> None:
    for status in (400, 401, 429, 500):
        body = orjson.dumps({"error": {"message": f"Incorrect API key provided: {KEY}."}})
        async with a_server_that(saying(body, status=status)) as url, calling(url, api_key=KEY) as provider:
            error = await failure(provider, asks("hello"))
        assert KEY not in str(error) + error.hint
        assert "Incorrect API key provided" in error.message


async def test_a_key_whose_variable_is_not_set_is_missed_before_anything_is_sent(stub: StubOpenAI, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LAB_KEY", raising=False)
    async with calling(stub.endpoint, api_key_env="LAB_KEY") as provider:
        error = await failure(provider, asks("hello"))
    assert isinstance(error, ModelFailed)
    assert (error.code, error.definite) == ("model_missing_api_key", True)
    assert "LAB_KEY" in error.hint
    assert stub.requests == []


async def test_a_model_that_the_server_does_not_have_is_found_elsewhere_or_nowhere(stub: StubOpenAI) -> None:
    async with calling(stub.endpoint) as provider:
        error = await failure(provider, asks("hello", model="unheard-of"))
    assert isinstance(error, ModelFailed)
    assert (error.code, error.definite) == ("model_no_eligible_provider", True)
    assert stub.endpoint in error.hint


async def test_a_server_at_its_limit_is_overloaded_and_says_when_to_come_back(stub: StubOpenAI) -> None:
    async with calling(stub.endpoint) as provider:
        error = await failure(provider, asks("hello", model="rate-limits-429"))
    assert isinstance(error, Overloaded)
    assert (error.code, error.definite, error.retry_after_s) == ("overloaded", True, 1)
    assert error.hint


@pytest.mark.parametrize(("said", "understood"), [("30", 30), ("soon", 1), ("\u00b2", 1), ("-3", 1), ("9" * 30, 1), ("999999", 3600)])
async def test_a_retry_after_that_is_no_number_of_seconds_is_one_second(said: str, understood: int) -> None:
    async with a_server_that(saying(b"{}", status=429, headers={"Retry-After": said})) as url, calling(url) as provider:
        error = await failure(provider, asks("hello"))
    assert isinstance(error, Overloaded)
    assert error.retry_after_s == understood


async def test_a_server_that_fails_before_its_first_word_did_certainly_nothing(stub: StubOpenAI) -> None:
    async with calling(stub.endpoint) as provider:
        error = await failure(provider, asks("hello", model="fails-500"))
    assert isinstance(error, ModelFailed)
    assert (error.code, error.definite) == ("model_provider_unavailable", True)
    assert stub.endpoint in error.hint


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("model", ["hangs", "stalls-mid-stream"])
async def test_a_server_that_falls_silent_is_given_up_when_time_is_over(stub: StubOpenAI, model: str, *, stream: bool) -> None:
    async with calling(stub.endpoint) as provider:
        error = await failure(provider, asks("one two", model=model, stream=stream), timeout_s=0.05)
    assert isinstance(error, ModelFailed)
    assert (error.code, error.definite) == ("model_timeout", False)
    assert "timeout" in error.hint


@pytest.mark.parametrize("stream", [True, False])
async def test_half_an_answer_is_no_answer(stub: StubOpenAI, *, stream: bool) -> None:
    async with calling(stub.endpoint) as provider:
        error = await failure(provider, asks("one two three four", model="half-a-stream", stream=stream))
    assert isinstance(error, ModelFailed)
    assert (error.code, error.definite) == ("model_provider_unavailable", False)
    assert error.hint


async def test_a_stream_that_ends_in_good_order_and_without_a_reason_is_half_an_answer() -> None:
    body = b'data: {"choices": [{"index": 0, "delta": {"content": "Half"}}]}\n\ndata: [DONE]\n\n'
    async with a_server_that(saying(body)) as url, calling(url) as provider:
        error = await failure(provider, asks("hello"))
    assert (error.code, error.definite) == ("model_provider_unavailable", False)


async def test_nobody_listening_is_a_connection_refused() -> None:
    async with calling(f"http://127.0.0.1:{free_port()}/v1") as provider:
        error = await failure(provider, asks("hello"))
    assert isinstance(error, ModelFailed)
    assert (error.code, error.definite) == ("model_connection_refused", True)
    assert "endpoint" in error.hint


async def test_a_host_that_has_no_address_is_a_failure_of_the_name() -> None:
    async with calling("http://no-such-host.invalid:11434/v1") as provider:
        error = await failure(provider, asks("hello"))
    assert isinstance(error, ModelFailed)
    assert (error.code, error.definite) == ("model_dns_resolution_failed", True)
    assert "endpoint" in error.hint


NO_CHUNKS = [
    b"[]",
    b"7",
    b"nonsense",
    b'{"error": {"message": "overloaded"}}',
    b'{"choices": [7]}',
    b'{"choices": 7}',
    b'{"choices": [{"delta": 7}]}',
]
NO_CHUNKS += [b'{"choices": [{"delta": {"content": 7}}]}', b'{"choices": [{"delta": {"tool_calls": [7]}}]}', b'{"choices": [], "usage": 7}']
NO_CHUNKS += [
    b'{"choices": [{"delta": {"tool_calls": [{"index": 9999999}]}}]}',
    b'{"choices": [{"delta": {"tool_calls": [{"index": null}]}}]}',
]
NO_CHUNKS += [
    b'{"choices": [{"delta": {"tool_calls": [{"function": {"arguments": {"a": 1}}}]}}]}',
    b'{"choices": [{"finish_reason": [1]}]}',
    b'{"choices": [{"delta": {"content": "x"}, "logprobs": {"content": [7]}}]}',
    b'{"choices": [{"delta": {"content": "x"}, "logprobs": {"content": [{"token": "x", "logprob": -1, "bytes": [256]}]}}]}',
]


@pytest.mark.parametrize("chunk", NO_CHUNKS)
async def test_what_is_no_chunk_of_a_completion_is_the_servers_failure(chunk: bytes) -> None:
    async with a_server_that(saying(b"data: " + chunk + b"\n\n")) as url, calling(url) as provider:
        error = await failure(provider, asks("hello"))
    assert isinstance(error, ModelFailed)
    assert error.code == "model_provider_unavailable"


NO_COMPLETIONS = [
    b"",
    b"[]",
    b"7",
    b"{}",
    b'{"choices": []}',
    b'{"choices": [{"message": 7}]}',
    b'{"choices": [{"message": {"content": 7}}]}',
]
NO_COMPLETIONS += [b'{"choices": [{"message": {"tool_calls": 7}}]}', b'{"choices": [{"message": {}}], "usage": 7}']
NO_COMPLETIONS += [
    b'{"choices": [{"message": {}, "finish_reason": [1]}]}',
    b'{"choices": [{"message": {}}], "usage": {"prompt_tokens": [1]}}',
]


@pytest.mark.parametrize("body", NO_COMPLETIONS)
async def test_what_is_no_completion_is_the_servers_failure(body: bytes) -> None:
    async with a_server_that(saying(body)) as url, calling(url) as provider:
        error = await failure(provider, asks("hello", stream=False))
    assert isinstance(error, ModelFailed)
    assert error.code == "model_provider_unavailable"


async def test_an_answer_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openai_compat, "REPLY_BYTES_MAX", 1000)

    pours = pouring(b'data: {"choices": [{"delta": {"content": "xxxxxxxxxxxxxxxx"}}]}\n\n')
    async with a_server_that(pours) as url, calling(url) as provider:
        assert (await failure(provider, asks("hello"))).code == "model_provider_unavailable"
        assert (await failure(provider, asks("hello", stream=False))).code == "model_provider_unavailable"


async def test_a_stream_that_is_kept_alive_for_ever_and_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openai_compat, "IDLE_BYTES_MAX", 1000)
    for piece in (b": still here\n\n", b'data: {"choices": []}\n\n'):
        async with a_server_that(pouring(piece)) as url, calling(url) as provider:
            assert (await failure(provider, asks("hello"))).code == "model_provider_unavailable"
    words = b"".join(b': alive\n\ndata: {"choices": [{"delta": {"content": "a"}}]}\n\n' for _ in range(100))
    end = b'data: {"choices": [{"delta": {}, "finish_reason": "stop"}]}\n\ndata: [DONE]\n\n'
    async with a_server_that(saying(words + end)) as url, calling(url) as provider:
        assert len(await everything(provider, asks("hello"))) == 101  # all of it is more, and no part between two words


@pytest.mark.parametrize(("headers", "after_s"), [({"Retry-After": "9"}, 9), ({}, 0)])
async def test_a_server_that_cannot_answer_now_is_worth_another_try(headers: dict[str, str], after_s: int) -> None:
    async with a_server_that(saying(b"{}", status=503, headers=headers)) as url, calling(url) as provider:
        error = await failure(provider, asks("hello"))
    assert isinstance(error, ModelFailed)
    assert (error.code, error.definite, error.retry_after_s) == ("model_provider_unavailable", True, after_s)


async def test_a_login_in_an_address_is_used_and_never_told() -> None:
    async with calling(f"http://ada:{KEY}@127.0.0.1:{free_port()}/v1") as provider:
        error = await failure(provider, asks("hello"))
    assert (error.code, KEY in str(error) + error.hint) == ("model_connection_refused", False)


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b'{"error": {"message": "in OpenAI\'s shape"}}', "in OpenAI's shape"),
        (b'{"error": "in one word"}', "in one word"),
        (b'{"message": "at the top"}', "at the top"),
        (b"plain text", "plain text"),
        (b"[1]", "[1]"),
        (b'{"error": {"message": null}}', "no reason given"),
        (b"", "no reason given"),
    ],
)
async def test_a_complaint_is_told_in_whatever_shape_it_comes(body: bytes, told: str) -> None:
    async with a_server_that(saying(body, status=500)) as url, calling(url) as provider:
        assert told in (await failure(provider, asks("hello"))).message


async def test_a_stream_in_which_the_server_gives_up_repeats_what_it_says() -> None:
    async with a_server_that(saying(b'data: {"error": {"message": "out of memory"}}\n\n')) as url, calling(url) as provider:
        error = await failure(provider, asks("hello"))
    assert (error.code, error.definite) == ("model_provider_unavailable", False)
    assert "out of memory" in error.message


async def test_a_stream_that_was_read_to_its_end_gives_its_connection_to_the_next() -> None:
    ports, replied = set(), asyncio.Event()

    async def answer(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        ports.add(request.transport.get_extra_info("peername")[1])
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b'data: {"choices": [{"delta": {"content": "Yes."}, "finish_reason": "stop"}]}\n\ndata: [DONE]\n\n')
        await replied.wait()  # the end of the body comes after the end of the answer
        return response

    async with a_server_that(answer) as url, calling(url) as provider:
        for _ in range(3):
            async for event in provider.complete(asks("hello"), timeout_s=AMPLE_S):
                if isinstance(event, ModelReply):
                    replied.set()
            replied.clear()
    assert len(ports) == 1


async def test_one_client_serves_many_at_once(stub: StubOpenAI) -> None:
    async def ask(provider: OpenAICompat, number: int) -> str:
        stream: AsyncGenerator[ModelEvent, None] = provider.complete(asks(f"number {number}"), timeout_s=AMPLE_S)
        events = [event async for event in stream]
        assert isinstance(events[-1], ModelReply)
        return events[-1].text

    async with calling(stub.endpoint) as provider:
        assert await asyncio.gather(*(ask(provider, number) for number in range(20))) == [
            f"You said: number {number}" for number in range(20)
        ]
