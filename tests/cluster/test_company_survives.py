"""Sessions of agents that work with others, and `kill -9` of the node that conducts them: what was acknowledged is kept, once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from tests.cluster.conftest import FAST, MEMBERS_GOAL_S, MODELS_GOAL_S, ready_for, sees
from tests.rig.company import gives, goes_to
from tests.rig.documents import Documents, agent, provider
from tests.rig.eventually import eventually
from tests.rig.nodes import Node, node_process
from tests.rig.stub_openai import Mode, StubOpenAI
from tests.rig.syscalls import watched

pytestmark = [pytest.mark.processes, pytest.mark.timeout(240)]

MODELS = ["desk-m", "boss-m", "billing-m", "left-m"]
# Said again and again, so that no life of the node and no order of its sessions matters: a supervisor that asks for what it has concludes.
DECIDES = {"desk": goes_to("billing"), "boss": gives(("left", "Look."))}
WORKER = {"desk": "billing", "boss": "left"}
SESSIONS = 3
ROUNDS = 2
GONE_S = 20.0
IDLE_GOAL_S = 5.0


def remembering(name: str, pattern: str, **keys: Any) -> Documents:
    how = {"pattern": pattern, "max_iterations": 4, "timeout_seconds": 60, **keys}
    return agent(name, model=f"{name}-m", provider_name=None, orchestration=how, memory={"conversational": {}})


@pytest.fixture
async def stub() -> AsyncIterator[StubOpenAI]:
    async with StubOpenAI(models=MODELS) as server:
        for name, decision in DECIDES.items():
            server.say(f"{name}-m", *[decision] * 5000)
        yield server


@pytest.fixture
async def two(stub: StubOpenAI) -> AsyncIterator[tuple[Node, Node]]:
    """`a` conducts, with all that it keeps; who works for its agents lives on `b`, and so do all models."""
    models = provider(stub.endpoint, models=MODELS)
    on_a = {**remembering("desk", "swarm", peers=["billing"]), **remembering("boss", "supervisor", workers=["left"])}
    on_b = {**models, **agent("billing", model="billing-m"), **agent("left", model="left-m")}
    async with node_process("b", config=on_b, arguments=FAST) as b, node_process("a", config=on_a, join=[b.gossip], arguments=FAST) as a:
        await until_met(a)
        yield a, b


async def until_met(a: Node) -> None:
    async def met() -> bool:
        names = [row["name"] for row in (await a.get("/v1/agents"))["agents"]]
        return {"billing", "left"} <= set(names) and await ready_for(a, "boss-m") and await sees(a, {"a": "alive", "b": "alive"})

    await eventually(met, MEMBERS_GOAL_S + MODELS_GOAL_S, what="a knows who works on b")


async def history(node: Node, name: str, session: str) -> list[str]:
    """The questions that are kept, after a look at whether each turn is whole."""
    shown = (await node.get(f"/v1/memory/{name}/history/{session}"))["history"]
    assert [row["role"] for row in shown] == ["user", "assistant"] * (len(shown) // 2)
    questions, answers = shown[::2], shown[1::2]
    assert [row["turn"] for row in questions] == [row["turn"] for row in answers]
    for question, answer in zip(questions, answers, strict=True):
        assert question["content"] in answer["content"] if name == "desk" else answer["content"] == DECIDES["boss"]
    return [str(row["content"]) for row in questions]


async def ask(node: Node, name: str, session: str, query: str, *, stream: bool = False) -> int:
    body = {"query": query, "session_id": session, "stream": stream}
    async with node.http.post(f"/v1/agents/{name}/run", json=body) as response:
        await response.read()
        return response.status


async def until_gone(node: Node) -> None:
    async with asyncio.timeout(GONE_S):
        while node.exit_code is None:
            await asyncio.sleep(0.01)


async def test_whenever_the_conducting_node_is_killed_acknowledged_turns_of_swarms_and_supervisors_are_kept_once(
    two: tuple[Node, Node],
) -> None:
    a, _ = two
    sessions = [(name, f"s{number}") for name in DECIDES for number in range(SESSIONS)]
    told: dict[tuple[str, str], list[str]] = {each: [] for each in sessions}
    acknowledged: dict[tuple[str, str], list[str]] = {each: [] for each in sessions}

    async def talk(name: str, session: str) -> None:
        with contextlib.suppress(aiohttp.ClientError):
            while True:
                told[name, session].append(query := f"{session} question {len(told[name, session])}.")
                if await ask(a, name, session, query) == 200:
                    acknowledged[name, session].append(query)
                    answered.release()

    for number in range(ROUNDS):
        answered = asyncio.Semaphore(0)
        talking = [asyncio.create_task(talk(*each)) for each in sessions]
        for _ in range(len(sessions) * 2 + number):
            await answered.acquire()
        await a.kill()
        await asyncio.gather(*talking)
        await a.start()
        await until_met(a)
        for name, session in sessions:
            kept = await history(a, name, session)
            assert len(kept) == len(set(kept))
            assert kept == [query for query in told[name, session] if query in kept]
            assert set(acknowledged[name, session]) <= set(kept)
    print(f"{sum(map(len, acknowledged.values()))} turns acknowledged over {ROUNDS} lives, {sum(map(len, told.values()))} told")


@pytest.mark.parametrize(
    "moment", ["pwrite64:signal=SIGKILL:when=1", "fdatasync:signal=SIGKILL:when=1"], ids=["at the write", "before the fsync"]
)
@pytest.mark.parametrize("name", DECIDES)
async def test_a_node_that_is_killed_while_it_keeps_a_turn_that_others_worked_on_keeps_it_whole_or_not_at_all(
    two: tuple[Node, Node], stub: StubOpenAI, tmp_path: Path, name: str, moment: str
) -> None:
    a, _ = two
    assert await ask(a, name, "s", "one.") == 200
    data = [a.directory / "data" / f"conversations.sqlite3{suffix}" for suffix in ("", "-wal")]
    async with watched(a.pid, ["pwrite64", "fdatasync"], log=tmp_path / "calls", inject=moment, paths=data):
        with pytest.raises(aiohttp.ClientError):
            await ask(a, name, "s", "two.")
    await until_gone(a)
    await a.kill()
    await a.start()
    await until_met(a)
    kept = await history(a, name, "s")
    assert kept in (["one."], ["one.", "two."])
    assert len(stub.asked(f"{WORKER[name]}-m")) == 2, "nobody asks again on his own"
    assert await ask(a, name, "s", "three.") == 200
    assert await history(a, name, "s") == [*kept, "three."]


@pytest.mark.parametrize("name", DECIDES)
async def test_when_the_conducting_node_is_killed_in_the_middle_of_a_turn_the_work_elsewhere_ends_and_the_session_goes_on(
    two: tuple[Node, Node], stub: StubOpenAI, name: str
) -> None:
    a, _ = two
    assert await ask(a, name, "s", "one.") == 200
    model = f"{WORKER[name]}-m"
    stub.modes[model] = Mode.SLOW
    stub.say(model, "word " * 2000)
    asking = asyncio.create_task(ask(a, name, "s", "two.", stream=True))

    async def at_work() -> bool:
        return stub.active == 1

    async def idle() -> bool:
        return stub.active == 0

    await eventually(at_work, IDLE_GOAL_S, what="the worker's model is asked")
    await a.kill()
    with pytest.raises(aiohttp.ClientError):
        await asking
    await eventually(idle, IDLE_GOAL_S, what="nobody works for a node that is gone")
    stub.modes.clear()
    await a.start()
    await until_met(a)
    assert await history(a, name, "s") == ["one."]
    assert await ask(a, name, "s", "three.") == 200
    assert await history(a, name, "s") == ["one.", "three."]
