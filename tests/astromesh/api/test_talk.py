"""A conversation with an agent over a WebSocket: what is answered, what is refused, and what ends it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from socket import SHUT_RDWR
from typing import Any

import aiohttp
import orjson
import pytest
from tests.rig.doors import Doors, open_doors
from tests.rig.held_model import AMPLE_S, HeldModel
from tests.rig.rooms import Rooms, an_agent

from astromesh.api import event_stream, talk
from astromesh.api.bodies import BODY_BYTES_MAX
from astromesh.dialogue import ModelReply, ToolCall
from astromesh.errors import ModelFailed
from astromesh.providers.backends.scripted import Scripted
from astromesh.tools.backends.datetime_now import DatetimeNow

PATH = "/v1/ws/agent/desk"
Socket = aiohttp.ClientWebSocketResponse[bool]


@pytest.fixture
def rooms() -> Rooms:
    return Rooms()


@pytest.fixture
async def doors(rooms: Rooms) -> AsyncIterator[Doors]:
    async with open_doors(rooms) as opened:
        yield opened


async def heard(socket: Socket) -> dict[str, Any]:
    async with asyncio.timeout(AMPLE_S):
        message: dict[str, Any] = orjson.loads(await socket.receive_str())
        return message


async def until(socket: Socket, *kinds: str) -> list[dict[str, Any]]:
    """Everything up to the first message of one of these types."""
    told = [await heard(socket)]
    while told[-1]["type"] not in kinds:
        told.append(await heard(socket))
    return told


async def until_nothing_runs(rooms: Rooms) -> None:
    async with asyncio.timeout(AMPLE_S):
        while rooms.runtime.active_runs:
            await asyncio.sleep(0.001)


async def test_a_question_is_answered_by_the_events_of_its_run(rooms: Rooms, doors: Doors) -> None:
    model = Scripted([ModelReply("", (ToolCall("c1", "datetime_now", "{}"),), "tool_calls"), "It is noon."])
    rooms.hosts(an_agent(provider=model, tools=[DatetimeNow()]))
    async with doors.http.ws_connect(PATH) as socket:
        await socket.send_json({"query": "What time is it?"})
        told = await until(socket, "done", "error")
    assert (told[0]["type"], told[0]["state"]) == ("status", "started")
    assert told[0]["run_id"] == told[-1]["trace"]["trace_id"]
    kinds = [event["type"] for event in told]
    assert [kind for kind in kinds if kind in ("tool_call", "tool_result", "token", "done")] == (
        ["tool_call", "tool_result", "token", "token", "token", "done"]
    )
    assert next(event for event in told if event["type"] == "token") == {"type": "token", "content": "It ", "index": 0}
    assert told[-1]["answer"] == "It is noon."


async def test_tokens_come_as_the_model_makes_them(rooms: Rooms, doors: Doors) -> None:
    model = HeldModel("One ", "two.")
    rooms.hosts(an_agent(provider=model))
    async with doors.http.ws_connect(PATH) as socket:
        await socket.send_json({"query": "Count"})
        model.let()
        await until(socket, "token")
        assert model.said == 1
        model.let(2)
        assert (await until(socket, "done"))[-1]["answer"] == "One two."


async def test_a_question_that_is_taken_back_in_the_same_breath_ends_and_the_next_one_is_answered(rooms: Rooms, doors: Doors) -> None:
    rooms.hosts(an_agent(provider=Scripted(["Yes."])))
    async with doors.http.ws_connect(PATH) as socket:
        await asyncio.gather(socket.send_json({"query": "One?"}), socket.send_json({"cancel": True}))
        ended = (await until(socket, "error", "done"))[-1]
        assert (ended["type"], ended["code"]) == ("error", "run_cancelled")
        await socket.send_json({"query": "Two?"})
        assert (await until(socket, "error", "done"))[-1]["answer"] == "Yes."


async def test_a_client_that_asks_and_leaves_in_the_same_breath_leaves_no_run_behind(rooms: Rooms, doors: Doors) -> None:
    rooms.hosts(an_agent(provider=HeldModel("never")))
    async with doors.http.ws_connect(PATH) as socket:
        await asyncio.gather(socket.send_json({"query": "One?"}), socket.close())
    await until_nothing_runs(rooms)


async def test_a_connection_is_a_session(rooms: Rooms, doors: Doors) -> None:
    model = Scripted(["Hello, Ada.", "You are Ada.", "I do not know.", "Still Ada."])
    rooms.hosts(an_agent(provider=model, memory=rooms.memory))
    async with doors.http.ws_connect(PATH) as socket:
        await socket.send_json({"query": "I am Ada."})
        first = (await until(socket, "done"))[-1]
        await socket.send_json({"query": "Who am I?"})
        second = (await until(socket, "done"))[-1]
    async with doors.http.ws_connect(PATH) as socket:
        await socket.send_json({"query": "Who am I?"})
        await until(socket, "done")
    async with doors.http.ws_connect(f"{PATH}?session_id={first['session_id']}") as socket:
        await socket.send_json({"query": "And now?"})
        assert (await until(socket, "done"))[-1]["session_id"] == first["session_id"]
    assert second["session_id"] == first["session_id"]
    assert [len(asked.transcript) for asked in model.asked] == [1, 3, 1, 5]


async def test_the_context_reaches_the_agents_templates(rooms: Rooms, doors: Doors) -> None:
    model = Scripted(["Yes."])
    rooms.hosts(an_agent(provider=model, context="It is {{ day }}."))
    async with doors.http.ws_connect(PATH) as socket:
        await socket.send_json({"query": "Open?", "context": {"day": "Sunday"}})
        await until(socket, "done")
    assert model.asked[0].transcript[0].content == "It is Sunday.\n\nOpen?"


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (b"{", "malformed_body"),
        (b"\xff\xfe", "malformed_body"),
        (b'"query"', "malformed_body"),
        (b"{}", "invalid_request"),
        (b'{"query": ""}', "invalid_request"),
        (b'{"query": 7}', "invalid_request"),
        (b'{"query": "Hello", "mood": "sunny"}', "invalid_request"),
        (b'{"query": "Hello", "cancel": true}', "invalid_request"),
        (b'{"cancel": false}', "invalid_request"),
        (b'{"query": "Hello", "context": {"a": [' + b"1," * 30_000 + b"1]}}", "too_many_values"),
    ],
)
async def test_what_cannot_be_meant_is_an_error_and_the_connection_stays(rooms: Rooms, doors: Doors, message: bytes, code: str) -> None:
    model = Scripted(["Good day."])
    rooms.hosts(an_agent(provider=model))
    async with doors.http.ws_connect(PATH) as socket:
        await socket.send_frame(message, aiohttp.WSMsgType.TEXT)
        refusal = await heard(socket)
        assert (refusal["type"], refusal["code"]) == ("error", code)
        assert refusal["hint"]
        assert "run_id" not in refusal
        assert model.asked == []
        await socket.send_json({"query": "Hello"})
        assert (await until(socket, "done"))[-1]["answer"] == "Good day."


async def test_a_binary_message_is_an_error_and_the_connection_stays(rooms: Rooms, doors: Doors) -> None:
    rooms.hosts(an_agent(provider=Scripted(["Good day."])))
    async with doors.http.ws_connect(PATH) as socket:
        await socket.send_bytes(b'{"query": "Hello"}')
        assert (await heard(socket))["code"] == "malformed_body"
        await socket.send_json({"query": "Hello"})
        await until(socket, "done")


async def test_a_second_question_during_an_answer_is_refused_and_disturbs_nothing(rooms: Rooms, doors: Doors) -> None:
    model = HeldModel("One ", "two.")
    rooms.hosts(an_agent(provider=model))
    async with doors.http.ws_connect(PATH) as socket:
        await socket.send_json({"query": "Count"})
        model.let()
        await until(socket, "token")
        await socket.send_json({"query": "Faster"})
        refusal = await heard(socket)
        assert (refusal["type"], refusal["code"]) == ("error", "run_under_way")
        model.let(2)
        assert (await until(socket, "done"))[-1]["answer"] == "One two."
    assert len(model.asked) == 1


async def test_a_thousand_messages_are_answered_one_by_one_and_the_run_goes_on(rooms: Rooms, doors: Doors) -> None:
    model = HeldModel("Done.")
    rooms.hosts(an_agent(provider=model))
    async with doors.http.ws_connect(PATH) as socket:
        await socket.send_json({"query": "Work"})
        await heard(socket)
        sending = asyncio.create_task(send_each(socket, [b"nonsense"] * 1000))
        assert {(await heard(socket))["code"] for _ in range(1000)} == {"malformed_body"}
        await sending
        model.let_all()
        assert (await until(socket, "done"))[-1]["answer"] == "Done."


async def send_each(socket: Socket, messages: list[bytes]) -> None:
    for message in messages:
        await socket.send_frame(message, aiohttp.WSMsgType.TEXT)


async def test_cancel_ends_the_run_and_the_next_question_is_answered(rooms: Rooms, doors: Doors) -> None:
    model = HeldModel("One ", "two.")
    rooms.hosts(an_agent(provider=model))
    async with doors.http.ws_connect(PATH) as socket:
        await socket.send_json({"query": "Count"})
        model.let()
        run_id = (await until(socket, "token"))[0]["run_id"]
        await socket.send_json({"cancel": True})
        ended = (await until(socket, "error"))[-1]
        assert (ended["code"], ended["run_id"]) == ("run_cancelled", run_id)
        await model.was_released()
        assert model.finished == 0
        await socket.send_json({"query": "Again"})
        model.let_all()
        assert (await until(socket, "done", "error"))[-1]["answer"] == "One two."


async def test_a_cancel_that_comes_too_late_is_answered_and_harms_nothing(rooms: Rooms, doors: Doors) -> None:
    rooms.hosts(an_agent(provider=Scripted(["One.", "Two."])))
    async with doors.http.ws_connect(PATH) as socket:
        await socket.send_json({"cancel": True})
        assert await heard(socket) == {"type": "status", "state": "idle"}
        await socket.send_json({"query": "Hello"})
        await until(socket, "done")
        await socket.send_json({"cancel": True})
        assert await heard(socket) == {"type": "status", "state": "idle"}


async def test_a_run_that_fails_is_an_error_with_its_id_and_the_connection_stays(rooms: Rooms, doors: Doors) -> None:
    model = Scripted([ModelFailed("the worker died", code="model_provider_unavailable", hint="look at its log"), "Good day."])
    rooms.hosts(an_agent(provider=model))
    async with doors.http.ws_connect(PATH) as socket:
        await socket.send_json({"query": "Hello"})
        started, failed = await until(socket, "error")
        assert (failed["code"], failed["hint"], failed["run_id"]) == ("model_provider_unavailable", "look at its log", started["run_id"])
        await socket.send_json({"query": "Hello"})
        await until(socket, "done")


async def test_an_agent_that_nobody_has_any_more_is_an_error(rooms: Rooms, doors: Doors) -> None:
    rooms.hosts(an_agent(provider=Scripted([])))
    async with doors.http.ws_connect(PATH) as socket:
        rooms.runtime.agents = {}
        await socket.send_json({"query": "Hello"})
        assert (await heard(socket))["code"] == "agent_not_found"


async def test_an_agent_that_nobody_has_is_refused_before_the_connection(doors: Doors) -> None:
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await doors.http.ws_connect("/v1/ws/agent/nobody")
    assert refused.value.status == 404


async def test_an_agent_that_is_paused_gets_its_connection(rooms: Rooms, doors: Doors) -> None:
    agent = an_agent(provider=Scripted([]))
    rooms.runtime.paused = {agent.key: agent}
    async with doors.http.ws_connect(PATH) as socket:
        await socket.send_json({"query": "Hello"})
        assert (await heard(socket))["code"] == "agent_paused"


@pytest.mark.parametrize("politely", [True, False])
async def test_a_client_that_leaves_cancels_its_run(rooms: Rooms, doors: Doors, *, politely: bool) -> None:
    model = HeldModel("One ", "two.")
    rooms.hosts(an_agent(provider=model))
    async with aiohttp.ClientSession(doors.url) as http:
        socket = await http.ws_connect(PATH)
        await socket.send_json({"query": "Count"})
        model.let()
        await until(socket, "token")
        if politely:
            await socket.close()
        else:
            socket.get_extra_info("socket").shutdown(SHUT_RDWR)
        await model.was_released()
        await until_nothing_runs(rooms)
    assert model.finished == 0


async def test_a_client_that_does_not_answer_pings_has_left(monkeypatch: pytest.MonkeyPatch, rooms: Rooms, doors: Doors) -> None:
    monkeypatch.setattr(talk, "HEARTBEAT_S", 0.05)
    model = HeldModel("One ", "two.")
    rooms.hosts(an_agent(provider=model))
    socket = await doors.http.ws_connect(PATH, autoping=False)
    await socket.send_json({"query": "Count"})
    await model.was_begun()
    await model.was_released()
    await until_nothing_runs(rooms)


async def test_a_slow_reader_slows_the_model_and_nothing_grows(rooms: Rooms, doors: Doors) -> None:
    words = 200_000
    model = HeldModel(*(["some words that take room on their way "] * words))
    model.let_all()
    rooms.hosts(an_agent(provider=model))
    socket = await doors.http.ws_connect(PATH)
    await socket.send_json({"query": "Talk"})
    await model.was_begun()
    before = -1
    async with asyncio.timeout(AMPLE_S):
        while model.said != before:
            before = model.said
            for _ in range(200):
                await asyncio.sleep(0)
    assert 0 < model.said < words
    await socket.close()
    await model.was_released()


async def test_a_message_that_is_too_large_ends_the_connection_and_no_other(rooms: Rooms, doors: Doors) -> None:
    rooms.hosts(an_agent(provider=Scripted(["Good day."])))
    async with doors.http.ws_connect(PATH) as other, doors.http.ws_connect(PATH) as socket:
        sending = asyncio.create_task(socket.send_str(" " * (BODY_BYTES_MAX + 1)))
        async with asyncio.timeout(AMPLE_S):
            message = await socket.receive()
        assert (message.type, socket.close_code) == (aiohttp.WSMsgType.CLOSE, aiohttp.WSCloseCode.MESSAGE_TOO_BIG)
        sending.cancel()
        await asyncio.wait([sending])
        await other.send_json({"query": "Hello"})
        assert (await until(other, "done"))[-1]["answer"] == "Good day."


async def test_ten_megabytes_of_question_are_heard(rooms: Rooms, doors: Doors) -> None:
    model = Scripted(["That was long."])
    rooms.hosts(an_agent(provider=model))
    async with doors.http.ws_connect(PATH) as socket:
        await socket.send_json({"query": "a" * (BODY_BYTES_MAX - 100)})
        assert (await until(socket, "done", "error"))[-1]["answer"] == "That was long."


@pytest.mark.parametrize(
    ("headers", "status"), [({"Origin": "http://evil.example"}, 403), ({"Host": "evil.example"}, 403), ({"Origin": "null"}, 403)]
)
async def test_a_page_of_another_origin_gets_no_connection(rooms: Rooms, doors: Doors, headers: dict[str, str], status: int) -> None:
    rooms.hosts(an_agent(provider=Scripted([])))
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await doors.http.ws_connect(PATH, headers=headers)
    assert refused.value.status == status


async def test_a_session_that_cannot_be_is_refused_before_the_connection(doors: Doors) -> None:
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await doors.http.ws_connect(f"{PATH}?session_id={'x' * 201}")
    assert refused.value.status == 422


@pytest.mark.parametrize(("path", "status"), [("/v1/ws/agent/a%20b", 404), (f"{PATH}?namespace=a%20b", 422)])
async def test_an_agent_that_cannot_be_is_refused_before_the_connection(doors: Doors, path: str, status: int) -> None:
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await doors.http.ws_connect(path)
    assert refused.value.status == status


async def test_whoever_asks_without_an_upgrade_is_told_so(doors: Doors) -> None:
    status, problem = await doors.get(PATH)
    assert (status, problem["code"]) == (426, "upgrade_required")


async def test_more_connections_than_a_node_holds_are_refused(monkeypatch: pytest.MonkeyPatch, rooms: Rooms, doors: Doors) -> None:
    rooms.hosts(an_agent(provider=Scripted([])))
    monkeypatch.setattr(talk, "TALKS_MAX", 1)
    async with doors.http.ws_connect(PATH):
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await doors.http.ws_connect(PATH)
        assert refused.value.status == 429
    async with asyncio.timeout(AMPLE_S):
        while True:
            try:
                async with doors.http.ws_connect(PATH):
                    break
            except aiohttp.WSServerHandshakeError:
                await asyncio.sleep(0.01)


async def test_a_node_that_closes_its_doors_says_goodbye() -> None:
    rooms = Rooms()
    rooms.hosts(an_agent(provider=Scripted([])))
    async with aiohttp.ClientSession() as http:
        async with open_doors(rooms) as doors:
            socket = await http.ws_connect(f"{doors.url}{PATH}")
            hearing = asyncio.create_task(socket.receive())
        async with asyncio.timeout(AMPLE_S):
            assert (await hearing).data == aiohttp.WSCloseCode.GOING_AWAY


async def test_silence_is_filled_with_pings_that_are_answered_by_the_client(
    monkeypatch: pytest.MonkeyPatch, rooms: Rooms, doors: Doors
) -> None:
    monkeypatch.setattr(talk, "HEARTBEAT_S", 0.02)
    assert event_stream.HEARTBEAT_S > talk.HEARTBEAT_S
    model = HeldModel("One.")
    rooms.hosts(an_agent(provider=model))
    async with doors.http.ws_connect(PATH, autoping=False) as socket:
        await socket.send_json({"query": "Hello"})
        pings = 0
        while pings < 5:
            message = await socket.receive()
            if message.type is aiohttp.WSMsgType.PING:
                pings += 1
                await socket.pong(message.data)
        model.let_all()
        while True:
            message = await socket.receive()
            if message.type is aiohttp.WSMsgType.PING:
                await socket.pong(message.data)
            elif orjson.loads(message.data)["type"] == "done":
                break
