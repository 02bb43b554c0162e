"""One request, several answers, log-probabilities and prompts: with OpenAI's own client."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import openai
import pytest
from tests.rig.doors import Doors, open_doors, sent_events
from tests.rig.held_model import HeldModel
from tests.rig.rooms import Rooms, an_agent

from astromesh.dialogue import ModelEvent, ModelReply, ModelRequest, TextDelta, TokenLogprob, Usage
from astromesh.errors import ModelFailed
from astromesh.providers.backends.scripted import Scripted

HELLO: Any = [{"role": "user", "content": "Hello"}]
CHANCES = (
    TokenLogprob(b"Good", -0.25, (TokenLogprob(b"Good", -0.25), TokenLogprob(b"Bad", -1.5))),
    TokenLogprob(b"\xc3", -math.inf, ()),
)


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


class SaysItsSeed:
    """A model whose answer is its seed."""

    def __init__(self) -> None:
        self.asked: list[ModelRequest] = []

    async def complete(self, request: ModelRequest, *, timeout_s: float) -> AsyncGenerator[ModelEvent, None]:
        self.asked.append(request)
        for word in ("seed ", str(request.sampling.seed)):
            yield TextDelta(word)
        yield ModelReply(f"seed {request.sampling.seed}", usage=Usage(5, 2, 4))

    async def close(self) -> None:
        return None


class SaysItsChances:
    async def complete(self, request: ModelRequest, *, timeout_s: float) -> AsyncGenerator[ModelEvent, None]:
        yield TextDelta("Good", (1,), CHANCES[:1])
        yield TextDelta("é", (2,), CHANCES[1:])
        yield ModelReply("Goodé", usage=Usage(5, 2), logprobs=CHANCES)

    async def close(self) -> None:
        return None


async def test_n_answers_have_seeds_of_their_own_and_share_the_price_of_the_prompt(rooms: Rooms, client: openai.AsyncOpenAI) -> None:
    model = SaysItsSeed()
    rooms.has(model)
    reply = await client.chat.completions.create(model="m", messages=HELLO, n=3, seed=7)
    assert [(choice.index, choice.message.content) for choice in reply.choices] == [(0, "seed 7"), (1, "seed 8"), (2, "seed 9")]
    assert reply.usage is not None
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (5, 6)
    await client.chat.completions.create(model="m", messages=HELLO, n=2)
    assert [request.sampling.seed for request in model.asked] == [7, 8, 9, None, None]


async def test_n_answers_stream_side_by_side_each_under_its_index(rooms: Rooms, client: openai.AsyncOpenAI) -> None:
    rooms.has(SaysItsSeed())
    stream = await client.chat.completions.create(
        model="m", messages=HELLO, n=2, seed=7, stream=True, stream_options={"include_usage": True}
    )
    texts, ends = {0: "", 1: ""}, []
    chunks = [chunk async for chunk in stream]
    for chunk in chunks[:-1]:
        (choice,) = chunk.choices
        texts[choice.index] += choice.delta.content or ""
        ends += [choice.index] if choice.finish_reason == "stop" else []
    assert texts == {0: "seed 7", 1: "seed 8"}
    assert sorted(ends) == [0, 1]
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 4


@pytest.mark.parametrize("stream", [False, True])
async def test_one_answer_that_fails_ends_them_all(rooms: Rooms, client: openai.AsyncOpenAI, *, stream: bool) -> None:
    model = HeldModel("Half ", failure=ModelFailed("the worker died", code="model_provider_unavailable"))
    rooms.has(model)
    model.let(4)

    async def ask() -> None:
        answer = await client.chat.completions.create(model="m", messages=HELLO, n=3, stream=stream)
        if stream:
            async for _ in answer:
                pass

    with pytest.raises(openai.APIError, match="the worker died"):
        await ask()
    await model.released.wait()
    assert (len(model.asked), model.open) == (3, 0)


async def test_a_client_that_leaves_ends_every_answer(rooms: Rooms, client: openai.AsyncOpenAI) -> None:
    model = HeldModel("one ", "two ")
    rooms.has(model)
    model.let(3)
    stream = await client.chat.completions.create(model="m", messages=HELLO, n=3, stream=True)
    await anext(aiter(stream))
    await stream.close()
    await model.released.wait()
    assert model.open == 0


async def test_log_probabilities_are_read_by_their_client_whole_and_streamed(rooms: Rooms, client: openai.AsyncOpenAI) -> None:
    rooms.has(SaysItsChances())
    reply = await client.chat.completions.create(model="m", messages=HELLO, logprobs=True, top_logprobs=2)
    assert reply.choices[0].logprobs is not None
    content = reply.choices[0].logprobs.content or []
    assert [(one.token, one.bytes, one.logprob) for one in content] == [("Good", list(b"Good"), -0.25), ("\ufffd", [0xC3], -9999.0)]
    assert [(other.token, other.logprob) for other in content[0].top_logprobs] == [("Good", -0.25), ("Bad", -1.5)]
    streamed = []
    async for chunk in await client.chat.completions.create(model="m", messages=HELLO, logprobs=True, top_logprobs=2, stream=True):
        if chunk.choices[0].logprobs is not None:
            streamed += chunk.choices[0].logprobs.content or []
    assert streamed == content


async def test_a_prompt_is_gone_on_with_as_it_stands(rooms: Rooms, client: openai.AsyncOpenAI) -> None:
    model = Scripted(["a time", "a time"])
    rooms.has(model)
    reply = await client.completions.create(model="m", prompt="Once upon ", echo=True)
    assert (reply.object, reply.choices[0].text, reply.choices[0].finish_reason) == ("text_completion", "Once upon a time", "stop")
    assert (model.asked[0].prompt, model.asked[0].transcript, model.asked[0].sampling.max_tokens) == ("Once upon ", (), 16)
    chunks = [chunk async for chunk in await client.completions.create(model="m", prompt="Once upon ", max_tokens=3, stream=True)]
    assert "".join(chunk.choices[0].text for chunk in chunks) == "a time"
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert model.asked[1].sampling.max_tokens == 3


async def test_several_prompts_have_their_answers_in_their_order(rooms: Rooms, client: openai.AsyncOpenAI) -> None:
    rooms.has(SaysItsSeed())
    reply = await client.completions.create(model="m", prompt=["A", "B"], n=2, seed=1, echo=True)
    assert [choice.text for choice in reply.choices] == ["Aseed 1", "Aseed 2", "Bseed 1", "Bseed 2"]


async def test_the_older_kind_has_its_own_shape_of_log_probabilities(rooms: Rooms, client: openai.AsyncOpenAI) -> None:
    rooms.has(SaysItsChances())
    reply = await client.completions.create(model="m", prompt="So ", logprobs=2)
    told = reply.choices[0].logprobs
    assert told is not None
    assert (told.tokens, told.token_logprobs, told.text_offset) == (["Good", "\ufffd"], [-0.25, -9999.0], [0, 4])
    assert told.top_logprobs == [{"Good": -0.25, "Bad": -1.5}, {}]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"prompt": [1, 2, 3]}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": ["x"] * 9, "n": 2}, "prompt"),
        ({"suffix": "end"}, "suffix"),
        ({"best_of": 2}, "best_of"),
        ({"echo": True, "logprobs": 1}, "echo"),
        ({"model": "agent:desk"}, "model"),
    ],
)
async def test_a_prompt_that_cannot_be_honoured_is_400_and_named(
    rooms: Rooms, client: openai.AsyncOpenAI, body: dict[str, Any], param: str
) -> None:
    model = Scripted(["No."])
    rooms.has(model)
    with pytest.raises(openai.BadRequestError) as raised:
        await client.completions.create(model="m", prompt="x", extra_body=body)
    assert raised.value.param is not None
    assert raised.value.param.split(".")[0] == param
    assert model.asked == []


@pytest.mark.parametrize(("key", "value"), [("n", 2), ("logprobs", True), ("logit_bias", {"1": 1})])
async def test_what_only_a_model_can_do_is_not_asked_of_an_agent(rooms: Rooms, client: openai.AsyncOpenAI, key: str, value: object) -> None:
    rooms.has(Scripted(["No."]))
    rooms.hosts(an_agent())
    with pytest.raises(openai.BadRequestError) as raised:
        await client.chat.completions.create(model="agent:desk", messages=HELLO, extra_body={key: value})
    assert raised.value.param == key


async def test_how_to_sample_is_an_agents_own_affair_and_named_as_ignored(rooms: Rooms, client: openai.AsyncOpenAI) -> None:
    rooms.has(Scripted(["Yes."]))
    rooms.hosts(an_agent())
    raw = await client.chat.completions.with_raw_response.create(model="agent:desk", messages=HELLO, temperature=0.1, stop="x", n=1)
    assert raw.headers["X-Astromesh-Ignored"] == "stop, temperature"


async def test_a_stream_of_several_ends_with_one_done(rooms: Rooms, doors: Doors) -> None:
    rooms.has(SaysItsSeed())
    async with doors.http.post("/v1/chat/completions", json={"model": "m", "messages": HELLO, "stream": True, "n": 2}) as response:
        events = [event.data async for event in sent_events(response)]
    assert events.count("[DONE]") == 1
    assert events[-1] == "[DONE]"
