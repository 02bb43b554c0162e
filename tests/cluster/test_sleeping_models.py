"""A model that no node has in memory is woken by a request to any node, and whoever cannot wait for it is told when to come back."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.cluster.conftest import FAST
from tests.rig.documents import agent, runtime
from tests.rig.eventually import eventually
from tests.rig.nodes import Node, node_process
from tests.rig.small_encoders import small_encoder

pytestmark = [pytest.mark.processes, pytest.mark.timeout(240)]

MODELS = str(Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "astromesh" / "models")
NEWS_GOAL_S = 1.0
LOAD_GOAL_S = 10.0
IDLE_S = 1
IDLE_GOAL_S = 8.0  # a node looks for idle models every 5 s


async def on_c(node: Node, model: str) -> dict[str, Any]:
    """What a node says of the model on c."""
    for one in (await node.get("/v1/models"))["data"]:
        for holder in one["nodes"]:
            if (one["id"], holder["name"]) == (model, "c"):
                found: dict[str, Any] = holder
                return found
    raise AssertionError(f"{node.name} knows of no {model} on c")


async def becomes(node: Node, model: str, state: str, goal_s: float) -> None:
    async def so() -> bool:
        assert (found := await on_c(node, model))["state"] == state, found
        return True

    await eventually(so, goal_s, what=f"{node.name} sees {model} {state} on c")


async def asked(node: Node, name: str) -> tuple[int, dict[str, str], dict[str, Any]]:
    async with node.http.post(f"/v1/agents/{name}/run", json={"query": "Say hello."}) as response:
        return response.status, dict(response.headers), await response.json(content_type=None)


@asynccontextmanager
async def pair(**inference: Any) -> AsyncIterator[tuple[Node, Node]]:
    """`a` has the agents, c the model: `hello` has time, `hasty` has not."""
    quick = {"parameters": {"max_tokens": 4, "temperature": 0}, "model": "smollm2", "provider_name": None}
    hello = agent("hello", **quick)
    hasty = agent("hasty", **quick, orchestration={"pattern": "react", "max_iterations": 1, "timeout_seconds": 6})
    config = runtime(inference={"models": [{"name": "smollm2", "context": 512}], **inference})
    async with (
        node_process("c", config=config, env={"ASTROMESH_MODELS_DIR": MODELS}, arguments=FAST) as c,
        node_process("a", config={**hello, **hasty}, join=[c.gossip], arguments=FAST) as a,
    ):
        await becomes(a, "smollm2", "loaded", LOAD_GOAL_S)
        yield a, c


def worker_of(node: Node) -> psutil.Process | None:
    for process in psutil.Process(node.pid).children(recursive=True):
        if any("llama_cpp.worker" in word for word in process.cmdline()):
            return process
    return None


@contextmanager
def stopped(process: psutil.Process) -> Iterator[None]:
    os.kill(process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process.pid, signal.SIGCONT)


@pytest.mark.engine
async def test_a_model_that_went_because_nobody_asked_is_woken_by_a_question_to_another_node() -> None:
    async with pair(idle_unload_seconds=IDLE_S) as (a, c):
        await becomes(a, "smollm2", "on_disk", IDLE_GOAL_S)
        assert worker_of(c) is None
        status, headers, body = await asked(a, "hello")
        assert (status, headers["X-Astromesh-Node"], body["node"]) == (200, "c", "c"), body
        assert body["answer"].strip()


@pytest.mark.engine
async def test_who_cannot_wait_for_a_model_to_load_on_another_node_is_told_when_to_come_back() -> None:
    async with pair() as (a, c):
        await c.post("/v1/models/smollm2/unload", {})
        await becomes(a, "smollm2", "on_disk", NEWS_GOAL_S)
        await c.post("/v1/models/smollm2/load", {}, status=202)

        async def begun() -> bool:
            return worker_of(c) is not None

        await eventually(begun, NEWS_GOAL_S)
        worker = worker_of(c)
        assert worker is not None
        with stopped(worker):
            await becomes(a, "smollm2", "loading", NEWS_GOAL_S)
            assert (await on_c(c, "smollm2"))["eta_s"] >= 1
            status, headers, body = await asked(a, "hasty")
            assert (status, body["code"]) == (503, "model_unavailable"), body
            assert int(headers["Retry-After"]) >= 1
            assert "still loading" in body["detail"]["message"]
        status, _, body = await asked(a, "hello")
        assert (status, body.get("node")) == (200, "c"), body
        await becomes(a, "smollm2", "loaded", NEWS_GOAL_S)


async def test_a_model_that_was_only_pulled_is_loaded_by_a_question_to_another_node(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("compass")
    small_encoder(folder, {"east": (1.0, 0.0), "north": (0.0, 1.0)})
    async with node_process("c", arguments=FAST) as c, node_process("a", join=[c.gossip], arguments=FAST) as a:
        async with c.http.post("/v1/models/pull", json={"source": str(folder), "name": "compass"}) as response:
            assert b"event: done" in await response.read()
        await becomes(a, "compass", "on_disk", 5 * NEWS_GOAL_S)
        made = await a.post("/v1/embeddings", {"model": "compass", "input": "north"})
        assert made["data"][0]["embedding"] == [0.0, 1.0]
        await becomes(a, "compass", "loaded", NEWS_GOAL_S)
