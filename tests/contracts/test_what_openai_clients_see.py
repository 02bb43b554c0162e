"""OpenAI's own client, unchanged, asks models and agents."""

from __future__ import annotations

from typing import Any

import openai as their
import pytest
from tests.contracts.witness import Witness
from tests.rig.documents import agent, provider
from tests.rig.eventually import eventually
from tests.rig.stub_openai import StubOpenAI

MEETING_GOAL_S = 3.0
HELLO: Any = [{"role": "user", "content": "Hello there"}]
WEATHER: Any = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}},
}


async def test_their_client_asks_and_streams_a_model_and_hands_it_tools(witness: Witness, stub: StubOpenAI) -> None:
    async with witness.node(provider(stub.endpoint)) as node, node.openai() as client:
        raw = await client.chat.completions.with_raw_response.create(model="stub", messages=HELLO, extra_body={"unheard_of": 1})
        done = raw.parse()
        assert (done.choices[0].message.content, done.choices[0].finish_reason) == ("You said: Hello there", "stop")
        assert done.usage is not None
        assert done.usage.total_tokens == done.usage.prompt_tokens + done.usage.completion_tokens
        assert raw.headers["X-Astromesh-Ignored"] == "unheard_of"
        assert (raw.headers["X-Astromesh-Node"], raw.headers["X-Astromesh-Route"]) == ("solo", "local")

        pieces = [chunk async for chunk in await client.chat.completions.create(model="stub", messages=HELLO, stream=True)]
        assert "".join(chunk.choices[0].delta.content or "" for chunk in pieces) == "You said: Hello there"
        assert len(pieces) > 4

        asked: Any = [{"role": "user", "content": 'call weather {"city": "Rome"}'}]
        called = await client.chat.completions.create(model="stub", messages=asked, tools=[WEATHER])
        [call] = called.choices[0].message.tool_calls or []
        assert (called.choices[0].finish_reason, call.function.name, call.function.arguments) == (
            "tool_calls",
            "weather",
            '{"city":"Rome"}',
        )  # type: ignore[union-attr]
        result: Any = [*asked, called.choices[0].message, {"role": "tool", "tool_call_id": call.id, "content": "Sunny."}]
        after = await client.chat.completions.create(model="stub", messages=result, tools=[WEATHER])
        assert after.choices[0].message.content == "The tools said: Sunny."


async def test_their_client_asks_and_streams_an_agent_and_may_name_a_session_of_ours(witness: Witness, stub: StubOpenAI) -> None:
    remembers = {"conversational": {"backend": "in_memory"}}
    rule = {"type": "content_filter", "forbidden_keywords": ["secret"], "message": "Not that."}
    async with (
        witness.node({**provider(stub.endpoint), **agent("desk", memory=remembers, guardrails={"input": [rule]})}) as node,
        node.openai() as client,
    ):
        assert "agent:desk" in [model.id async for model in client.models.list()]
        raw = await client.chat.completions.with_raw_response.create(model="agent:desk", messages=HELLO)
        assert raw.parse().choices[0].message.content == "You said: Hello there"
        assert raw.headers["X-Astromesh-Home"] == "solo"
        pieces = [chunk async for chunk in await client.chat.completions.create(model="agent:desk", messages=HELLO, stream=True)]
        assert "".join(chunk.choices[0].delta.content or "" for chunk in pieces) == "You said: Hello there"
        history: Any = [*HELLO, {"role": "assistant", "content": "Hi."}, {"role": "user", "content": "Again"}]
        await client.chat.completions.create(model="agent:desk", messages=history)
        assert [message["content"] for message in stub.requests[-1].body["messages"]] == ["You are a test.", "Hello there", "Hi.", "Again"]
        session = {"X-Astromesh-Session": "s-1"}
        for said in ("I am Ada.", "Who am I?"):
            await client.chat.completions.create(model="agent:desk", messages=[{"role": "user", "content": said}], extra_headers=session)
        assert [message["content"] for message in stub.requests[-1].body["messages"]][1:] == [
            "I am Ada.",
            "You said: I am Ada.",
            "Who am I?",
        ]
        blocked = await client.chat.completions.create(model="agent:desk", messages=[{"role": "user", "content": "The secret?"}])
        assert (blocked.choices[0].finish_reason, blocked.choices[0].message.content) == ("content_filter", "Not that.")


async def test_their_client_raises_its_own_errors(witness: Witness, stub: StubOpenAI) -> None:
    models = ["stub", "fails-500", "rate-limits-429", "hangs"]
    late = agent("late", model="hangs", orchestration={"pattern": "react", "timeout_seconds": 0.2})
    async with witness.node({**provider(stub.endpoint, models=models), **agent("desk"), **late}) as node, node.openai() as client:
        ask = client.chat.completions.create
        for model in ("never-heard-of", "agent:nobody"):
            with pytest.raises(their.NotFoundError) as refused:
                await ask(model=model, messages=HELLO)
            assert refused.value.code == "model_not_found"
        with pytest.raises(their.BadRequestError) as mistaken:
            await ask(model="agent:desk", messages=HELLO, tools=[WEATHER])
        assert mistaken.value.param == "tools"
        with pytest.raises(their.RateLimitError):
            await ask(model="rate-limits-429", messages=HELLO)
        with pytest.raises(their.InternalServerError) as failed:
            await ask(model="fails-500", messages=HELLO)
        assert (failed.value.status_code, failed.value.code) == (502, "model_provider_unavailable")
        with pytest.raises(their.InternalServerError) as overdue:
            await ask(model="agent:late", messages=HELLO)
        assert (overdue.value.status_code, overdue.value.code) == (504, "timeout")


async def test_a_model_that_was_offered_and_is_gone_is_503_and_says_when_to_come_back(witness: Witness, stub: StubOpenAI) -> None:
    served = provider(stub.endpoint, models=["stub"])
    async with witness.node(agent("desk"), name="attic") as attic, attic.openai() as client:
        async with witness.node(served, name="kitchen") as kitchen:
            assert (await attic.ask("POST", "/v1/mesh/join", {"address": kitchen.gossip})).status == 200

            async def offered() -> bool:
                return (await attic.ask("GET", "/v1/ready?model=stub")).status == 200

            await eventually(offered, MEETING_GOAL_S)
            assert (await client.chat.completions.create(model="stub", messages=HELLO)).choices
        with pytest.raises(their.InternalServerError) as gone:
            await client.chat.completions.create(model="stub", messages=HELLO)
        assert (gone.value.status_code, gone.value.code) == (503, "model_unavailable")
        assert int(gone.value.response.headers["Retry-After"]) > 0


async def test_their_client_embeds_texts_and_goes_on_with_prompts(witness: Witness, stub: StubOpenAI) -> None:
    async with witness.node({**provider(stub.endpoint), **agent("desk")}) as node, node.openai() as client:
        vectors = await client.embeddings.create(model="stub", input=["one", "three"], encoding_format="float")
        assert [row.index for row in vectors.data] == [0, 1]
        assert len(vectors.data[0].embedding) == 2
        for refused in ({"model": "never-heard-of", "input": "a"}, {"model": "stub", "input": []}):
            with pytest.raises((their.NotFoundError, their.BadRequestError)):
                await client.embeddings.create(**refused)  # type: ignore[arg-type]
        for model in ("never-heard-of", "agent:desk"):
            with pytest.raises((their.NotFoundError, their.BadRequestError)):
                await client.completions.create(model=model, prompt="One, two,")
