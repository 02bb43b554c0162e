"""What every backend of the memory must do; each is a parameter of the same tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from astromesh.dialogue import Message, ToolCall
from astromesh.errors import TurnTooLarge
from astromesh.memory import port
from astromesh.memory.backends import in_memory
from astromesh.memory.backends.in_memory import InMemory
from astromesh.memory.backends.sqlite import Sqlite
from astromesh.memory.port import TURN_BYTES_MAX, TURNS_KEPT_MAX, Conversation, ConversationMemory, History, Summary, Turn

DESK = Conversation("desk", "s1")
NOW = 1_000_000.0


def turn(number: int, *, at: float = NOW, text: str = "") -> Turn:
    said = (Message("user", f"question {number}"), Message("assistant", text or f"answer {number}"))
    return Turn(f"t{number}", at, said)


@pytest.fixture(params=["in_memory", "sqlite"])
async def memory(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ConversationMemory]:
    backend: ConversationMemory = InMemory() if request.param == "in_memory" else Sqlite(tmp_path / "conversations.sqlite3")
    yield backend
    await backend.close()


async def test_turns_come_back_whole_and_oldest_first(memory: ConversationMemory) -> None:
    call = ToolCall("c1", "clock", '{"zone": "UTC"}')
    tooled = Turn(
        "t2", NOW + 1, (Message("user", "Time?"), Message("assistant", "", (call,)), Message("tool", "12\x00:00 ☀", tool_call_id="c1"))
    )
    await memory.remember(DESK, turn(1))
    await memory.remember(DESK, tooled)
    assert await memory.recall(DESK, now=NOW) == History((turn(1), tooled))


async def test_a_conversation_that_nobody_had_has_no_turns(memory: ConversationMemory) -> None:
    assert await memory.recall(DESK, now=NOW) == History()
    assert await memory.forget(DESK) == 0


@pytest.mark.parametrize("other", [Conversation("billing", "s1"), Conversation("desk", "s2"), Conversation("desk", "s1", "elsewhere")])
async def test_a_history_belongs_to_one_agent_of_one_namespace_and_one_session(memory: ConversationMemory, other: Conversation) -> None:
    await memory.remember(DESK, turn(1))
    assert await memory.recall(other, now=NOW) == History()
    await memory.remember(other, turn(1))
    assert await memory.forget(DESK) == 1
    assert (await memory.recall(other, now=NOW)).turns == (turn(1),)


async def test_only_the_newest_turns_are_read_where_no_more_are_asked_for(memory: ConversationMemory) -> None:
    for number in range(5):
        await memory.remember(DESK, turn(number))
    assert (await memory.recall(DESK, now=NOW, turns_max=2)).turns == (turn(3), turn(4))


async def test_no_turn_is_kept_twice(memory: ConversationMemory) -> None:
    await memory.remember(DESK, turn(1))
    await memory.remember(DESK, turn(2))
    await memory.remember(DESK, turn(1))
    assert (await memory.recall(DESK, now=NOW)).turns == (turn(1), turn(2))


async def test_turns_that_come_at_once_are_all_kept(memory: ConversationMemory) -> None:
    sessions = [Conversation("desk", f"s{number % 7}") for number in range(200)]
    await asyncio.gather(*(memory.remember(session, turn(number)) for number, session in enumerate(sessions)))
    for place in range(7):
        kept = (await memory.recall(sessions[place], now=NOW)).turns
        assert kept == tuple(turn(number) for number in range(place, 200, 7))


async def test_of_a_long_conversation_the_last_turns_are_kept(memory: ConversationMemory) -> None:
    await asyncio.gather(*(memory.remember(DESK, turn(number)) for number in range(TURNS_KEPT_MAX + 5)))
    turns = (await memory.recall(DESK, now=NOW)).turns
    assert (len(turns), turns[0], turns[-1]) == (TURNS_KEPT_MAX, turn(5), turn(TURNS_KEPT_MAX + 4))
    assert await memory.forget(DESK) == TURNS_KEPT_MAX


async def test_a_turn_that_is_too_large_is_refused_and_the_others_stay(memory: ConversationMemory) -> None:
    await memory.remember(DESK, turn(1))
    with pytest.raises(TurnTooLarge, match=str(TURN_BYTES_MAX)):
        await memory.remember(DESK, turn(2, text="x" * TURN_BYTES_MAX))
    assert (await memory.recall(DESK, now=NOW)).turns == (turn(1),)


async def test_a_reading_is_bounded_and_the_newest_turns_are_in_it(memory: ConversationMemory) -> None:
    text = "x" * (TURN_BYTES_MAX - 200)
    fit = port.HISTORY_BYTES_MAX // len(text)
    for number in range(fit + 3):
        await memory.remember(DESK, turn(number, text=text))
    read = (await memory.recall(DESK, now=NOW)).turns
    assert [each.id for each in read] == [f"t{number}" for number in range(3, fit + 3)]


async def test_a_conversation_that_nobody_went_on_with_expires_as_a_whole(memory: ConversationMemory) -> None:
    await memory.remember(DESK, turn(1), expires_at=NOW + 60)
    await memory.remember(DESK, turn(2, at=NOW + 30), expires_at=NOW + 90)
    assert (await memory.recall(DESK, now=NOW + 89)).turns == (turn(1), turn(2, at=NOW + 30))
    assert await memory.recall(DESK, now=NOW + 90) == History()
    await memory.remember(DESK, turn(3, at=NOW + 100), expires_at=NOW + 160)
    assert (await memory.recall(DESK, now=NOW + 100)).turns == (turn(3, at=NOW + 100),)


async def test_what_was_deleted_does_not_come_back_with_a_summary(memory: ConversationMemory) -> None:
    await memory.remember(DESK, turn(1))
    await memory.remember(DESK, turn(2))
    summary = Summary("They spoke.", through="t1")
    await memory.summarise(DESK, summary)
    kept = await memory.recall(DESK, now=NOW)
    assert (kept.summary, kept.unfolded) == (summary, (turn(2),))
    assert (await memory.recall(DESK, now=NOW, turns_max=1)).summary == summary
    assert await memory.forget(DESK) == 2
    await memory.summarise(DESK, summary)
    assert await memory.recall(DESK, now=NOW) == History()


async def test_what_was_read_does_not_change_when_more_is_remembered(memory: ConversationMemory) -> None:
    await memory.remember(DESK, turn(1))
    before = await memory.recall(DESK, now=NOW)
    await memory.remember(DESK, turn(2))
    assert before.turns == (turn(1),)


async def test_in_memory_the_conversation_that_was_silent_longest_is_forgotten_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_memory, "CONVERSATIONS_MAX", 2)
    memory = InMemory()
    first, second, third = (Conversation("desk", name) for name in ("first", "second", "third"))
    await memory.remember(first, turn(1))
    await memory.remember(second, turn(1))
    await memory.remember(first, turn(2))
    await memory.remember(third, turn(1))
    assert [len((await memory.recall(conversation, now=NOW)).turns) for conversation in (first, second, third)] == [2, 0, 1]


async def test_in_memory_what_is_kept_has_a_size_and_the_oldest_goes_first() -> None:
    text, sessions = "x" * 1000, [Conversation("desk", f"s{number}") for number in range(4)]
    memory = InMemory(bytes_max=5_000)  # four such turns, and not five

    async def kept() -> list[list[str]]:
        return [[one.id for one in (await memory.recall(session, now=NOW)).turns] for session in sessions]

    for number, session in enumerate(sessions):
        await memory.remember(session, turn(number, text=text))
    assert await kept() == [["t0"], ["t1"], ["t2"], ["t3"]]
    await memory.remember(sessions[0], turn(4, text=text))
    assert await kept() == [["t0", "t4"], [], ["t2"], ["t3"]]
    for number in range(5, 9):
        await memory.remember(sessions[2], turn(number, text=text))
    assert await kept() == [[], [], ["t5", "t6", "t7", "t8"], []]
    await memory.summarise(sessions[2], Summary(text, "t5"))
    await memory.remember(sessions[2], turn(9, text=text))
    assert await kept() == [[], [], ["t7", "t8", "t9"], []]
    assert await memory.forget(sessions[2]) == 3
    for number in range(4):
        await memory.remember(sessions[number], turn(number, text=text))
    assert await kept() == [["t0"], ["t1"], ["t2"], ["t3"]]  # what went is not counted any more
