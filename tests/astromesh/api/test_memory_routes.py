"""What an agent remembers of a session, over HTTP: shown, deleted, and refused where there is nothing to show."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from tests.rig.doors import Doors, open_doors
from tests.rig.rooms import Rooms, an_agent

from astromesh.dialogue import ModelReply, ToolCall
from astromesh.providers.backends.scripted import Scripted
from astromesh.tools.backends.datetime_now import DatetimeNow


@pytest.fixture
def rooms() -> Rooms:
    return Rooms()


@pytest.fixture
async def doors(rooms: Rooms) -> AsyncIterator[Doors]:
    model = Scripted([ModelReply("", (ToolCall("c1", "datetime_now", "{}"),)), "Noon.", "One."])
    rooms.hosts(an_agent(provider=model, tools=[DatetimeNow()], memory=rooms.memory), an_agent("mute", provider=Scripted(["No."])))
    async with open_doors(rooms) as opened:
        yield opened


async def delete(doors: Doors, path: str) -> tuple[int, dict[str, object]]:
    async with doors.http.delete(path) as response:
        return response.status, await response.json(content_type=None)


async def test_a_history_is_shown_with_the_calls_of_tools_and_their_results(doors: Doors) -> None:
    await doors.run({"query": "What time is it?", "session_id": "a/b c"})
    status, shown = await doors.get("/v1/memory/desk/history/a%2Fb%20c")
    assert status == 200
    assert shown.keys() == {"agent", "session_id", "history", "limit", "summary"}
    assert (shown["agent"], shown["session_id"], shown["limit"], shown["summary"]) == ("desk", "a/b c", 1000, None)
    assert [row["role"] for row in shown["history"]] == ["user", "assistant", "tool", "assistant"]
    question, call, result, answer = shown["history"]
    assert (question["content"], answer["content"]) == ("What time is it?", "Noon.")
    assert call["tool_calls"] == [{"id": "c1", "name": "datetime_now", "arguments": "{}"}]
    assert result["tool_call_id"] == "c1"
    assert len({row["turn"] for row in shown["history"]}) == 1
    assert len({row["ts"] for row in shown["history"]}) == 1


async def test_a_limit_counts_turns_and_the_newest_are_shown(doors: Doors) -> None:
    await doors.run({"query": "What time is it?", "session_id": "s"})
    await doors.run({"query": "And now?", "session_id": "s"})
    _, shown = await doors.get("/v1/memory/desk/history/s/?limit=1")
    assert [row["content"] for row in shown["history"]] == ["And now?", "One."]
    for wrong in ("0", "1001", "-1", "many", "9" * 5000, "٣"):
        status, problem = await doors.get("/v1/memory/desk/history/s", params={"limit": wrong})
        assert (status, problem["code"], problem["param"]) == (422, "invalid_request", "limit")


async def test_what_is_deleted_is_gone_and_the_next_turn_begins_anew(doors: Doors) -> None:
    await doors.run({"query": "What time is it?", "session_id": "s"})
    assert await delete(doors, "/v1/memory/desk/history/s") == (
        200,
        {"agent": "desk", "session_id": "s", "status": "cleared", "turns": 1},
    )
    assert (await doors.get("/v1/memory/desk/history/s"))[1]["history"] == []
    assert (await delete(doors, "/v1/memory/desk/history/s"))[1]["turns"] == 0
    await doors.run({"query": "And now?", "session_id": "s"})
    assert len((await doors.get("/v1/memory/desk/history/s"))[1]["history"]) == 2


async def test_there_is_no_history_of_an_agent_that_nobody_has_or_that_remembers_nothing(rooms: Rooms, doors: Doors) -> None:
    for path, code, said in (
        ("/v1/memory/nobody/history/s", "agent_not_found", "no node"),
        ("/v1/memory/mute/history/s", "agent_without_memory", "remembers nothing"),
    ):
        for status, problem in (await doors.get(path), await delete(doors, path)):
            assert (status, problem["code"]) == (404, code)
            assert said in str(problem["detail"])
            assert problem["hint"]


async def test_a_page_of_another_origin_deletes_nothing(doors: Doors) -> None:
    await doors.run({"query": "What time is it?", "session_id": "s"})
    async with doors.http.delete("/v1/memory/desk/history/s", headers={"Origin": "https://elsewhere.example"}) as response:
        assert response.status == 403
    assert (await doors.get("/v1/memory/desk/history/s"))[1]["history"]
