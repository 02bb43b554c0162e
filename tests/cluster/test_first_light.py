"""What a mesh of three nodes is for: a question asked of one is answered by the model of another."""

from __future__ import annotations

import json
import time

import openai
import pytest
from tests.cluster.conftest import Mesh, gauge
from tests.rig.eventually import eventually
from tests.rig.nodes import Node

pytestmark = [pytest.mark.processes, pytest.mark.engine, pytest.mark.timeout(180)]

IDLE_GOAL_S = 1.0


async def events(node: Node, query: str) -> list[tuple[float, str, dict[str, object]]]:
    """The events of a run: when each came (seconds), its name, its data."""
    found = []
    async with node.http.post("/v1/agents/hello/run", json={"query": query, "stream": True}) as response:
        assert response.status == 200, await response.text()
        assert response.headers["X-Astromesh-Node"] == "c"
        kind = ""
        async for line in response.content:
            if line.startswith(b"event:"):
                kind = line[6:].strip().decode()
            elif line.startswith(b"data:"):
                found.append((time.monotonic(), kind, json.loads(line[5:])))
    return found


async def test_a_question_to_a_is_answered_by_the_model_on_c(lit: Mesh) -> None:
    async with lit.a.http.post("/v1/agents/hello/run", json={"query": "Say hello."}) as response:
        body = await response.json()
        assert response.status == 200, body
        assert response.headers["X-Astromesh-Node"] == "c"
        assert response.headers["X-Astromesh-Home"] == "a"
        assert response.headers["X-Astromesh-Route"] == "peer"
    assert body["answer"].strip()
    assert body["node"] == "c"
    assert body["usage"]["tokens_out"] > 0


async def test_tokens_arrive_at_a_as_c_makes_them(lit: Mesh) -> None:
    told = await events(lit.a, "Count from one to twenty in words.")
    tokens = [(when, data) for when, kind, data in told if kind == "token"]
    done = next(data for _, kind, data in told if kind == "done")
    assert len(tokens) > 10
    assert "".join(str(data["content"]) for _, data in tokens) == done["answer"]
    assert [data["index"] for _, data in tokens] == list(range(len(tokens)))
    # In one lump they would come within a millisecond; one by one they are spread over the time that the model takes.
    spread_s = tokens[-1][0] - tokens[0][0]
    assert spread_s > 0.02, f"{len(tokens)} tokens came within {spread_s * 1e3:.1f} ms"
    print(f"first token {spread_s:.3f} s before the last of {len(tokens)}")


async def test_the_openai_client_chats_and_streams_through_any_node(lit: Mesh) -> None:
    for node in lit.nodes:
        async with openai.AsyncOpenAI(base_url=f"{node.api}/v1", api_key="none", max_retries=0) as client:
            ids = [model.id async for model in client.models.list()]
            assert "smollm2" in ids
            assert "agent:hello" in ids
            whole = await client.chat.completions.create(
                model="smollm2", messages=[{"role": "user", "content": "Say hello."}], max_tokens=12, temperature=0
            )
            assert whole.choices[0].message.content
            assert whole.usage is not None
            assert whole.usage.completion_tokens > 0
            stream = await client.chat.completions.create(
                model="smollm2", messages=[{"role": "user", "content": "Say hello."}], max_tokens=12, temperature=0, stream=True
            )
            pieces = [chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices]
            assert "".join(pieces) == whole.choices[0].message.content
            assert sum(bool(piece) for piece in pieces) > 1
            by_agent = await client.chat.completions.create(model="agent:hello", messages=[{"role": "user", "content": "Say hello."}])
            assert by_agent.choices[0].message.content


async def test_a_client_that_disconnects_stops_the_generation_on_c(lit: Mesh) -> None:
    body = {
        "model": "smollm2",
        "messages": [{"role": "user", "content": "Tell a long story."}],
        "stream": True,
        "max_tokens": 2000,
        "temperature": 0,
    }
    response = await lit.a.http.post("/v1/chat/completions", json=body)
    await response.content.readline()
    assert await gauge(lit.c, "astromesh_inference_running", model="smollm2") == 1
    response.close()

    async def idle() -> bool:
        return await gauge(lit.c, "astromesh_inference_running", model="smollm2") == 0

    await eventually(idle, IDLE_GOAL_S, what="the worker on c is idle")
    finished = await gauge(lit.c, "astromesh_inference_completions_total", model="smollm2")
    assert finished == 0, "the completion ran to its end instead of being stopped"


async def test_c_comes_back_under_its_name_and_answers_again(lit: Mesh) -> None:
    await lit.c.kill()
    await lit.c.start()

    async def answers() -> bool:
        async with lit.a.http.post("/v1/agents/hello/run", json={"query": "Say hello."}) as response:
            assert response.status == 200, await response.text()
            return response.headers["X-Astromesh-Node"] == "c"

    await eventually(answers, 5.0, what="a gets an answer from c again")
