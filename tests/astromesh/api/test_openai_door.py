"""OpenAI's door, with their own client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import openai
import orjson
import pytest
from tests.rig.doors import Doors, open_doors, sent_events
from tests.rig.held_model import AMPLE_S, HeldModel
from tests.rig.mesh_view import member
from tests.rig.rooms import Rooms, an_agent

from astromesh.dialogue import Message, ModelReply, ModelRequest, Sampling, ToolCall, ToolSchema, Usage
from astromesh.errors import AstromeshError, ModelFailed, ModelRefused, ModelUnavailable, Overloaded
from astromesh.providers.backends.scripted import Scripted
from astromesh.tools.backends.datetime_now import DatetimeNow

HELLO: Any = [{"role": "user", "content": "Hello"}]
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
CALLS = ModelReply("", (ToolCall("c1", "weather", '{"city": "Rome"}'), ToolCall("c2", "weather", "{}")), "tool_calls", Usage(5, 2, 1), "m")


@pytest.fixture
def rooms() -> Rooms:
    return Rooms()


@pytest.fixture
async def doors(rooms: Rooms) -> AsyncIterator[Doors]:
    async with open_doors(rooms) as opened:
        yield opened


@pytest.fixture
async def client(doors: Doors) -> AsyncIterator[openai.AsyncOpenAI]:
    async with doors.openai() as theirs:
        yield theirs


def says(rooms: Rooms, *replies: ModelReply | AstromeshError | str) -> Scripted:
    model = Scripted(replies)
    rooms.has(model)
    return model


async def test_a_completion_is_read_by_their_client(rooms: Rooms, client: openai.AsyncOpenAI) -> None:
    says(rooms, "Good day.")
    raw = await client.chat.completions.with_raw_response.create(model="m", messages=HELLO)
    reply = raw.parse()
    assert (reply.object, reply.model, reply.id[:9]) == ("chat.completion", "m", "chatcmpl-")
    assert (reply.choices[0].message.role, reply.choices[0].message.content) == ("assistant", "Good day.")
    assert reply.choices[0].finish_reason == "stop"
    assert reply.usage is not None
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens, reply.usage.total_tokens) == (1, 2, 3)
    assert {name: raw.headers[f"X-Astromesh-{name}"] for name in ("Node", "Home", "Route", "Attempts")} == {
        "Node": "here",
        "Home": "here",
        "Route": "local",
        "Attempts": "1",
    }


async def test_a_stream_is_read_by_their_client_word_by_word(rooms: Rooms, client: openai.AsyncOpenAI) -> None:
    says(rooms, "Good day.")
    raw = await client.chat.completions.with_raw_response.create(
        model="m", messages=HELLO, stream=True, stream_options={"include_usage": True}
    )
    assert raw.headers["X-Astromesh-Node"] == "here"
    chunks = [chunk async for chunk in raw.parse()]
    assert [chunk.choices[0].delta.content for chunk in chunks if chunk.choices] == ["", "Good ", "day.", None]
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices] == [None, None, None, "stop"]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert (chunks[-1].usage.prompt_tokens, chunks[-1].usage.completion_tokens) == (1, 2)
    assert len({chunk.id for chunk in chunks}) == 1


async def test_usage_is_streamed_only_where_it_is_wanted(rooms: Rooms, client: openai.AsyncOpenAI) -> None:
    says(rooms, "Good day.")
    chunks = [chunk async for chunk in await client.chat.completions.create(model="m", messages=HELLO, stream=True)]
    assert all(chunk.choices and chunk.usage is None for chunk in chunks)


async def test_a_stream_ends_with_their_done(rooms: Rooms, doors: Doors) -> None:
    says(rooms, "Yes.")
    async with doors.http.post("/v1/chat/completions", json={"model": "m", "messages": HELLO, "stream": True}) as response:
        assert response.headers["Content-Type"].startswith("text/event-stream")
        events = [event async for event in sent_events(response)]
    assert events[-1].data == "[DONE]"
    assert {event.event for event in events} == {""}


async def test_tool_calls_pass_through_whole(rooms: Rooms, client: openai.AsyncOpenAI) -> None:
    model = says(rooms, CALLS)
    reply = await client.chat.completions.create(model="m", messages=HELLO, tools=[WEATHER], tool_choice="auto")
    message = reply.choices[0].message
    assert message.content is None
    assert message.tool_calls is not None
    assert [(call.id, call.function.name, call.function.arguments) for call in message.tool_calls if call.type == "function"] == [
        ("c1", "weather", '{"city": "Rome"}'),
        ("c2", "weather", "{}"),
    ]
    assert reply.choices[0].finish_reason == "tool_calls"
    assert model.asked[0].tools == (ToolSchema("weather", "The weather.", WEATHER["function"]["parameters"]),)
    assert model.asked[0].tool_choice == "auto"


async def test_tool_calls_pass_through_in_pieces(rooms: Rooms, client: openai.AsyncOpenAI) -> None:
    says(rooms, CALLS)
    stream = await client.chat.completions.create(model="m", messages=HELLO, tools=[WEATHER], stream=True)
    deltas = [delta async for chunk in stream for delta in chunk.choices[0].delta.tool_calls or ()]
    assert [(delta.index, delta.id, delta.type, delta.function.name, delta.function.arguments) for delta in deltas if delta.function] == [
        (0, "c1", "function", "weather", '{"city": "Rome"}'),
        (1, "c2", "function", "weather", "{}"),
    ]


async def test_the_results_of_tools_go_back_to_the_model(rooms: Rooms, client: openai.AsyncOpenAI) -> None:
    model = says(rooms, "Sunny.")
    messages: Any = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Weather "}, {"type": "text", "text": "in Rome?"}]},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "25 °C"},
    ]
    await client.chat.completions.create(model="m", messages=messages)
    assert model.asked[0].transcript == (
        Message("system", "Be brief."),
        Message("user", "Weather in Rome?"),
        Message("assistant", "", (ToolCall("c1", "weather", "{}"),)),
        Message("tool", "25 °C", tool_call_id="c1"),
    )


async def test_every_parameter_that_is_honoured_reaches_the_model(rooms: Rooms, client: openai.AsyncOpenAI) -> None:
    model = says(rooms, "Yes.", "Yes.")
    await client.chat.completions.create(
        model="m",
        messages=HELLO,
        temperature=0.5,
        top_p=0.9,
        seed=7,
        presence_penalty=0.1,
        frequency_penalty=0.2,
        max_completion_tokens=9,
        max_tokens=99,
        stop=["END", "STOP"],
        response_format={"type": "json_object"},
        logit_bias={"50256": -100, "7": 1.5},
        logprobs=True,
        top_logprobs=2,
        extra_body={"top_k": 40, "min_p": 0.05, "repeat_penalty": 1.1},
    )
    await client.chat.completions.create(model="m", messages=HELLO, stop="END", max_tokens=99, response_format={"type": "text"})
    assert model.asked == [
        ModelRequest(
            "m",
            (Message("user", "Hello"),),
            sampling=Sampling(0.5, 0.9, 40, 0.05, 7, 0.1, 0.2, 1.1, 9, ("END", "STOP"), ((7, 1.5), (50256, -100.0)), 2),
            response_format={"type": "json_object"},
            stream=False,
        ),
        ModelRequest("m", (Message("user", "Hello"),), sampling=Sampling(max_tokens=99, stop=("END",)), stream=False),
    ]


async def test_keys_that_do_nothing_are_accepted_and_named(rooms: Rooms, client: openai.AsyncOpenAI) -> None:
    says(rooms, "Yes.", "Yes.", "Yes.")
    raw = await client.chat.completions.with_raw_response.create(
        model="m", messages=HELLO, user="ada", store=False, extra_body={"mood": "sunny", "absent": None}
    )
    assert raw.headers["X-Astromesh-Ignored"] == "mood, store, user"
    raw = await client.chat.completions.with_raw_response.create(model="m", messages=HELLO)
    assert "X-Astromesh-Ignored" not in raw.headers


async def test_keys_inside_of_messages_and_tools_are_named_where_they_say_something(rooms: Rooms, client: openai.AsyncOpenAI) -> None:
    says(rooms, "Yes.")
    earlier: Any = {"role": "assistant", "content": "Hello.", "refusal": None, "annotations": []}
    named: Any = {"role": "user", "content": "Hello", "name": "ada"}
    strict: Any = {"type": "function", "function": {**WEATHER["function"], "strict": True}}
    raw = await client.chat.completions.with_raw_response.create(model="m", messages=[named, earlier, named], tools=[strict])
    assert raw.headers["X-Astromesh-Ignored"] == "messages.name, tools.function.strict"


async def test_keys_inside_of_parts_and_calls_are_named_where_they_say_something(rooms: Rooms, doors: Doors) -> None:
    says(rooms, "Yes.")
    part = {"type": "text", "text": "Hello", "cache_control": {"type": "ephemeral"}, "annotations": []}
    call = {"id": "c1", "type": "function", "index": 7, "function": {"name": "weather", "arguments": "{}", "strict": True}}
    messages = [{"role": "user", "content": [part]}, {"role": "assistant", "tool_calls": [call]}]
    async with doors.http.post("/v1/chat/completions", json={"model": "m", "messages": messages}) as response:
        assert response.status == 200
        named = response.headers["X-Astromesh-Ignored"]
    assert named == "messages.content.cache_control, messages.tool_calls.function.strict, messages.tool_calls.index"


async def test_how_much_to_think_and_to_say_is_a_wish_that_is_named_where_nobody_honours_it(
    rooms: Rooms, client: openai.AsyncOpenAI
) -> None:
    says(rooms, "Yes.")
    raw = await client.chat.completions.with_raw_response.create(model="m", messages=HELLO, reasoning_effort="low", verbosity="high")
    assert raw.headers["X-Astromesh-Ignored"] == "reasoning_effort, verbosity"


async def test_a_top_k_of_minus_one_means_all_of_them(rooms: Rooms, client: openai.AsyncOpenAI) -> None:
    model = says(rooms, "Yes.")
    await client.chat.completions.create(model="m", messages=HELLO, extra_body={"top_k": -1})
    assert [one.sampling.top_k for one in model.asked] == [-1]
    with pytest.raises(openai.BadRequestError, match="top_k"):
        await client.chat.completions.create(model="m", messages=HELLO, extra_body={"top_k": -2})


async def test_who_wants_one_call_at_a_time_gets_one(rooms: Rooms, client: openai.AsyncOpenAI) -> None:
    says(rooms, CALLS, CALLS, CALLS)
    whole = await client.chat.completions.create(model="m", messages=HELLO, tools=[WEATHER], parallel_tool_calls=False)
    assert [call.id for call in whole.choices[0].message.tool_calls or ()] == ["c1"]
    assert whole.choices[0].finish_reason == "tool_calls"
    stream = await client.chat.completions.create(model="m", messages=HELLO, tools=[WEATHER], parallel_tool_calls=False, stream=True)
    deltas = [call for chunk in [one async for one in stream] for choice in chunk.choices for call in choice.delta.tool_calls or ()]
    assert {delta.index for delta in deltas} == {0}
    assert "".join((delta.function.arguments or "") for delta in deltas if delta.function) == '{"city": "Rome"}'
    both = await client.chat.completions.create(model="m", messages=HELLO, tools=[WEATHER], parallel_tool_calls=True)
    assert [call.id for call in both.choices[0].message.tool_calls or ()] == ["c1", "c2"]


async def test_a_key_that_no_header_may_repeat_is_named_as_far_as_it_may(rooms: Rooms, doors: Doors) -> None:
    says(rooms, "Yes.", "Yes.")
    for body in ({"a\r\nX-Evil: 1": 1, "b\0": 2, "ü": 3}, {f"key-{number}" * 10: 1 for number in range(3000)}):
        async with doors.http.post("/v1/chat/completions", json={"model": "m", "messages": HELLO, **body}) as response:
            assert response.status == 200
            assert "X-Evil" not in response.headers
            assert 0 < len(response.headers["X-Astromesh-Ignored"]) < 1000


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("n", 17),
        ("n", 0),
        ("top_logprobs", 3),
        ("logit_bias", {"50256": -101}),
        ("logit_bias", {"the": 1}),
        ("modalities", ["audio"]),
        ("functions", []),
        ("audio", {}),
        ("temperature", 7),
        ("max_tokens", 0),
        ("messages", []),
        ("stop", ["x"] * 17),
        ("tools", [{"type": "web_search"}]),
    ],
)
async def test_a_known_key_that_cannot_be_honoured_is_400_and_named(
    rooms: Rooms, client: openai.AsyncOpenAI, key: str, value: object
) -> None:
    model = says(rooms, "No.")
    with pytest.raises(openai.BadRequestError) as raised:
        await client.chat.completions.create(model="m", messages=HELLO, extra_body={key: value})
    assert (raised.value.status_code, raised.value.type) == (400, "invalid_request_error")
    assert raised.value.param is not None
    assert raised.value.param.split(".")[0] == key
    assert key in raised.value.message
    assert model.asked == []


@pytest.mark.parametrize(
    "message",
    [
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:"}}]},
        {"role": "tool", "content": "25 °C"},
        {"role": "wizard", "content": "Hello"},
    ],
)
async def test_a_message_that_cannot_be_honoured_is_400(rooms: Rooms, client: openai.AsyncOpenAI, message: Any) -> None:
    says(rooms, "No.")
    with pytest.raises(openai.BadRequestError, match="messages"):
        await client.chat.completions.create(model="m", messages=[message])


# Failures, in their shape.


@pytest.mark.parametrize("stream", [False, True])
async def test_a_model_that_nobody_ever_offered_is_404(client: openai.AsyncOpenAI, *, stream: bool) -> None:
    with pytest.raises(openai.NotFoundError) as raised:
        await client.chat.completions.create(model="nobodys", messages=HELLO, stream=stream)
    assert (raised.value.code, raised.value.type) == ("model_not_found", "invalid_request_error")
    assert "nobodys" in raised.value.message


async def test_an_agent_that_nobody_ever_had_is_404_in_the_same_words(client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as raised:
        await client.chat.completions.create(model="agent:nobody", messages=HELLO)
    assert raised.value.code == "model_not_found"


async def test_a_model_whose_node_is_gone_is_503_and_says_when_to_come_back(rooms: Rooms, client: openai.AsyncOpenAI) -> None:
    rooms.sees(member("b-000002", models=["m"], status="dead"))
    with pytest.raises(openai.InternalServerError) as raised:
        await client.chat.completions.create(model="m", messages=HELLO)
    assert (raised.value.status_code, raised.value.code) == (503, "model_unavailable")
    assert raised.value.response.headers["Retry-After"] == "5"


async def test_a_model_whose_nodes_are_all_full_is_429_and_says_when_the_first_has_room(rooms: Rooms, client: openai.AsyncOpenAI) -> None:
    rooms.sees(member("b-000002", models=["m"]), member("c-000003", models=["m"]))
    full = {name: Scripted([Overloaded(f"{name} is full", retry_after_s=s)] * 2) for name, s in (("b-000002", 7), ("c-000003", 2))}
    rooms.neighbours.models = dict(full)
    for stream in (False, True):
        with pytest.raises(openai.RateLimitError) as raised:
            await client.chat.completions.create(model="m", messages=HELLO, stream=stream)
        assert (raised.value.code, raised.value.response.headers["Retry-After"]) == ("overloaded", "2")


@pytest.mark.parametrize(
    ("failure", "kind", "status", "code"),
    [
        (Overloaded("busy", retry_after_s=3), openai.RateLimitError, 429, "overloaded"),
        (ModelRefused("8 tokens are the limit"), openai.BadRequestError, 400, "model_refused_request"),
        (ModelFailed("no key", code="model_missing_api_key"), openai.InternalServerError, 502, "model_missing_api_key"),
        (ModelUnavailable("loading"), openai.InternalServerError, 503, "model_unavailable"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
async def test_a_failure_before_the_first_word_has_a_status_of_its_own_even_for_a_stream(
    rooms: Rooms, client: openai.AsyncOpenAI, failure: AstromeshError, kind: type[openai.APIStatusError], status: int, code: str
) -> None:
    for stream in (False, True):
        says(rooms, failure)
        with pytest.raises(kind) as raised:
            await client.chat.completions.create(model="m", messages=HELLO, stream=stream)
        assert (raised.value.status_code, raised.value.code) == (status, code)
        assert failure.message in raised.value.message


async def test_an_error_in_mid_stream_is_raised_by_their_client_after_the_words_before_it(rooms: Rooms, client: openai.AsyncOpenAI) -> None:
    model = HeldModel("Half ", failure=ModelFailed("the worker died", code="model_provider_unavailable"))
    model.let_all()
    rooms.has(model)
    stream = await client.chat.completions.create(model="m", messages=HELLO, stream=True)
    words = []
    failure: openai.APIError | None = None
    try:
        async for chunk in stream:
            words.append(chunk.choices[0].delta.content)  # noqa: PERF401  what came before the failure is kept
    except openai.APIError as error:
        failure = error
    assert words == ["", "Half "]
    assert failure is not None
    assert "the worker died" in failure.message


async def test_a_mistake_of_ours_in_mid_stream_breaks_it_off_and_is_not_read_as_its_end(rooms: Rooms, doors: Doors) -> None:
    model = HeldModel("Half ", failure=ZeroDivisionError("/home/secret"))
    model.let_all()
    rooms.has(model)
    async with doors.http.post("/v1/chat/completions", json={"model": "m", "messages": HELLO, "stream": True}) as response:
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.read()


async def test_a_refused_door_speaks_their_language_too(doors: Doors) -> None:
    for path, how, status in (
        ("/v1/chat/completions", {"data": b"{", "headers": {"Content-Type": "application/json"}}, 400),
        ("/v1/chat/completions", {"data": b"{}", "headers": {"Content-Type": "text/plain"}}, 415),
        ("/v1/chat/completions", {"json": {}, "headers": {"Origin": "http://evil.example"}}, 403),
        ("/v1/chat/nothing", {"json": {}}, 404),
        ("/v1/models", {"json": {}}, 405),
    ):
        async with doors.http.post(path, **how) as response:  # type: ignore[arg-type]
            body = orjson.loads(await response.read())
            assert (path, response.status) == (path, status)
            assert response.content_type == "application/json"
            assert body["error"].keys() == {"message", "type", "param", "code"}


async def test_tokens_arrive_while_the_model_still_speaks(rooms: Rooms, client: openai.AsyncOpenAI) -> None:
    model = HeldModel("One ", "two.")
    rooms.has(model)
    model.let()
    async with asyncio.timeout(AMPLE_S):
        async for chunk in await client.chat.completions.create(model="m", messages=HELLO, stream=True):
            if chunk.choices[0].delta.content == "One ":
                assert model.said == 1
                model.let(2)
    assert model.finished == 1


# Agents as models.


async def test_an_agent_is_asked_by_its_name_with_the_clients_history(rooms: Rooms, client: openai.AsyncOpenAI) -> None:
    model = Scripted(["You are Ada."])
    rooms.hosts(an_agent(provider=model, system="You are a desk.", memory=rooms.memory))
    messages: Any = [
        {"role": "user", "content": "I am Ada."},
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": "Who am I?"},
    ]
    raw = await client.chat.completions.with_raw_response.create(model="agent:desk", messages=messages)
    reply = raw.parse()
    assert (reply.model, reply.choices[0].message.content) == ("agent:desk", "You are Ada.")
    assert raw.headers["X-Astromesh-Node"] == "here"
    assert [message.content for message in model.asked[0].transcript] == ["You are a desk.", "I am Ada.", "Hello.", "Who am I?"]


async def test_an_agents_answer_streams(rooms: Rooms, client: openai.AsyncOpenAI) -> None:
    rooms.hosts(an_agent(provider=Scripted(["Good day, Ada."])))
    stream = await client.chat.completions.create(model="agent:desk", messages=HELLO, stream=True, stream_options={"include_usage": True})
    chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "Good day, Ada."
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 3


async def test_an_agent_that_asks_its_model_twice_streams_one_message(rooms: Rooms, client: openai.AsyncOpenAI) -> None:
    model = Scripted([ModelReply("", (ToolCall("c1", "datetime_now", "{}"),), "tool_calls"), "It is noon."])
    rooms.hosts(an_agent(provider=model, tools=[DatetimeNow()]))
    stream = await client.chat.completions.create(model="agent:desk", messages=HELLO, stream=True)
    choices = [choice async for chunk in stream for choice in chunk.choices]
    assert [choice.delta.role for choice in choices if choice.delta.role] == ["assistant"]
    assert [choice.finish_reason for choice in choices if choice.finish_reason] == ["stop"]
    assert "".join(choice.delta.content or "" for choice in choices) == "It is noon."
    assert not any(choice.delta.tool_calls for choice in choices)


@pytest.mark.parametrize("stream", [False, True])
async def test_an_agent_of_another_node_names_its_home(*, stream: bool) -> None:
    a, b = Rooms("a", linked=True), Rooms("b")
    b.hosts(an_agent(provider=Scripted(["Good day."])))
    async with a.open_door(), b.open_door() as at, open_doors(a) as doors:
        a.sees(member("b-000000", title="b", agents=["desk"], link=at))
        body = {"model": "agent:desk", "messages": HELLO, "stream": stream}
        async with doors.http.post("/v1/chat/completions", json=body) as response:
            await response.read()
            assert (response.status, response.headers["X-Astromesh-Home"], response.headers["X-Astromesh-Node"]) == (200, "b", "b")


@pytest.mark.parametrize("how", [{"tools": []}, {"response_format": {"type": "text"}}, {"n": 1}, {"logit_bias": {}}, {"logprobs": False}])
async def test_what_asks_an_agent_for_nothing_is_no_reason_to_refuse(rooms: Rooms, client: openai.AsyncOpenAI, how: dict[str, Any]) -> None:
    rooms.hosts(an_agent(provider=Scripted(["Good day."])))
    reply = await client.chat.completions.create(model="agent:desk", messages=HELLO, **how)
    assert reply.choices[0].message.content == "Good day."


async def test_a_session_of_a_model_is_400(rooms: Rooms, client: openai.AsyncOpenAI) -> None:
    says(rooms, "No.")
    with pytest.raises(openai.BadRequestError) as raised:
        await client.chat.completions.create(model="m", messages=HELLO, extra_headers={"X-Astromesh-Session": "s1"})
    assert raised.value.param == "X-Astromesh-Session"


async def test_a_session_of_ours_is_gone_on_with_when_it_is_named(rooms: Rooms, client: openai.AsyncOpenAI) -> None:
    model = Scripted(["Hello, Ada.", "You are Ada."])
    rooms.hosts(an_agent(provider=model, memory=rooms.memory))
    session = {"X-Astromesh-Session": "s1"}
    await client.chat.completions.create(model="agent:desk", messages=[{"role": "user", "content": "I am Ada."}], extra_headers=session)
    await client.chat.completions.create(model="agent:desk", messages=[{"role": "user", "content": "Who am I?"}], extra_headers=session)
    assert [message.content for message in model.asked[1].transcript] == ["I am Ada.", "Hello, Ada.", "Who am I?"]


@pytest.mark.parametrize(
    ("how", "param"),
    [
        ({"messages": HELLO, "tools": [WEATHER]}, "tools"),
        ({"messages": HELLO, "response_format": {"type": "json_object"}}, "response_format"),
        ({"messages": [*HELLO, {"role": "assistant", "content": "Hello."}]}, "messages"),
        ({"messages": [*HELLO, *HELLO], "extra_headers": {"X-Astromesh-Session": "s1"}}, "messages"),
        ({"messages": HELLO, "extra_headers": {"X-Astromesh-Session": "x" * 201}}, "X-Astromesh-Session"),
    ],
)
async def test_what_an_agent_cannot_be_given_is_400(rooms: Rooms, client: openai.AsyncOpenAI, how: dict[str, Any], param: str) -> None:
    model = Scripted(["No."])
    rooms.hosts(an_agent(provider=model))
    with pytest.raises(openai.BadRequestError) as raised:
        await client.chat.completions.create(model="agent:desk", **how)
    assert raised.value.param == param
    assert model.asked == []


async def test_an_agent_that_fails_in_mid_stream_says_so(rooms: Rooms, client: openai.AsyncOpenAI) -> None:
    model = HeldModel("Half ", failure=ModelFailed("the worker died", code="model_provider_unavailable"))
    model.let_all()
    rooms.hosts(an_agent(provider=model))
    stream = await client.chat.completions.create(model="agent:desk", messages=HELLO, stream=True)
    with pytest.raises(openai.APIError, match="the worker died"):
        [chunk async for chunk in stream]


# The list of models.


async def test_models_of_the_mesh_and_agents_are_listed(rooms: Rooms, client: openai.AsyncOpenAI) -> None:
    says(rooms)
    rooms.hosts(an_agent("desk"))
    rooms.sees(member("b-000002", models=["m", ("big", "loading"), ("far", "remote")], agents=["desk", "billing"]))
    models = {model.id: model.model_dump() async for model in client.models.list()}
    assert list(models) == ["agent:billing", "agent:desk", "big", "far", "m"]
    assert {name: [(node["name"], node["state"]) for node in model["nodes"]] for name, model in models.items()} == {
        "agent:billing": [("b", "loaded")],
        "agent:desk": [("here", "loaded"), ("b", "loaded")],
        "big": [("b", "loading")],
        "far": [("b", "remote")],
        "m": [("here", "loaded"), ("b", "loaded")],
    }
    assert (models["m"]["owned_by"], models["m"]["created"], models["m"]["identity"]) == ("astromesh", 1700000000, "ab" * 32)


async def test_one_model_is_shown_or_404(rooms: Rooms, client: openai.AsyncOpenAI) -> None:
    says(rooms)
    rooms.has(Scripted([]), name="org/model@sha256:ab")
    assert (await client.models.retrieve("m")).id == "m"
    assert (await client.models.retrieve("org/model@sha256:ab")).id == "org/model@sha256:ab"
    with pytest.raises(openai.NotFoundError) as raised:
        await client.models.retrieve("nobodys")
    assert raised.value.code == "model_not_found"
