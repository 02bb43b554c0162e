"""A conversation's turns and `kill -9`: what was acknowledged is kept, whole and once, wherever the process ended."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from tests.cluster.conftest import FAST
from tests.rig.documents import agent, provider
from tests.rig.nodes import Node, node_process
from tests.rig.stub_openai import StubOpenAI
from tests.rig.syscalls import watched

pytestmark = [pytest.mark.processes, pytest.mark.timeout(120)]

SESSIONS = 6
ROUNDS = 4
GONE_S = 20.0
WAL = "conversations.sqlite3-wal"


@pytest.fixture
async def node(stub: StubOpenAI) -> AsyncIterator[Node]:
    config = {**provider(stub.endpoint, models=["lamp"]), **agent("desk", model="lamp", memory={"conversational": {}})}
    async with node_process("one", config=config, arguments=(*FAST, "--no-mesh")) as opened:
        yield opened


async def history(node: Node, session: str) -> list[str]:
    """The questions that are kept, after a look at whether each turn is whole."""
    shown = (await node.get(f"/v1/memory/desk/history/{session}"))["history"]
    assert [row["role"] for row in shown] == ["user", "assistant"] * (len(shown) // 2)
    questions, answers = shown[::2], shown[1::2]
    assert [row["turn"] for row in questions] == [row["turn"] for row in answers]
    assert [row["content"] for row in answers] == [f"You said: {row['content']}" for row in questions]
    return [str(row["content"]) for row in questions]


async def ask(node: Node, session: str, query: str) -> int:
    async with node.http.post("/v1/agents/desk/run", json={"query": query, "session_id": session}) as response:
        await response.read()
        return response.status


async def until_gone(node: Node) -> None:
    async with asyncio.timeout(GONE_S):
        while node.exit_code is None:
            await asyncio.sleep(0.01)


async def test_whenever_the_node_is_killed_every_acknowledged_turn_is_kept_once_and_no_other_is_kept_in_part(node: Node) -> None:
    told: dict[str, list[str]] = {f"s{number}": [] for number in range(SESSIONS)}
    acknowledged: dict[str, list[str]] = {session: [] for session in told}

    async def talk(session: str) -> None:
        with contextlib.suppress(aiohttp.ClientError):
            while True:
                told[session].append(query := f"{session} question {len(told[session])}")
                if await ask(node, session, query) == 200:
                    acknowledged[session].append(query)
                    answered.release()

    for number in range(ROUNDS):
        answered = asyncio.Semaphore(0)
        talking = [asyncio.create_task(talk(session)) for session in told]
        for _ in range(SESSIONS * 3 + number):
            await answered.acquire()
        await node.kill()
        await asyncio.gather(*talking)
        await node.start()
        for session in told:
            kept = await history(node, session)
            assert len(kept) == len(set(kept))
            assert kept == [query for query in told[session] if query in kept]
            assert set(acknowledged[session]) <= set(kept)
    print(f"{sum(map(len, acknowledged.values()))} turns acknowledged over {ROUNDS} lives, {sum(map(len, told.values()))} told")


@pytest.mark.parametrize(
    "moment",
    [
        "pwrite64:signal=SIGKILL:when=1",
        "pwrite64:signal=SIGKILL:when=4",
        "fdatasync:signal=SIGKILL:when=1",
        "fdatasync:delay_exit=60000000",
    ],
    ids=["at the first write", "in the middle of the writes", "before the fsync", "after the fsync"],
)
async def test_a_node_that_is_killed_in_the_middle_of_keeping_a_turn_keeps_it_whole_or_not_at_all(
    node: Node, tmp_path: Path, moment: str
) -> None:
    assert await ask(node, "s", "one") == 200
    async with watched(node.pid, ["pwrite64", "fdatasync", "epoll_wait", "epoll_pwait"], log=tmp_path / "calls", inject=moment) as watch:
        asking = asyncio.create_task(ask(node, "s", "two"))
        if "delay" in moment:
            async with asyncio.timeout(GONE_S):
                while not any("fdatasync" in line for line in watch.lines):
                    # A call that has not returned is told once another thread comes between: the one that serves.
                    await node.get("/v1/health")
            assert not asking.done(), "acknowledged before the fsync had returned"
            await node.kill()
        with pytest.raises(aiohttp.ClientError):
            await asking
    await until_gone(node)
    await node.kill()
    await node.start()
    kept = await history(node, "s")
    assert kept in (["one"], ["one", "two"])
    assert await ask(node, "s", "three") == 200
    assert await history(node, "s") == [*kept, "three"]


async def test_the_log_is_synced_before_a_turn_is_acknowledged(node: Node, tmp_path: Path) -> None:
    assert await ask(node, "s", "one") == 200
    calls = ["pwrite64", "fdatasync", "fsync", "write", "writev", "sendto", "sendmsg"]
    async with watched(node.pid, calls, log=tmp_path / "calls") as watch:
        assert await ask(node, "s", "two") == 200
        lines = watch.lines
    written = max(place for place, line in enumerate(lines) if "pwrite64(" in line and WAL in line)
    synced = max(place for place, line in enumerate(lines) if "fdatasync(" in line and WAL in line)
    answered = next(place for place, line in enumerate(lines) if "HTTP/1.1 200" in line)
    assert written < synced < answered, "\n".join(lines)
    assert "= 0" in next(line for line in lines[synced:answered] if "fdatasync" in line and ("fdatasync(" not in line or ") " in line))


async def test_a_turn_whose_fsync_fails_streams_its_tokens_and_is_not_acknowledged(node: Node, tmp_path: Path) -> None:
    assert await ask(node, "s", "one") == 200
    async with watched(node.pid, ["fdatasync"], log=tmp_path / "calls", inject="fdatasync:error=EIO"):
        body = {"query": "two", "session_id": "s", "stream": True}
        async with node.http.post("/v1/agents/desk/run", json=body) as response:
            said = await response.text()
        assert await ask(node, "s", "three") == 503
    assert "event: token" in said
    assert "memory_unavailable" in said
    assert "event: done" not in said
    assert await ask(node, "s", "four") == 200
    kept = await history(node, "s")
    assert (kept[0], kept[-1], len(kept)) == ("one", "four", len(set(kept)))


async def test_a_node_that_is_told_to_stop_leaves_nothing_but_the_file(node: Node) -> None:
    await asyncio.gather(*(ask(node, f"s{number}", "hello") for number in range(20)))
    assert await node.stop() == 0
    data = node.directory / "data"
    assert [file.name for file in data.glob("conversations*")] == ["conversations.sqlite3"]
    await node.start()
    assert [await history(node, f"s{number}") for number in range(20)] == [["hello"]] * 20
