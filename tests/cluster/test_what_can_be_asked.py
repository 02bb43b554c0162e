"""Everything that a local model can be asked for, through a node that has not got it, with OpenAI's own client."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest
from tests.cluster.conftest import Mesh

pytestmark = [pytest.mark.processes, pytest.mark.engine, pytest.mark.timeout(180)]

ASK: Any = [{"role": "user", "content": "What is the weather in Paris?"}]
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
SCHEMA: Any = {
    "type": "json_schema",
    "json_schema": {
        "name": "place",
        "strict": True,
        "schema": {
            "type": "object",
            "properties": {"city": {"enum": ["Paris", "Rome"]}, "stars": {"type": "integer", "minimum": 1, "maximum": 5}},
            "required": ["city", "stars"],
            "additionalProperties": False,
        },
    },
}


async def test_schemas_calls_choices_log_probabilities_and_prompts_cross_the_mesh(lit: Mesh) -> None:
    async with openai.AsyncOpenAI(base_url=f"{lit.a.api}/v1", api_key="none", max_retries=0) as client:
        chat = client.chat.completions

        place = await chat.create(model="smollm2", messages=ASK, response_format=SCHEMA, temperature=0, max_tokens=40)
        found = json.loads(place.choices[0].message.content or "")
        assert found["city"] in ("Paris", "Rome")
        assert found["stars"] in range(1, 6)

        forced = await chat.create(
            model="smollm2", messages=ASK, tools=[WEATHER], tool_choice="required", temperature=0, max_tokens=60, stream=True
        )
        name, arguments, reason = "", "", None
        async for chunk in forced:
            reason = chunk.choices[0].finish_reason or reason
            assert not chunk.choices[0].delta.content
            for delta in chunk.choices[0].delta.tool_calls or ():
                assert delta.function is not None
                name += delta.function.name or ""
                arguments += delta.function.arguments or ""
        assert (name, json.loads(arguments), reason) == ("get_weather", {"city": "Paris"}, "tool_calls")

        three = await chat.create(model="smollm2", messages=ASK, n=3, seed=1, temperature=1.2, max_tokens=8, logprobs=True, top_logprobs=2)
        assert [choice.index for choice in three.choices] == [0, 1, 2]
        assert len({choice.message.content for choice in three.choices}) > 1
        for choice in three.choices:
            assert choice.logprobs is not None
            told = choice.logprobs.content or []
            assert b"".join(bytes(one.bytes or []) for one in told).decode(errors="ignore") == choice.message.content
            assert all(len(one.top_logprobs) == 2 for one in told)

        prompt = await client.completions.create(model="smollm2", prompt="One, two, three, four,", temperature=0, max_tokens=6, echo=True)
        assert prompt.choices[0].text.startswith("One, two, three, four, five")


async def test_what_cannot_be_honoured_is_400_by_its_name_and_the_model_lives_on(lit: Mesh) -> None:
    patterned = {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": {"type": "string", "pattern": "^a$"}}}
    endless = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"$ref": "#"}}}
    other = {"type": "function", "function": {"name": "clock"}}
    async with openai.AsyncOpenAI(base_url=f"{lit.a.api}/v1", api_key="none", max_retries=0) as client:
        for wishes, param in (
            ({"response_format": patterned}, "response_format"),
            ({"response_format": endless}, "response_format"),
            ({"tools": [WEATHER], "tool_choice": other}, "tool_choice"),
            ({"logit_bias": {"99999999": 1}}, "logit_bias"),
        ):
            with pytest.raises(openai.BadRequestError) as refused:
                await client.chat.completions.create(model="smollm2", messages=ASK, extra_body=wishes)
            assert refused.value.param == param
        alive = await client.chat.completions.create(model="smollm2", messages=ASK, max_tokens=4)
        assert alive.choices[0].message.content
