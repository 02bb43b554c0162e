"""Meshes of real processes on loopback. In most of them the model is the stub's, offered by one node only; `lit` has the real one."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.rig.documents import Documents, agent, provider
from tests.rig.eventually import eventually
from tests.rig.nodes import Node, node_process
from tests.rig.stub_openai import StubOpenAI

MEMBERS_GOAL_S = 3.0
MODELS_GOAL_S = 5.0
FAST = ("--profile", "lan-fast")


@dataclass
class Mesh:
    a: Node
    b: Node
    c: Node

    @property
    def nodes(self) -> tuple[Node, ...]:
        return (self.a, self.b, self.c)


async def statuses(node: Node) -> dict[str, str]:
    state = await node.get("/v1/mesh/state")
    return {member["name"]: member["status"] for member in state["nodes"]}


async def sees(node: Node, wanted: dict[str, str]) -> bool:
    found = await statuses(node)
    assert found == wanted, f"{node.name} sees {found}"
    return True


async def ready_for(node: Node, model: str) -> bool:
    async with node.http.get("/v1/ready", params={"model": model}) as response:
        assert response.status == 200, await response.text()
    return True


async def gauge(node: Node, name: str, **labels: str) -> float:
    """One figure of `/metrics`."""
    from prometheus_client.parser import text_string_to_metric_families

    async with node.http.get("/metrics") as response:
        text = await response.text()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == name and labels.items() <= sample.labels.items():
                return float(sample.value)
    raise AssertionError(f"{node.name} has no figure {name} {labels}")


async def open_mesh(stack: AsyncExitStack, *, hello: Documents, on_c: dict[str, Any]) -> Mesh:
    a = await stack.enter_async_context(node_process("a", config=hello, arguments=FAST))
    b = await stack.enter_async_context(node_process("b", config=hello, join=[a.gossip], arguments=FAST))
    c = await stack.enter_async_context(node_process("c", join=[a.gossip], arguments=FAST, **on_c))
    mesh = Mesh(a, b, c)
    for node in mesh.nodes:
        await eventually(
            lambda node=node: sees(node, {"a": "alive", "b": "alive", "c": "alive"}),
            MEMBERS_GOAL_S,
            what=f"{node.name} lists three alive members",
        )
    return mesh


@pytest.fixture
async def stub() -> AsyncIterator[StubOpenAI]:
    async with StubOpenAI(models=["lamp", "slow"]) as server:
        yield server


@pytest.fixture
async def dark(stub: StubOpenAI) -> AsyncIterator[Mesh]:
    """Three nodes; the models `lamp` and `slow` are behind c only, the agent `desk` is on a and b only."""
    desk = agent("desk", model="lamp", provider_name=None)
    async with AsyncExitStack() as stack:
        mesh = await open_mesh(stack, hello=desk, on_c={"config": provider(stub.endpoint, models=["lamp", "slow"])})
        await eventually(lambda: ready_for(mesh.a, "lamp"), MODELS_GOAL_S, what="a knows of the model on c")
        yield mesh


@pytest.fixture
async def lit() -> AsyncIterator[Mesh]:
    """Three nodes; c alone holds SmolLM2, through llama.cpp."""
    models = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "astromesh" / "models"
    hello = agent("hello", model="smollm2", provider_name=None, parameters={"max_tokens": 48, "temperature": 0})
    async with AsyncExitStack() as stack:
        mesh = await open_mesh(stack, hello=hello, on_c={"env": {"ASTROMESH_MODELS_DIR": str(models)}})
        await eventually(lambda: ready_for(mesh.a, "smollm2"), MODELS_GOAL_S, what="a knows of the loaded model on c")
        yield mesh
