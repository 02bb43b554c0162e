"""What nodes tell of themselves beside who they are: their devices, how busy they are, and whether their model servers answer."""

from __future__ import annotations

import pytest
from tests.cluster.conftest import Mesh, ready_for
from tests.rig.eventually import eventually
from tests.rig.nodes import Node
from tests.rig.stub_openai import StubOpenAI

pytestmark = [pytest.mark.processes, pytest.mark.timeout(120)]

LOAD_GOAL_S = 3.0  # a round of probes among three, and a second until the view is refreshed
HIDDEN_GOAL_S = 1.0


async def test_every_node_shows_how_busy_all_are_and_what_they_compute_with(dark: Mesh) -> None:
    async def all_are_told(node: Node) -> bool:
        rows = (await node.get("/v1/nodes"))["nodes"]
        assert len(rows) == 3
        for row in rows:
            assert row["load"].keys() == {"cpu_percent", "memory_percent", "active_requests"}, row["name"]
            assert {device["kind"] for device in row["devices"]} == {"cpu", "memory"}, row["name"]
        return True

    for node in dark.nodes:
        await eventually(lambda node=node: all_are_told(node), LOAD_GOAL_S, what=f"{node.name} knows the loads")


async def health(node: Node) -> list[tuple[str, str]]:
    return [(row["node"], row["health"]) for row in (await node.get("/v1/providers"))["providers"]]


async def test_a_model_server_that_goes_down_is_hidden_on_all_nodes_and_found_again(dark: Mesh, stub: StubOpenAI) -> None:
    for node in dark.nodes:
        await eventually(lambda node=node: is_told(node, "healthy"), 2.0, what=f"{node.name} knows that the server is well")
    port = int(stub.url.rpartition(":")[2])
    await stub.__aexit__(None, None, None)
    async with dark.a.http.post("/v1/agents/desk/run", json={"query": "Anyone?"}) as response:
        assert response.status >= 500  # the call that finds out
    for node in dark.nodes:
        await eventually(lambda node=node: is_told(node, "down"), HIDDEN_GOAL_S, what=f"{node.name} knows that the server is down")
        async with node.http.get("/v1/ready", params={"model": "lamp"}) as response:
            assert response.status == 503, node.name
    async with StubOpenAI(models=stub.models, port=port):
        for node in dark.nodes:
            await eventually(lambda node=node: ready_for(node, "lamp"), 6.0, what=f"{node.name} uses the server again")


async def is_told(node: Node, wanted: str) -> bool:
    found = await health(node)
    assert found == [("c", wanted)], found
    return True
