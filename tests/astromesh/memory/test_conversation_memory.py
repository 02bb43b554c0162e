"""What every backend of the memory must do; each is a parameter of the same tests."""

from __future__ import annotations

import pytest

from astromesh.dialogue import Message, Transcript
from astromesh.memory.backends import in_memory
from astromesh.memory.backends.in_memory import InMemory
from astromesh.memory.port import Conversation, ConversationMemory

DESK = Conversation("desk", "s1")


def turn(number: int) -> Transcript:
    return (Message("user", f"question {number}"), Message("assistant", f"answer {number}"))


@pytest.fixture(params=["in_memory"])
def memory(request: pytest.FixtureRequest) -> ConversationMemory:
    return {"in_memory": InMemory}[request.param]()


async def test_turns_come_back_oldest_first(memory: ConversationMemory) -> None:
    await memory.remember(DESK, turn(1))
    await memory.remember(DESK, turn(2))
    assert await memory.turns(DESK) == (turn(1), turn(2))


async def test_a_conversation_that_nobody_had_has_no_turns(memory: ConversationMemory) -> None:
    assert await memory.turns(DESK) == ()


@pytest.mark.parametrize("other", [Conversation("billing", "s1"), Conversation("desk", "s2")])
async def test_a_history_belongs_to_one_agent_and_one_session(memory: ConversationMemory, other: Conversation) -> None:
    await memory.remember(DESK, turn(1))
    assert await memory.turns(other) == ()


async def test_what_was_read_does_not_change_when_more_is_remembered(memory: ConversationMemory) -> None:
    await memory.remember(DESK, turn(1))
    before = await memory.turns(DESK)
    await memory.remember(DESK, turn(2))
    assert before == (turn(1),)


async def test_in_memory_only_the_last_turns_are_kept() -> None:
    memory = InMemory()
    for number in range(in_memory.TURNS_KEPT_MAX + 5):
        await memory.remember(DESK, turn(number))
    turns = await memory.turns(DESK)
    assert (len(turns), turns[0], turns[-1]) == (in_memory.TURNS_KEPT_MAX, turn(5), turn(in_memory.TURNS_KEPT_MAX + 4))


async def test_in_memory_the_conversation_that_was_silent_longest_is_forgotten_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_memory, "CONVERSATIONS_MAX", 2)
    memory = InMemory()
    first, second, third = (Conversation("desk", name) for name in ("first", "second", "third"))
    await memory.remember(first, turn(1))
    await memory.remember(second, turn(1))
    await memory.remember(first, turn(2))
    await memory.remember(third, turn(1))
    assert [len(await memory.turns(conversation)) for conversation in (first, second, third)] == [2, 0, 1]
