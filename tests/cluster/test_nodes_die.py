"""Any of the three may be the one that is killed, and comes back under its name."""

from __future__ import annotations

import asyncio
import os
import signal
import time

import aiohttp
import pytest
from tests.cluster.conftest import Mesh, ready_for, sees
from tests.rig.eventually import eventually
from tests.rig.stub_openai import StubOpenAI

pytestmark = [pytest.mark.processes, pytest.mark.timeout(120)]

DEATH_GOAL_S = 5.0
RETURN_GOAL_S = 5.0
AT_ONCE_S = 1.0


async def test_a_model_whose_only_node_was_killed_is_unavailable_at_once_and_used_again_when_it_returns(dark: Mesh) -> None:
    await dark.c.kill()
    await eventually(lambda: sees(dark.a, {"a": "alive", "b": "alive", "c": "dead"}), DEATH_GOAL_S, what="a sees that c is dead")
    async with dark.a.http.post(
        "/v1/agents/desk/run", json={"query": "Anyone?"}, timeout=aiohttp.ClientTimeout(total=AT_ONCE_S * 5)
    ) as response:
        body = await response.json()
        assert response.status == 503, body
        assert int(response.headers["Retry-After"]) > 0
    assert body["code"] == "model_unavailable"
    assert body["detail"]["error"] == "model_unavailable"
    assert "was offered by c, which is dead" in body["detail"]["message"]
    assert body["hint"]
    await dark.c.start()
    await eventually(lambda: ready_for(dark.a, "lamp"), RETURN_GOAL_S, what="a can use the model on c again")
    answer = await dark.a.post("/v1/agents/desk/run", {"query": "Anyone?"})
    assert answer["node"] == "c"


async def test_before_the_mesh_has_noticed_a_call_to_the_dead_node_fails_at_once_and_says_so(dark: Mesh) -> None:
    await dark.a.post("/v1/agents/desk/run", {"query": "Anyone?"})  # a link to c is open
    await dark.c.kill()
    started = time.monotonic()
    async with dark.a.http.post("/v1/agents/desk/run", json={"query": "Anyone?"}) as response:
        body = await response.json()
    print(f"answered after {time.monotonic() - started:.3f} s: {response.status} {body['code']}")
    assert response.status == 503, body
    assert body["code"] == "model_unavailable"


@pytest.mark.parametrize("victim", ["a", "b", "c"])
async def test_whoever_is_killed_the_others_go_on_and_take_it_back(dark: Mesh, victim: str) -> None:
    dead = getattr(dark, victim)
    others = [node for node in dark.nodes if node is not dead]
    await dead.kill()
    everyone = {"a": "alive", "b": "alive", "c": "alive"}
    for node in others:
        await eventually(
            lambda node=node: sees(node, {**everyone, victim: "dead"}), DEATH_GOAL_S, what=f"{node.name} sees that {victim} is dead"
        )
    await dead.start()
    for node in dark.nodes:
        await eventually(lambda node=node: sees(node, everyone), RETURN_GOAL_S, what=f"{node.name} has {victim} back")
    await eventually(lambda: ready_for(dark.a, "lamp"), RETURN_GOAL_S)
    answer = await dark.a.post("/v1/agents/desk/run", {"query": "Still there?"})
    assert answer["node"] == "c"


async def test_a_node_that_is_stopped_leaves_and_is_not_mourned(dark: Mesh) -> None:
    assert await dark.b.stop() == 0
    for node in (dark.a, dark.c):
        await eventually(lambda node=node: sees(node, {"a": "alive", "b": "left", "c": "alive"}), 2.0, what=f"{node.name} sees that b left")


@pytest.mark.parametrize("stopped", ["a", "c"])
async def test_a_stream_that_began_ends_in_full_although_its_home_or_its_server_is_told_to_stop(dark: Mesh, stopped: str) -> None:
    body = {"model": "slow", "messages": [{"role": "user", "content": "Take your time"}], "stream": True}
    async with dark.a.http.post("/v1/chat/completions", json=body) as response:
        first = await response.content.readline()
        os.kill(getattr(dark, stopped).pid, signal.SIGTERM)
        rest = await response.content.read()
    assert first.startswith(b"data: ")
    assert rest.rstrip().endswith(b"data: [DONE]"), rest[-500:]
    assert b'"error"' not in rest

    async def has_ended() -> bool:
        return getattr(dark, stopped).exit_code is not None

    await eventually(has_ended, 3.0, what=f"{stopped} has ended")
    assert getattr(dark, stopped).exit_code == 0


async def test_what_nobody_ever_offered_is_not_unavailable_but_unknown(dark: Mesh) -> None:
    body = {"model": "unheard-of", "messages": [{"role": "user", "content": "Hello"}]}
    answer = await dark.a.post("/v1/chat/completions", body, status=404)
    assert answer["error"]["code"] == "model_not_found"


async def test_an_agent_of_another_node_runs_there_and_streams_through(dark: Mesh, stub: StubOpenAI) -> None:
    # c has no agents; desk is on a and b.
    async with dark.c.http.post("/v1/agents/desk/run", json={"query": "Who are you?"}) as response:
        body = await response.json()
        assert response.status == 200, body
        assert response.headers["X-Astromesh-Home"] in ("a", "b")
        assert response.headers["X-Astromesh-Node"] == "c"
    assert body["answer"]


async def test_a_client_that_leaves_stops_the_model_server_behind_another_node(dark: Mesh, stub: StubOpenAI) -> None:
    body = {"model": "slow", "messages": [{"role": "user", "content": "Take your time"}], "stream": True}
    response = await dark.a.http.post("/v1/chat/completions", json=body)
    await response.content.readline()
    assert stub.active == 1
    response.close()

    async def nobody_is_served() -> bool:
        return stub.active == 0

    await eventually(nobody_is_served, 1.0, what="the model server has nothing to do")
    assert stub.cancelled == 1


@pytest.mark.parametrize("leaver", ["a", "b"])
async def test_a_node_that_is_told_to_leave_stays_alone_until_it_is_told_to_join(dark: Mesh, leaver: str) -> None:
    leaving = getattr(dark, leaver)  # a is the seed of the others, who go on looking for it
    assert (await leaving.post("/v1/mesh/leave", {}))["status"] == "left"
    everyone = {"a": "alive", "b": "alive", "c": "alive"}
    await eventually(lambda: sees(leaving, {leaver: "alive"}), 2.0, what=f"{leaver} is alone")
    await eventually(lambda: sees(dark.c, {**everyone, leaver: "left"}), 2.0, what=f"c sees that {leaver} left")
    await leaving.stop()
    await leaving.start()
    for _ in range(20):  # a node that others could draw back would be back within the second that these looks take
        assert await sees(leaving, {leaver: "alive"})
        await asyncio.sleep(0.05)
    assert (await leaving.post("/v1/mesh/join", {"address": dark.c.gossip}))["members"] >= 1
    for node in dark.nodes:
        await eventually(lambda node=node: sees(node, everyone), 3.0, what=f"{node.name} has {leaver} back")
