"""Ten thousand sessions of one agent, on disk: each has its own turns, and a node keeps nothing of those that are silent."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from pathlib import Path

from tests.rig.rooms import Rooms, an_agent

from astromesh.dialogue import Message
from astromesh.memory.backends.sqlite import Sqlite
from astromesh.memory.port import Conversation
from astromesh.providers.backends.scripted import Scripted

SESSIONS = 10_000
AT_ONCE = 500  # less than the runs that a node conducts
WATCHED = 1000
GROWTH_BYTES_A_SESSION = 100  # less than the smallest value of its own


async def test_ten_thousand_sessions_are_kept_apart_and_cost_a_node_no_memory(tmp_path: Path) -> None:
    rooms = Rooms()
    memory = Sqlite(tmp_path / "conversations.sqlite3")
    model = Scripted(["Noted."] * SESSIONS)
    rooms.hosts(an_agent(provider=model, memory=memory))

    async def begin(first: int, last: int) -> int:
        """Bytes that are in use afterwards."""
        for start in range(first, last, AT_ONCE):
            numbers = range(start, start + AT_ONCE)
            done = await asyncio.gather(*(rooms.ask(f"I am {number}.", session_id=f"s{number}", watched=False) for number in numbers))
            assert {each["answer"] for each in done} == {"Noted."}
            model.asked.clear()
        del done
        gc.collect()
        return tracemalloc.get_traced_memory()[0] if tracemalloc.is_tracing() else 0

    await begin(0, SESSIONS - 4 * WATCHED)
    tracemalloc.start()
    # What the node keeps of its last runs is exchanged for what is counted.
    begun = await begin(SESSIONS - 4 * WATCHED, SESSIONS - 2 * WATCHED)
    half = await begin(SESSIONS - 2 * WATCHED, SESSIONS - WATCHED)
    after = await begin(SESSIONS - WATCHED, SESSIONS)
    tracemalloc.stop()
    # A set of the loop's own may be given more room in one of the two, which is no growth by session: that would be in both.
    assert min(half - begun, after - half) < GROWTH_BYTES_A_SESSION * WATCHED
    for number in range(0, SESSIONS, 97):
        kept = await memory.recall(Conversation("desk", f"s{number}"), now=0.0)
        assert [turn.said for turn in kept.turns] == [(Message("user", f"I am {number}."), Message("assistant", "Noted."))]
    await memory.close()
