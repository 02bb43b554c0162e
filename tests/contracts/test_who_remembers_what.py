"""Sessions: who shares a history with whom, and what a later turn sees of the earlier ones."""

from __future__ import annotations

from typing import Any

import pytest
from tests.contracts.witness import Witness
from tests.rig.documents import agent, provider
from tests.rig.eventually import eventually
from tests.rig.stub_openai import StubOpenAI

FORGETTING_GOAL_S = 1.0
REMEMBERS = {"conversational": {"backend": "sqlite", "strategy": "sliding_window", "max_turns": 10}}


def heard(stub: StubOpenAI) -> list[str]:
    """What the model was asked last, behind the system prompt."""
    return [message["content"] for message in stub.asked("stub")[-1].body["messages"] if message["role"] != "system"]


async def test_two_clients_without_a_session_id_share_nothing(witness: Witness, stub: StubOpenAI) -> None:
    async with witness.node({**provider(stub.endpoint), **agent("desk", memory=REMEMBERS)}) as node:
        one, other = await node.answer(query="I am Ada."), await node.answer(query="Who am I?")
        assert heard(stub) == ["Who am I?"]
        assert one["session_id"] != other["session_id"]
        assert one["session_id"], "returned, so that the conversation can go on"


async def test_two_agents_given_the_same_session_id_share_nothing(witness: Witness, stub: StubOpenAI) -> None:
    async with witness.node({**provider(stub.endpoint), **agent("desk", memory=REMEMBERS), **agent("till", memory=REMEMBERS)}) as node:
        await node.answer("desk", "I am Ada.", session_id="s-1")
        await node.answer("till", "Who am I?", session_id="s-1")
        assert heard(stub) == ["Who am I?"]
        histories = [(await node.get(f"/v1/memory/{name}/history/s-1"))["history"] for name in ("desk", "till")]
        assert [history[0]["content"] for history in histories] == ["I am Ada.", "Who am I?"]


async def test_an_agent_without_memory_remembers_nothing(witness: Witness, stub: StubOpenAI) -> None:
    async with witness.node({**provider(stub.endpoint), **agent("desk")}) as node:
        first = await node.answer(query="I am Ada.")
        await node.answer(query="Who am I?", session_id=first["session_id"])
        assert heard(stub) == ["Who am I?"]


@pytest.mark.parametrize(
    "memory",
    [
        {"backend": "in_memory", "strategy": "sliding_window", "max_turns": 3},
        {"backend": "sqlite", "strategy": "token_budget", "max_tokens": 300},
        {"backend": "in_memory", "strategy": "summary", "window_size": 3},
    ],
    ids=["sliding_window", "token_budget", "summary"],
)
async def test_a_later_turn_sees_the_earlier_ones(witness: Witness, stub: StubOpenAI, memory: dict[str, Any]) -> None:
    async with witness.node({**provider(stub.endpoint), **agent("desk", memory={"conversational": memory})}) as node:
        first = await node.answer(query="I am Ada.")
        await node.answer(query="Who am I?", session_id=first["session_id"])
        assert heard(stub) == ["I am Ada.", "You said: I am Ada.", "Who am I?"]


async def test_a_conversation_kept_in_sqlite_outlives_the_node_and_one_in_memory_does_not(witness: Witness, stub: StubOpenAI) -> None:
    files = {
        **provider(stub.endpoint),
        **agent("kept", memory=REMEMBERS),
        **agent("lost", memory={"conversational": {"backend": "in_memory"}}),
    }
    async with witness.node(files) as node:
        for name in ("kept", "lost"):
            await node.answer(name, "I am Ada.", session_id="s-1")
    async with witness.node(files) as node:
        await node.answer("kept", "Who am I?", session_id="s-1")
        assert len(heard(stub)) == 3
        await node.answer("lost", "Who am I?", session_id="s-1")
        assert heard(stub) == ["Who am I?"]


async def test_what_falls_out_of_a_window_of_tokens_or_turns_is_not_sent(witness: Witness, stub: StubOpenAI) -> None:
    short = {"conversational": {"backend": "in_memory", "max_turns": 1}}
    tight = {"conversational": {"backend": "in_memory", "strategy": "token_budget", "max_tokens": 20}}
    async with witness.node({**provider(stub.endpoint), **agent("short", memory=short), **agent("tight", memory=tight)}) as node:
        for name in ("short", "tight"):
            for query in ("I am Ada.", "I live in a village near the lake, with two cats.", "Who am I?"):
                await node.answer(name, query, session_id="s-1")
            assert "I am Ada." not in heard(stub)


async def test_turns_that_leave_the_window_are_summed_up(witness: Witness, stub: StubOpenAI) -> None:
    folding = {"conversational": {"backend": "in_memory", "strategy": "summary", "max_turns": 1}}
    async with witness.node({**provider(stub.endpoint), **agent("desk", memory=folding)}) as node:
        for query in ("I am Ada.", "I like tea.", "I have cats.", "Who am I?"):
            await node.answer(query=query, session_id="s-1")
        kept = await node.get("/v1/memory/desk/history/s-1")
        assert "I am Ada." in kept["summary"]


async def test_a_history_is_forgotten_after_its_time(witness: Witness, stub: StubOpenAI) -> None:
    brief = {"conversational": {"backend": "in_memory", "ttl": "1ms"}}
    async with witness.node({**provider(stub.endpoint), **agent("desk", memory=brief)}) as node:
        await node.answer(query="I am Ada.", session_id="s-1")

        async def forgotten() -> bool:
            return not (await node.get("/v1/memory/desk/history/s-1"))["history"]

        await eventually(forgotten, FORGETTING_GOAL_S)
        await node.answer(query="Who am I?", session_id="s-1")
        assert heard(stub) == ["Who am I?"]
