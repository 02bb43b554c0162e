"""Runs that cross nodes, as processes: `a` is asked, agents live on `a`, `b` and `c`, and every model is behind `c`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import aiohttp
import pytest
from tests.cluster.conftest import FAST, MEMBERS_GOAL_S, MODELS_GOAL_S, Mesh, gauge, ready_for, sees
from tests.rig.company import gives, goes_to
from tests.rig.documents import Documents, agent, provider
from tests.rig.doors import SentEvent, sent_events
from tests.rig.eventually import eventually
from tests.rig.nodes import Node, node_process
from tests.rig.stub_openai import Mode, StubOpenAI

pytestmark = [pytest.mark.processes, pytest.mark.timeout(180)]

MODELS = ["desk-m", "billing-m", "boss-m", "left-m", "right-m", "circle-m"]
EVERYBODY = {"a": "alive", "b": "alive", "c": "alive"}
IDLE_GOAL_S = 1.0
DEATH_GOAL_S = 5.0


def orchestrated(name: str, pattern: str, **keys: Any) -> Documents:
    how = {"pattern": pattern, "max_iterations": 4, "timeout_seconds": 60, **keys}
    return agent(name, model=f"{name}-m", provider_name=None, orchestration=how)


ON_A = {
    **orchestrated("desk", "swarm", peers=["billing"]),
    **orchestrated("boss", "supervisor", workers=["left", "right"]),
    **orchestrated("circle", "supervisor", workers=["ring"]),
}
ON_B = {**orchestrated("billing", "react"), **orchestrated("left", "react")}


@asynccontextmanager
async def three(stub: StubOpenAI, *, on_c: Documents) -> AsyncIterator[Mesh]:
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        a = await enter(node_process("a", config=ON_A, arguments=FAST))
        ring = agent("ring", model="circle-m", provider_name=None, orchestration={"pattern": "supervisor", "workers": ["circle"]})
        b = await enter(node_process("b", config={**ON_B, **ring}, join=[a.gossip], arguments=FAST))
        models = {**provider(stub.endpoint, models=MODELS), **on_c}
        c = await enter(node_process("c", config=models, join=[a.gossip], arguments=FAST))
        mesh = Mesh(a, b, c)
        for node in mesh.nodes:
            await eventually(lambda node=node: sees(node, EVERYBODY), MEMBERS_GOAL_S, what=f"{node.name} lists three alive members")
            await eventually(lambda node=node: ready_for(node, "right-m"), MODELS_GOAL_S, what=f"{node.name} knows of the models on c")
        for name in ("billing", "ring", *(["right"] if on_c else [])):
            await eventually(lambda name=name: hosted(a, name), MODELS_GOAL_S, what=f"a knows of agent {name}")
        yield mesh


async def hosted(node: Node, name: str) -> bool:
    return name in [row["name"] for row in (await node.get("/v1/agents"))["agents"]]


@pytest.fixture
async def stub() -> AsyncIterator[StubOpenAI]:
    async with StubOpenAI(models=MODELS) as server:
        yield server


@pytest.fixture
async def mesh(stub: StubOpenAI) -> AsyncIterator[Mesh]:
    async with three(stub, on_c=orchestrated("right", "react")) as opened:
        yield opened


async def streamed(node: Node, name: str, query: str, **keys: Any) -> list[tuple[float, SentEvent]]:
    """The events of a run, each with the second at which it came."""
    async with node.http.post(f"/v1/agents/{name}/run", json={"query": query, "stream": True, **keys}) as response:
        assert response.status == 200, await response.text()
        return [(time.monotonic(), event) async for event in sent_events(response)]


def pids(mesh: Mesh, trace: dict[str, Any]) -> set[int]:
    assert all(type(span["attributes"].get("pid", 0)) is int for span in trace["spans"])
    return {span["attributes"]["pid"] for span in trace["spans"] if "pid" in span["attributes"]}


async def test_a_conversation_crosses_three_processes_in_one_stream_and_one_trace(mesh: Mesh, stub: StubOpenAI) -> None:
    stub.say("desk-m", goes_to("billing"))
    stub.modes["billing-m"] = Mode.SLOW
    stub.say("billing-m", "Your invoice of last month is paid in full.")
    told = await streamed(mesh.a, "desk", "Is my invoice paid?")
    events = [event for _, event in told]
    done = events[-1].data
    tokens = [(when, event.data) for when, event in told if event.event == "token"]
    assert "".join(token["content"] for _, token in tokens) == done["answer"] == "Your invoice of last month is paid in full."
    assert [token["index"] for _, token in tokens] == list(range(9))
    # The stub makes one every 50 ms: in one lump they would come within a millisecond.
    assert tokens[-1][0] - tokens[0][0] > 0.1
    assert [int(event.id) for event in events] == list(range(len(events)))
    assert [event.data for event in events if event.event == "handoff"] == [{"from": "desk", "to": "billing", "node": "b"}]
    assert (done["handoffs"], done["home"], done["node"]) == ([{"from": "desk", "to": "billing", "node": "b"}], "a", "c")
    trace = done["trace"]
    assert {span["node"] for span in trace["spans"]} == {"a", "b"}
    assert {span["attributes"]["node"] for span in trace["spans"] if span["name"] == "llm.complete"} == {"c"}
    assert pids(mesh, trace) == {node.pid for node in mesh.nodes}
    kept = await mesh.a.get(f"/v1/traces/{trace['trace_id']}")
    assert [span["name"] for span in kept["spans"]] == [span["name"] for span in trace["spans"]]
    print(f"{len(tokens)} tokens over {tokens[-1][0] - tokens[0][0]:.3f} s; {[(span['name'], span['node']) for span in trace['spans']]}")


async def test_a_supervisor_has_its_workers_on_two_other_processes(mesh: Mesh, stub: StubOpenAI) -> None:
    stub.say("boss-m", gives(("left", "Count."), ("right", "Weigh.")), gives(), "Two, and heavy.")
    stub.say("left-m", "Two.")
    stub.say("right-m", "Heavy.")
    events = [event for _, event in await streamed(mesh.a, "boss", "How many, and how heavy?")]
    done = events[-1].data
    assert "".join(event.data["content"] for event in events if event.event == "token") == done["answer"] == "Two, and heavy."
    assert [int(event.id) for event in events] == list(range(len(events)))
    begun = [
        (event.data["agent"], event.data["node"]) for event in events if event.event == "status" and event.data["state"] == "delegated"
    ]
    assert sorted(begun) == [("left", "b"), ("right", "c")]
    assert {span["node"] for span in done["trace"]["spans"]} == {"a", "b", "c"}
    assert pids(mesh, done["trace"]) == {node.pid for node in mesh.nodes}
    assert {row["model"]: row["calls"] for row in done["usage"]["by_model"]} == {"boss-m": 3, "left-m": 1, "right-m": 1}


async def test_a_circle_over_two_processes_is_refused_clearly(mesh: Mesh, stub: StubOpenAI) -> None:
    stub.say("circle-m", gives(("ring", "You.")), gives(("circle", "No, you.")), gives(), "I cannot.", gives(), "Nobody did.")
    done = await mesh.a.post("/v1/agents/circle/run", {"query": "Who?"})
    assert done["answer"] == "Nobody did."
    assert any("circle → ring → circle" in str(step["observation"]) for step in done["steps"])


async def test_a_client_that_leaves_stops_the_model_and_the_act_on_the_other_nodes(mesh: Mesh, stub: StubOpenAI) -> None:
    stub.say("desk-m", goes_to("billing"))
    stub.modes["billing-m"] = Mode.SLOW
    stub.say("billing-m", "word " * 2000)
    response = await mesh.a.http.post("/v1/agents/desk/run", json={"query": "Tell me.", "stream": True})
    async for event in sent_events(response):
        if event.event == "token":
            break
    assert stub.active == 1
    response.close()

    async def released() -> bool:
        return stub.active == 0

    async def cancelled() -> bool:
        return await gauge(mesh.b, "astromesh_peer_calls_served_total", kind="agent.act", outcome="cancelled") == 1

    await eventually(released, IDLE_GOAL_S, what="the model's stream is closed")
    await eventually(cancelled, IDLE_GOAL_S, what="the act on b is over")
    assert stub.cancelled == 1


async def test_a_node_that_is_killed_in_the_middle_of_an_act_is_named_and_the_home_lives_on(mesh: Mesh, stub: StubOpenAI) -> None:
    stub.say("desk-m", goes_to("billing"), goes_to("desk"), "Still here.")
    stub.modes["billing-m"] = Mode.SLOW
    stub.say("billing-m", "word " * 2000)
    events = []
    async with mesh.a.http.post("/v1/agents/desk/run", json={"query": "Tell me.", "stream": True}) as response:
        async for event in sent_events(response):
            events.append(event)
            if event.event == "token" and event.data["index"] == 3:
                await mesh.b.kill()
    assert (events[-1].event, events[-1].data["code"]) == ("error", "peer_lost")
    assert events[-1].data["message"].startswith("b went away")
    assert (await mesh.a.post("/v1/agents/desk/run", {"query": "And you?"}))["answer"] == "Still here."


async def test_of_two_hosts_the_one_that_lives_takes_over() -> None:
    async with StubOpenAI(models=MODELS) as stub, three(stub, on_c={**orchestrated("right", "react"), **ON_B}) as mesh:
        await mesh.b.kill()
        stub.say("desk-m", *[goes_to("billing")] * 8)
        stub.say("billing-m", *["From c."] * 8)
        for _ in range(8):  # at once: before b is suspected, while it is, and when it is dead
            done = await mesh.a.post("/v1/agents/desk/run", {"query": "Is my invoice paid?"})
            assert (done["answer"], done["handoffs"]) == ("From c.", [{"from": "desk", "to": "billing", "node": "c"}])


async def test_two_hundred_runs_at_once_cross_the_nodes_and_all_are_answered(mesh: Mesh, stub: StubOpenAI) -> None:
    runs = 200
    stub.say("desk-m", *[goes_to("billing")] * runs)
    stub.say("billing-m", *[f"Answer {number}." for number in range(runs)])

    async def ask() -> tuple[int, str]:
        timeout = aiohttp.ClientTimeout(total=120)
        async with mesh.a.http.post("/v1/agents/desk/run", json={"query": "Paid?"}, timeout=timeout) as response:
            body = await response.json()
            return response.status, body.get("answer", str(body))

    began = time.monotonic()
    answers = await asyncio.gather(*(ask() for _ in range(runs)))
    print(f"{runs} runs at once, handed from a to b, models on c: {time.monotonic() - began:.2f} s")
    assert sorted(answers) == sorted((200, f"Answer {number}.") for number in range(runs))
    assert await gauge(mesh.b, "astromesh_peer_calls_served_total", kind="agent.act", outcome="ok") == runs


async def test_a_session_goes_on_at_its_home_and_is_refused_when_that_is_gone(stub: StubOpenAI) -> None:
    desk = agent("desk", model="desk-m", provider_name=None, memory={"conversational": {}})
    async with (
        node_process("a", config={**desk, **provider(stub.endpoint, models=MODELS)}, arguments=FAST) as a,
        node_process("b", config={**desk, **provider(stub.endpoint, models=MODELS)}, join=[a.gossip], arguments=FAST) as b,
    ):
        for node in (a, b):
            await eventually(
                lambda node=node: sees(node, {"a": "alive", "b": "alive"}), MEMBERS_GOAL_S, what=f"{node.name} has met the other"
            )
        first = await a.post("/v1/agents/desk/run", {"query": "I am Ada."})
        session = first["session_id"]
        again = await b.post("/v1/agents/desk/run", {"query": "Who am I?", "session_id": session})
        assert (again["home"], again["session_id"]) == ("a", session)
        assert [message["content"] for message in stub.requests[-1].body["messages"]][1:] == [
            "I am Ada.",
            "You said: I am Ada.",
            "Who am I?",
        ]
        shown = await b.get(f"/v1/memory/desk/history/{session}")
        assert [row["content"] for row in shown["history"]] == ["I am Ada.", "You said: I am Ada.", "Who am I?", "You said: Who am I?"]
        await a.kill()

        async def refused() -> bool:
            async with b.http.post("/v1/agents/desk/run", json={"query": "Who am I?", "session_id": session}) as response:
                problem = await response.json()
                assert (response.status, problem["code"]) == (503, "session_home_unreachable"), problem
                assert problem["hint"]
                assert "Retry-After" in response.headers
            return True

        await refused()  # before the mesh has noticed

        async def dead() -> bool:
            return await sees(b, {"a": "dead", "b": "alive"})

        await eventually(dead, DEATH_GOAL_S, what="a is given up")
        await refused()
        assert (await b.post("/v1/agents/desk/run", {"query": "Hello."}))["home"] == "b"
