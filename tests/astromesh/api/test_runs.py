"""Asking an agent: as JSON, as a stream of events, and how it fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import orjson
import pytest
from tests.rig.doors import Doors, open_doors, sent_events
from tests.rig.held_model import AMPLE_S, HeldModel
from tests.rig.mesh_view import member
from tests.rig.rooms import Rooms, an_agent

from astromesh.dialogue import ModelReply, ToolCall
from astromesh.errors import (
    AstromeshError,
    DeadlineExceeded,
    MissingExtra,
    ModelFailed,
    ModelRefused,
    ModelUnavailable,
    Overloaded,
    PeerLost,
    TurnsExhausted,
)
from astromesh.providers.backends.scripted import Scripted
from astromesh.tools.backends.datetime_now import DatetimeNow

DONE_KEYS = {"answer", "steps", "usage", "trace", "data", "session_id", "node", "home", "handoffs"}
PROBLEM_KEYS = {"type", "title", "status", "detail", "code", "hint"}


@pytest.fixture
def rooms() -> Rooms:
    return Rooms()


@pytest.fixture
async def doors(rooms: Rooms) -> AsyncIterator[Doors]:
    async with open_doors(rooms) as opened:
        yield opened


def says(rooms: Rooms, *replies: ModelReply | AstromeshError | str) -> Scripted:
    model = Scripted(replies)
    rooms.hosts(an_agent(provider=model, tools=[DatetimeNow()], memory=rooms.memory))
    return model


async def test_an_answer_has_the_keys_of_the_contract_and_its_headers_say_who_made_it(rooms: Rooms, doors: Doors) -> None:
    says(rooms, "Good day.")
    status, body, headers = await doors.run({"query": "Hello"})
    assert status == 200
    assert body.keys() >= DONE_KEYS
    assert (body["answer"], body["node"], body["home"], body["handoffs"]) == ("Good day.", "here", "here", [])
    assert body["usage"].keys() == {"tokens_in", "tokens_out", "model", "by_model"}
    assert body["usage"]["by_model"][0].keys() == {"provider", "model", "role", "calls", "tokens_in", "tokens_out", "cost"}
    assert body["steps"][0].keys() == {"thought", "action", "action_input", "observation", "result"}
    assert body["session_id"]
    assert [span["name"] for span in body["trace"]["spans"]] == ["agent.run", "memory_build", "llm.complete", "memory_persist"]
    assert {name: headers[name] for name in headers if name.startswith("X-Astromesh-")} == {
        "X-Astromesh-Node": "here",
        "X-Astromesh-Home": "here",
        "X-Astromesh-Route": "local",
        "X-Astromesh-Attempts": "1",
    }
    assert headers["Content-Type"].startswith("application/json")


async def test_a_json_answer_asks_the_model_for_one_piece_and_a_stream_for_many(rooms: Rooms, doors: Doors) -> None:
    model = says(rooms, "One.", "Two.")
    await doors.run({"query": "Hello"})
    async with doors.http.post("/v1/agents/desk/run", json={"query": "Hello", "stream": True}) as response:
        await response.read()
    assert [asked.stream for asked in model.asked] == [False, True]


async def test_a_session_is_gone_on_with_and_a_missing_one_is_fresh(rooms: Rooms, doors: Doors) -> None:
    model = says(rooms, "Hello, Ada.", "You are Ada.", "I do not know.")
    _, first, _ = await doors.run({"query": "I am Ada."})
    _, second, _ = await doors.run({"query": "Who am I?", "session_id": first["session_id"]})
    _, third, _ = await doors.run({"query": "Who am I?"})
    assert [len(asked.transcript) for asked in model.asked] == [1, 3, 1]
    assert second["session_id"] == first["session_id"] != third["session_id"]


@pytest.mark.parametrize(
    "how", [{"json": {"query": "Time?", "stream": True}}, {"json": {"query": "Time?"}, "headers": {"Accept": "text/event-stream"}}]
)
async def test_a_stream_has_numbered_events_in_the_order_in_which_things_happened(
    rooms: Rooms, doors: Doors, how: dict[str, object]
) -> None:
    says(rooms, ModelReply("", (ToolCall("c1", "datetime_now", "{}"),), "tool_calls"), "It is noon.")
    async with doors.http.post("/v1/agents/desk/run", **how) as response:  # type: ignore[arg-type]
        assert response.status == 200
        assert response.headers["Content-Type"].startswith("text/event-stream")
        assert response.headers["X-Astromesh-Node"] == "here"
        events = [event async for event in sent_events(response)]
    assert [event.event for event in events] == (
        ["route", "usage", "tool_call", "tool_result", "step", "route", "token", "token", "token", "usage", "step", "done"]
    )
    assert [int(event.id) for event in events] == list(range(len(events)))
    assert events[2].data == {"id": "c1", "name": "datetime_now", "arguments": "{}"}
    assert events[3].data == {"id": "c1", "ok": True}
    assert [event.data for event in events if event.event == "token"] == [
        {"content": "It ", "index": 0},
        {"content": "is ", "index": 1},
        {"content": "noon.", "index": 2},
    ]
    assert events[-1].data.keys() >= DONE_KEYS
    assert events[-1].data["answer"] == "It is noon."


async def test_tokens_arrive_while_the_model_still_speaks(rooms: Rooms, doors: Doors) -> None:
    model = HeldModel("One ", "two.")
    rooms.hosts(an_agent(provider=model))
    model.let()
    async with asyncio.timeout(AMPLE_S), doors.http.post("/v1/agents/desk/run", json={"query": "Hello", "stream": True}) as response:
        async for event in sent_events(response):
            if event.event == "token" and event.data["index"] == 0:
                assert model.said == 1
                model.let(2)
    assert model.finished == 1


async def test_an_error_in_mid_stream_is_the_last_event_and_numbered_after_all_others(rooms: Rooms, doors: Doors) -> None:
    model = HeldModel("One ", "two ", failure=ModelFailed("the worker died", code="model_provider_unavailable", hint="look at its log"))
    model.let_all()
    rooms.hosts(an_agent(provider=model))
    async with doors.http.post("/v1/agents/desk/run", json={"query": "Hello", "stream": True}) as response:
        events = [event async for event in sent_events(response)]
    assert [event.event for event in events] == ["route", "token", "token", "error"]
    assert [int(event.id) for event in events] == [0, 1, 2, 3]
    assert events[-1].data == {"code": "model_provider_unavailable", "message": "the worker died", "hint": "look at its log"}


async def test_a_deadline_in_mid_stream_says_what_was_done(rooms: Rooms, doors: Doors) -> None:
    model = HeldModel("One ", "two ")
    model.let()
    rooms.hosts(an_agent(provider=model, timeout_s=0.1))
    async with doors.http.post("/v1/agents/desk/run", json={"query": "Hello", "stream": True}) as response:
        events = [event async for event in sent_events(response)]
    assert (events[-1].event, events[-1].data["code"]) == ("error", "timeout")
    assert events[-1].data["detail"] == {"error": "timeout", "agent": "desk", "timeout_seconds": 0.1, "steps": []}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("failure", "status", "code"),
    [
        (ModelFailed("no", code="model_connection_refused", hint="start it"), 502, "model_connection_refused"),
        (ModelUnavailable("gone", hint="wait", retry_after_s=7), 503, "model_unavailable"),
        (Overloaded("busy", hint="wait", retry_after_s=7), 429, "overloaded"),
        (ModelRefused("8 tokens", hint="say less"), 400, "model_refused_request"),
        (PeerLost("gone", hint="again"), 502, "peer_lost"),
        (TurnsExhausted("enough", hint="more"), 502, "turns_exhausted"),
        (MissingExtra("no engine", hint="pip install it"), 503, "missing_extra"),
        (AstromeshError("ours", hint="log"), 500, "internal_error"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
async def test_a_run_that_fails_before_its_first_token_has_a_status_of_its_own(
    rooms: Rooms, doors: Doors, failure: AstromeshError, status: int, code: str, *, stream: bool
) -> None:
    says(rooms, failure)
    async with doors.http.post("/v1/agents/desk/run", json={"query": "Hello", "stream": stream}) as response:
        body = orjson.loads(await response.read())
        assert response.status == body["status"] == status
        assert response.headers["Content-Type"] == "application/problem+json"
        assert response.headers.get("Retry-After") == ("7" if status == 429 or code == "model_unavailable" else None)
    assert body.keys() >= PROBLEM_KEYS
    assert (body["code"], body["hint"]) == (code, failure.hint)
    expected = {"error": code, "message": failure.message, "hint": failure.hint} if status in (502, 503) else failure.message
    assert body["detail"] == expected


async def test_a_run_out_of_time_is_504_and_says_what_was_done(rooms: Rooms, doors: Doors) -> None:
    rooms.hosts(an_agent(provider=HeldModel("never"), timeout_s=0.05))
    status, body, _ = await doors.run({"query": "Hello"})
    assert status == 504
    assert body["detail"] == {"error": "timeout", "agent": "desk", "timeout_seconds": 0.05, "steps": []}
    assert body["code"] == DeadlineExceeded.code


async def test_an_agent_that_nobody_has_is_404(doors: Doors) -> None:
    status, body, _ = await doors.run({"query": "Hello"}, agent="nobody")
    assert (status, body["code"]) == (404, "agent_not_found")
    assert "agents list" in body["hint"]


async def test_an_agent_whose_host_is_gone_is_503(rooms: Rooms, doors: Doors) -> None:
    rooms.sees(member("b-000002", agents=["desk"], status="dead"))
    status, body, headers = await doors.run({"query": "Hello"})
    assert (status, body["code"], headers["Retry-After"]) == (503, "agent_unavailable", "5")


async def test_a_context_that_does_not_fit_the_template_is_422_and_says_which(rooms: Rooms, doors: Doors) -> None:
    rooms.hosts(an_agent(provider=Scripted(["Yes."]), system="{{ count + 1 }}"))
    status, body, _ = await doors.run({"query": "Hello", "context": {"count": "many"}})
    assert (status, body["code"]) == (422, "prompt_unrenderable")
    assert "prompts.system: cannot be rendered: TypeError" in body["detail"]
    assert (await doors.run({"query": "Hello", "context": {"count": 1}}))[0] == 200


async def test_an_agent_whose_document_is_broken_is_404_and_says_where(rooms: Rooms, doors: Doors) -> None:
    rooms.runtime.broken["desk"] = "agents/desk.agent.yaml:7: no model is named"
    status, body, _ = await doors.run({"query": "Hello"})
    assert (status, body["code"]) == (404, "agent_unusable")
    assert "desk.agent.yaml:7" in body["detail"]


async def test_a_node_on_its_way_out_is_503(rooms: Rooms, doors: Doors) -> None:
    says(rooms, "No.")
    await rooms.runtime.drain(grace_s=0)
    status, body, _ = await doors.run({"query": "Hello"})
    assert (status, body["code"]) == (503, "draining")


async def test_a_node_that_shuts_down_in_mid_stream_says_so(rooms: Rooms, doors: Doors) -> None:
    model = HeldModel("One ", "two.")
    rooms.hosts(an_agent(provider=model))
    model.let()
    seen = []
    async with asyncio.timeout(AMPLE_S), doors.http.post("/v1/agents/desk/run", json={"query": "Hello", "stream": True}) as response:
        async for event in sent_events(response):
            seen.append(event.event)
            if event.event == "token":
                await rooms.runtime.drain(grace_s=0)
    assert seen == ["route", "token", "error"]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "query"),
        ({"query": ""}, "query"),
        ({"query": 7}, "query"),
        ({"query": "Hello", "session_id": ""}, "session_id"),
        ({"query": "Hello", "session_id": "x" * 201}, "session_id"),
        ({"query": "Hello", "context": []}, "context"),
        ({"query": "Hello", "stream": "maybe"}, "stream"),
        ({"query": "Hello", "mood": "sunny"}, "mood"),
    ],
)
async def test_a_body_that_cannot_be_meant_is_422_and_names_the_key(
    rooms: Rooms, doors: Doors, body: dict[str, object], param: str
) -> None:
    model = says(rooms, "No.")
    status, problem, _ = await doors.run(body)
    assert (status, problem["code"], problem["param"]) == (422, "invalid_request", param)
    assert param in problem["detail"]
    assert problem["hint"]
    assert model.asked == []


async def test_an_unknown_key_is_answered_with_those_that_there_are(rooms: Rooms, doors: Doors) -> None:
    says(rooms, "No.")
    _, problem, _ = await doors.run({"query": "Hello", "sesion_id": "s1"})
    assert problem["hint"] == "it takes: query, session_id, context, stream"


async def test_the_context_reaches_the_agents_templates(rooms: Rooms, doors: Doors) -> None:
    model = Scripted(["Yes."])
    rooms.hosts(an_agent(provider=model, context="It is {{ day }}."))
    await doors.run({"query": "Open?", "context": {"day": "Sunday"}})
    assert model.asked[0].transcript[0].content == "It is Sunday.\n\nOpen?"


async def test_a_slow_reader_slows_the_model_and_nothing_grows(rooms: Rooms, doors: Doors) -> None:
    """Somebody who reads nothing: socket buffers and the queue of events fill up, and then the model waits."""
    words = 200_000
    model = HeldModel(*(["some words that take room on their way "] * words))
    model.let_all()
    rooms.hosts(an_agent(provider=model))
    async with doors.http.post("/v1/agents/desk/run", json={"query": "Hello", "stream": True}) as response:
        assert response.status == 200
        before = -1
        async with asyncio.timeout(AMPLE_S):
            while model.said != before:
                before = model.said
                for _ in range(200):
                    await asyncio.sleep(0)
        assert model.said < words
        response.close()
    await model.was_released()
