"""What one node of a mesh shows of the others: their changes as they happen, and why."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from tests.cluster.conftest import Mesh, gauge, sees
from tests.rig.eventually import PATIENCE, eventually
from tests.rig.nodes import SOURCES, Node

pytestmark = [pytest.mark.processes, pytest.mark.timeout(120)]

DEATH_GOAL_S = 5.0
RETURN_GOAL_S = 5.0
EVERYONE = {"a": "alive", "b": "alive", "c": "alive"}


class Watch:
    """`members --watch` without a terminal."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def until(self, event: str, name: str, goal_s: float) -> dict[str, Any]:
        """The first line that tells this; what comes before it is passed over."""
        assert self.process.stdout is not None
        passed: list[str] = []
        try:
            async with asyncio.timeout(goal_s * PATIENCE):
                async for line in self.process.stdout:
                    told = json.loads(line)
                    if (told["event"], told.get("name", name)) == (event, name):
                        return dict(told)
                    passed.append(line.decode())
        except TimeoutError:
            pass
        raise AssertionError(f"{name} {event}: not told; instead: {''.join(passed)}")


async def program(node: Node, *words: str) -> asyncio.subprocess.Process:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, SOURCES)), "ASTROMESH_DAEMON_URL": node.api}
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(sys.executable, "-m", "astromesh.cli", *words, env=environment, stdout=pipe, stderr=pipe)


@asynccontextmanager
async def watching(node: Node) -> AsyncIterator[Watch]:
    process = await program(node, "members", "--watch")
    try:
        yield Watch(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def why(node: Node, name: str) -> tuple[dict[str, Any], str]:
    """As JSON and in words."""
    shown = []
    for flags in (("--json",), ()):
        process = await program(node, "members", "--why", name, *flags)
        out, err = await process.communicate()
        assert process.returncode == 0, err.decode()
        shown.append(out.decode())
    return json.loads(shown[0]), shown[1]


async def test_a_death_and_a_return_are_told_as_they_happen_and_who_accused_is_known(dark: Mesh) -> None:
    async with watching(dark.a) as watch:
        everyone = await watch.until("members", "c", DEATH_GOAL_S)
        assert {row["name"]: row["status"] for row in everyone["members"]} == EVERYONE
        await dark.c.kill()
        suspected = await watch.until("suspected", "c", DEATH_GOAL_S)
        died = await watch.until("died", "c", DEATH_GOAL_S)
        assert {suspected["accuser"], died["accuser"]} <= {"a", "b"}
        assert died["member"]["status"] == "dead"
        assert suspected["at"] < died["at"]

        shown, words = await why(dark.a, "c")
        assert shown["evidence"]["status"] == "dead"
        assert shown["evidence"]["accuser"] == died["accuser"]
        assert set(shown["evidence"]["accusers"]) <= {"a", "b"}
        assert f"dead, says {died['accuser']}: " in words
        print(words)

        await dark.c.start()
        returned = await watch.until("returned", "c", RETURN_GOAL_S)
        assert (returned["member"]["status"], returned["accuser"]) == ("alive", None)
        watch.process.send_signal(signal.SIGINT)
        assert await watch.process.wait() == 130
    shown, _ = await why(dark.a, "c")
    assert [change["status"] for change in shown["history"]][-3:] == ["suspect", "dead", "alive"]


async def test_a_node_that_goes_away_is_waited_for_and_tells_anew(dark: Mesh) -> None:
    async with watching(dark.b) as watch:
        await watch.until("members", "b", DEATH_GOAL_S)
        await dark.b.stop()
        await watch.until("unreachable", "b", DEATH_GOAL_S)
        await dark.b.start()
        again = await watch.until("members", "b", RETURN_GOAL_S)
        assert again["node"] == "b"


async def test_on_a_terminal_the_table_is_drawn_anew_and_ctrl_c_ends_it(dark: Mesh) -> None:
    master, slave = os.openpty()
    try:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, SOURCES)), "TERM": "xterm", "COLUMNS": "100", "LINES": "30"}
        command = (sys.executable, "-m", "astromesh.cli", "members", "--watch", "--url", dark.a.api)
        process = await asyncio.create_subprocess_exec(*command, env=environment, stdin=slave, stdout=slave, stderr=slave)
        shown = ""

        async def until(words: str) -> None:
            nonlocal shown
            async with asyncio.timeout(DEATH_GOAL_S * PATIENCE):
                while words not in shown.rpartition("\x1b[H\x1b[2J")[2]:
                    shown += (await asyncio.to_thread(os.read, master, 65536)).decode()

        await until("the mesh as a sees it")
        await dark.c.kill()
        await until("c died")
        assert "dead" in shown.rpartition("NAME")[2]
        process.send_signal(signal.SIGINT)
        assert await process.wait() == 130
    finally:
        os.close(slave)
        os.close(master)


async def test_the_figures_count_a_death_and_what_led_to_it(dark: Mesh) -> None:
    assert await gauge(dark.a, "maia_deaths_total") == 0
    await dark.c.kill()
    await eventually(lambda: sees(dark.a, {**EVERYONE, "c": "dead"}), DEATH_GOAL_S, what="a sees that c is dead")
    assert await gauge(dark.a, "maia_deaths_total") == 1
    assert await gauge(dark.a, "maia_suspicions_total") >= 1
    assert await gauge(dark.a, "maia_members", status="dead") == 1
    assert await gauge(dark.a, "maia_probes_total", outcome="acked") > 0
    assert await gauge(dark.a, "maia_loop_lag_seconds_count") > 0
    assert await gauge(dark.a, "maia_received_bytes_total", kind="ping") > 0
