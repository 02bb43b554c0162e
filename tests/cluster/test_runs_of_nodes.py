"""Runs on real nodes: cancelled from another one, talked over a socket, and remembered after a restart."""

from __future__ import annotations

import json

import aiohttp
import pytest
from tests.cluster.conftest import FAST, MEMBERS_GOAL_S, sees
from tests.rig.documents import agent, provider
from tests.rig.eventually import eventually
from tests.rig.nodes import node_process
from tests.rig.stub_openai import Mode, StubOpenAI

pytestmark = [pytest.mark.processes, pytest.mark.timeout(120)]

RUN = "/v1/agents/desk/run"
CANCELLED_GOAL_S = 1.0
# Without a goodbye from the node it would wait for as long as connections get to close.
STOPPED_S = 10.0


async def test_a_run_is_cancelled_from_a_node_that_has_no_part_in_it(stub: StubOpenAI) -> None:
    stub.modes["lamp"] = Mode.SLOW
    desk = {**provider(stub.endpoint, models=["lamp"]), **agent("desk", model="lamp")}
    async with node_process("b", config=desk, arguments=FAST) as b, node_process("c", join=[b.gossip], arguments=FAST) as c:
        for node in (b, c):
            await eventually(lambda node=node: sees(node, {"b": "alive", "c": "alive"}), MEMBERS_GOAL_S)
        body, name = {"query": "word " * 500, "stream": True}, {"X-Request-Id": "the-run"}
        async with b.http.post(RUN, json=body, headers=name) as response:
            async for line in response.content:
                if line == b"event: token\n":
                    break
            assert stub.active == 1
            async with c.http.delete("/v1/runs/the-run") as cancelled:
                assert cancelled.status == 202, await cancelled.text()

            async def nothing_is_asked() -> bool:
                return stub.active == 0

            await eventually(nothing_is_asked, CANCELLED_GOAL_S, what="the model's server is left")
            assert b'"code":"run_cancelled"' in await response.read()
        async with c.http.get("/v1/runs/the-run/events") as again:
            assert b'"code":"run_cancelled"' in await again.read()


async def test_a_node_that_stops_says_goodbye_to_those_who_talk_and_remembers_their_runs(stub: StubOpenAI) -> None:
    desk = {**provider(stub.endpoint, models=["lamp"]), **agent("desk", model="lamp")}
    async with node_process("one", config=desk, arguments=FAST) as node:
        async with node.http.ws_connect("/v1/ws/agent/desk") as socket:
            await socket.send_json({"query": "Hello"})
            while (event := json.loads(await socket.receive_str()))["type"] != "done":
                assert event["type"] != "error", event
            assert await node.stop(limit_s=STOPPED_S) == 0
            goodbye = await socket.receive()
            assert (goodbye.type, goodbye.data) == (aiohttp.WSMsgType.CLOSE, aiohttp.WSCloseCode.GOING_AWAY)
        await node.start()
        trace = await node.get(f"/v1/traces/{event['trace']['trace_id']}")
        assert (trace["agent"], trace["status"]) == ("desk", "ok")
        assert "llm.complete" in [span["name"] for span in trace["spans"]]
        assert [one["trace_id"] for one in (await node.get("/v1/traces?agent=desk"))["traces"]] == [trace["trace_id"]]
        assert "Hello" not in (node.directory / "data" / "traces.jsonl").read_text()
