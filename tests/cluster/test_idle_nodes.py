"""What a node costs that nobody asks anything: its memory and its share of a processor, in a mesh of two."""

from __future__ import annotations

import asyncio
from functools import partial
from time import monotonic

import psutil
import pytest
from tests.cluster.conftest import MEMBERS_GOAL_S, sees
from tests.rig.documents import agent, provider
from tests.rig.eventually import eventually
from tests.rig.figures import hold
from tests.rig.nodes import Node, node_process

pytestmark = [pytest.mark.processes, pytest.mark.timeout(90)]

MEASURED_S = 10.0  # at the lan profile's pace some ten probes, and each timer of a node several times
MEMORY_MB = 95.0
PROCESSOR_PERCENT = 1.0
BOTH = {"one": "alive", "two": "alive"}


async def test_a_node_that_nobody_asks_takes_little_memory_and_next_to_no_processor() -> None:
    documents = {**provider("http://127.0.0.1:9/v1", models=["lamp"]), **agent("desk", model="lamp")}
    async with node_process("one", config=documents) as one, node_process("two", join=[one.gossip]) as two:
        for node in (one, two):
            await eventually(partial(sees, node, BOTH), MEMBERS_GOAL_S, what=f"{node.name} sees both")
        before, began_s = [busy_s(node) for node in (one, two)], monotonic()
        await asyncio.sleep(MEASURED_S)  # what is measured is what happens while nothing does
        passed_s = monotonic() - began_s
        for node, busy_before_s in zip((one, two), before, strict=True):
            process = psutil.Process(node.pid)
            assert process.children() == []
            hold(f"memory of idle node {node.name}", process.memory_info().rss / 1e6, goal=MEMORY_MB, unit="MB")
            percent = 100 * (busy_s(node) - busy_before_s) / passed_s
            hold(f"processor of idle node {node.name}", percent, goal=PROCESSOR_PERCENT, unit="%")


def busy_s(node: Node) -> float:
    times = psutil.Process(node.pid).cpu_times()
    return times.user + times.system
