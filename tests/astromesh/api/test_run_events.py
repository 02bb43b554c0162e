"""The events of a run, read again: after its end, beside its reader, after a lost connection; and a run that is cancelled by its id."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
from tests.rig.doors import Doors, SentEvent, open_doors, sent_events
from tests.rig.held_model import AMPLE_S, HeldModel
from tests.rig.mesh_view import member
from tests.rig.ports import free_port
from tests.rig.rooms import Rooms, an_agent

from astromesh.api import event_stream
from astromesh.errors import ModelFailed
from astromesh.providers.backends.scripted import Scripted
from astromesh.runtime import events, recent_runs, run_calls
from maia.config import Address

RUN = "/v1/agents/desk/run"
ASKED = {"query": "Hello", "stream": True}
COMES_BACK = {"X-Request-Id": "r1", "X-Astromesh-Resume": "true"}
EVENTS = "/v1/runs/r1/events"


@pytest.fixture
def rooms() -> Rooms:
    return Rooms()


@pytest.fixture
async def doors(rooms: Rooms) -> AsyncIterator[Doors]:
    async with open_doors(rooms) as opened:
        yield opened


async def again(doors: Doors, *, after: str | None = None, run_id: str = "r1") -> tuple[int, list[SentEvent]]:
    headers = {"Last-Event-ID": after} if after is not None else {}
    async with asyncio.timeout(AMPLE_S), doors.http.get(f"/v1/runs/{run_id}/events", headers=headers) as response:
        return response.status, [event async for event in sent_events(response)]


async def token(stream: AsyncIterator[SentEvent]) -> SentEvent:
    async for event in stream:
        if event.event == "token":
            return event
    raise AssertionError("the stream ended before a token")


def said(told: list[SentEvent]) -> str:
    return "".join(event.data["content"] for event in told if event.event == "token")


async def test_a_run_that_is_over_is_read_again_as_it_was(rooms: Rooms, doors: Doors) -> None:
    rooms.hosts(an_agent(provider=Scripted(["Good day, Ada."])))
    async with doors.http.post(RUN, json=ASKED, headers={"X-Request-Id": "r1"}) as response:
        first = [event async for event in sent_events(response)]
    assert await again(doors) == (200, first)


@pytest.mark.parametrize("place", [0, 2])
async def test_what_follows_an_event_is_what_is_told_after_it(rooms: Rooms, doors: Doors, place: int) -> None:
    rooms.hosts(an_agent(provider=Scripted(["Good day, Ada."])))
    async with doors.http.post(RUN, json=ASKED, headers={"X-Request-Id": "r1"}) as response:
        first = [event async for event in sent_events(response)]
    assert await again(doors, after=first[place].id) == (200, first[place + 1 :])


async def test_a_run_that_was_asked_for_as_json_can_be_read_as_events(rooms: Rooms, doors: Doors) -> None:
    rooms.hosts(an_agent(provider=Scripted(["Good day."])))
    await doors.run({"query": "Hello"}, headers={"X-Request-Id": "r1"})
    _, told = await again(doors)
    assert (told[-1].event, told[-1].data["answer"]) == ("done", "Good day.")


async def test_whoever_has_read_all_is_told_that_nothing_comes(rooms: Rooms, doors: Doors) -> None:
    """204 ends the asking of a browser, which otherwise comes back for ever."""
    rooms.hosts(an_agent(provider=Scripted(["Good day.", ModelFailed("no", code="model_timeout")])))
    await doors.run({"query": "Hello"}, headers={"X-Request-Id": "r1"})
    _, told = await again(doors)
    assert await again(doors, after=told[-1].id) == (204, [])
    await doors.run({"query": "Hello"}, headers={"X-Request-Id": "r2"})
    _, told = await again(doors, run_id="r2")
    assert [event.event for event in told] == ["error"]
    assert told[0].data["code"] == "model_timeout"
    assert await again(doors, run_id="r2", after=told[0].id) == (204, [])


async def test_a_second_reader_sees_what_the_first_one_sees_and_his_leaving_ends_nothing(rooms: Rooms, doors: Doors) -> None:
    model = HeldModel("One ", "two ", "three.")
    rooms.hosts(an_agent(provider=model))
    model.let()
    async with asyncio.timeout(AMPLE_S), doors.http.post(RUN, json=ASKED, headers={"X-Request-Id": "r1"}) as first:
        mine = sent_events(first)
        await token(mine)
        async with doors.http.get(EVENTS) as second:
            theirs = sent_events(second)
            assert (await token(theirs)).data["content"] == "One "
            model.let()
            assert (await token(theirs)).data["content"] == "two "
            second.close()
        model.let(2)
        assert [event async for event in mine][-1].data["answer"] == "One two three."


async def test_a_reader_who_said_that_he_comes_back_goes_on_where_he_was(rooms: Rooms, doors: Doors) -> None:
    model = HeldModel("One ", "two ", "three.")
    rooms.hosts(an_agent(provider=model))
    model.let()
    response = await doors.http.post(RUN, json=ASKED, headers=COMES_BACK)
    seen = await token(sent_events(response))
    response.close()
    for _ in range(200):  # the node notices
        await asyncio.sleep(0)
    asking = asyncio.create_task(again(doors, after=seen.id))
    model.let(3)
    status, told = await asking
    assert status == 200
    assert [int(event.id) for event in told] == list(range(int(seen.id) + 1, int(seen.id) + 1 + len(told)))
    assert (said(told), told[-1].data["answer"]) == ("two three.", "One two three.")
    assert model.finished == 1


async def test_a_reader_who_does_not_come_back_has_left(monkeypatch: pytest.MonkeyPatch, rooms: Rooms, doors: Doors) -> None:
    monkeypatch.setattr(recent_runs, "RESUME_GRACE_S", 0.05)
    model = HeldModel("One ", "two.")
    rooms.hosts(an_agent(provider=model))
    model.let()
    response = await doors.http.post(RUN, json=ASKED, headers=COMES_BACK)
    await token(sent_events(response))
    response.close()
    await model.was_released()
    assert model.finished == 0
    _, told = await again(doors)
    assert (told[-1].event, told[-1].data["code"]) == ("error", "run_cancelled")


async def test_a_reader_who_came_back_and_left_again_may_come_back_again(rooms: Rooms, doors: Doors) -> None:
    model = HeldModel("One ", "two ", "three.")
    rooms.hosts(an_agent(provider=model))
    model.let()
    response = await doors.http.post(RUN, json=ASKED, headers=COMES_BACK)
    seen = await token(sent_events(response))
    response.close()
    async with asyncio.timeout(AMPLE_S), doors.http.get(EVENTS, headers={"Last-Event-ID": seen.id}) as response:
        model.let()
        seen = await token(sent_events(response))
        response.close()
    model.let(2)
    _, told = await again(doors, after=seen.id)
    assert told[-1].data["answer"] == "One two three."


async def test_a_reader_who_comes_back_before_his_old_connection_is_known_to_be_dead_takes_over(
    monkeypatch: pytest.MonkeyPatch, rooms: Rooms, doors: Doors
) -> None:
    """The old one reads nothing any more and is not closed either: it must not hold up the run, and its end must not end it."""
    monkeypatch.setattr(events, "EVENTS_WAITING_MAX", 8)
    monkeypatch.setattr(recent_runs, "RESUME_GRACE_S", 0.0)
    words = ["some words that take room on their way " * 100] * 2000
    model = HeldModel(*words)
    model.let(len(words))
    rooms.hosts(an_agent(provider=model))
    async with aiohttp.ClientSession(doors.url) as http:
        old = await http.post(RUN, json=ASKED, headers=COMES_BACK)
        seen = await token(sent_events(old))
        async with asyncio.timeout(AMPLE_S), doors.http.get(EVENTS, headers={"Last-Event-ID": seen.id}) as response:
            mine = sent_events(response)
            while (await token(mine)).data["index"] < len(words) - 1:
                pass
            old.close()
            for _ in range(200):  # the node notices
                await asyncio.sleep(0)
            assert model.open == 1
            response.close()
    await model.was_released()


async def test_a_run_whose_reader_is_away_waits_for_him(monkeypatch: pytest.MonkeyPatch, rooms: Rooms, doors: Doors) -> None:
    monkeypatch.setattr(events, "EVENTS_WAITING_MAX", 8)
    words = [f"{number} " for number in range(200)]
    model = HeldModel(*words)
    model.let()
    rooms.hosts(an_agent(provider=model))
    response = await doors.http.post(RUN, json=ASKED, headers=COMES_BACK)
    seen = await token(sent_events(response))
    response.close()
    model.let_all()
    before = -1
    async with asyncio.timeout(AMPLE_S):
        while model.said != before:
            before = model.said
            for _ in range(200):
                await asyncio.sleep(0)
    assert model.said < 50
    _, told = await again(doors, after=seen.id)
    assert said(told) == "".join(words[1:])


@pytest.mark.parametrize(
    ("body", "headers"),
    [({"query": "Hello"}, {"X-Astromesh-Resume": "true"}), ({"query": "Hello", "stream": True}, {"X-Astromesh-Resume": "perhaps"})],
)
async def test_a_wish_to_come_back_that_cannot_be_meant_is_422(
    rooms: Rooms, doors: Doors, body: dict[str, object], headers: dict[str, str]
) -> None:
    model = Scripted(["No."])
    rooms.hosts(an_agent(provider=model))
    status, problem, _ = await doors.run(body, headers=headers)
    assert (status, problem["param"]) == (422, "X-Astromesh-Resume")
    assert model.asked == []


async def test_a_run_that_nobody_knows_is_404(doors: Doors) -> None:
    status, problem = await doors.get(EVENTS)
    assert (status, problem["code"]) == (404, "run_not_found")


@pytest.mark.parametrize("after", ["x", "-1", "7", "9" * 30])
async def test_a_last_event_that_never_was_is_422(rooms: Rooms, doors: Doors, after: str) -> None:
    rooms.hosts(an_agent(provider=Scripted(["Good day."])))
    await doors.run({"query": "Hello"}, headers={"X-Request-Id": "r1"})
    status, problem = await doors.get(EVENTS, headers={"Last-Event-ID": after})
    assert (status, problem["param"]) == (422, "Last-Event-ID")


async def test_events_that_are_no_longer_kept_are_410_and_the_newer_ones_are_there(
    monkeypatch: pytest.MonkeyPatch, rooms: Rooms, doors: Doors
) -> None:
    monkeypatch.setattr(events, "EVENTS_KEPT_BYTES_MAX", 20 * events.EVENT_BYTES)
    rooms.hosts(an_agent(provider=Scripted([" ".join(map(str, range(100)))])))
    async with doors.http.post(RUN, json=ASKED, headers={"X-Request-Id": "r1"}) as response:
        first = [event async for event in sent_events(response)]
    status, problem = await doors.get(EVENTS)
    assert (status, problem["code"]) == (410, "run_events_gone")
    assert await again(doors, after=first[-3].id) == (200, first[-2:])


async def test_a_run_of_long_ago_is_410(monkeypatch: pytest.MonkeyPatch, rooms: Rooms, doors: Doors) -> None:
    rooms.hosts(an_agent(provider=Scripted(["Good day."])))
    await doors.run({"query": "Hello"}, headers={"X-Request-Id": "r1"})
    monkeypatch.setattr(recent_runs, "KEPT_S", 0.0)
    status, problem = await doors.get(EVENTS)
    assert (status, problem["code"]) == (410, "run_events_gone")


async def test_too_many_readers_are_429(monkeypatch: pytest.MonkeyPatch, rooms: Rooms, doors: Doors) -> None:
    monkeypatch.setattr(recent_runs, "FOLLOWERS_MAX", 0)
    rooms.hosts(an_agent(provider=Scripted(["Good day."])))
    await doors.run({"query": "Hello"}, headers={"X-Request-Id": "r1"})
    status, problem = await doors.get(EVENTS)
    assert (status, problem["code"]) == (429, "overloaded")


async def test_a_stream_says_how_soon_to_ask_again(rooms: Rooms, doors: Doors) -> None:
    rooms.hosts(an_agent(provider=Scripted(["Good day."])))
    await doors.run({"query": "Hello"}, headers={"X-Request-Id": "r1"})
    async with doors.http.get(EVENTS) as response:
        assert (await response.read()).startswith(b"retry: 1000\n\n")


# Cancelling.


async def test_a_run_that_is_cancelled_ends_for_its_reader_with_the_reason(rooms: Rooms, doors: Doors) -> None:
    model = HeldModel("One ", "two.")
    rooms.hosts(an_agent(provider=model))
    model.let()
    async with asyncio.timeout(AMPLE_S), doors.http.post(RUN, json=ASKED, headers={"X-Request-Id": "r1"}) as response:
        mine = sent_events(response)
        await token(mine)
        async with doors.http.delete("/v1/runs/r1") as cancelled:
            assert cancelled.status == 202
            assert await cancelled.json() == {"run_id": "r1", "status": "cancelling"}
        last = [event async for event in mine][-1]
    assert (last.event, last.data["code"]) == ("error", "run_cancelled")
    await model.was_released()
    assert model.finished == 0


async def test_a_run_that_was_asked_for_as_json_can_be_cancelled(rooms: Rooms, doors: Doors) -> None:
    model = HeldModel("One.")
    rooms.hosts(an_agent(provider=model))
    asking = asyncio.create_task(doors.run({"query": "Hello"}, headers={"X-Request-Id": "r1"}))
    await model.was_begun()
    async with doors.http.delete("/v1/runs/r1/") as cancelled:
        assert cancelled.status == 202
    status, problem, _ = await asking
    assert (status, problem["code"]) == (503, "run_cancelled")


@pytest.mark.parametrize("run_id", ["r1", "r2"])
async def test_there_is_nothing_to_cancel_of_a_run_that_is_over_or_unknown(rooms: Rooms, doors: Doors, run_id: str) -> None:
    rooms.hosts(an_agent(provider=Scripted(["Good day."])))
    await doors.run({"query": "Hello"}, headers={"X-Request-Id": "r1"})
    async with doors.http.delete(f"/v1/runs/{run_id}") as response:
        assert (response.status, (await response.json(content_type=None))["code"]) == (404, "run_not_found")


# Silence before the first route.


@pytest.mark.parametrize(
    ("path", "body", "ended"),
    [
        (RUN, ASKED, "done"),
        ("/v1/chat/completions", {"model": "m", "messages": [{"role": "user", "content": "Hello"}], "stream": True}, "[DONE]"),
        ("/v1/chat/completions", {"model": "agent:desk", "messages": [{"role": "user", "content": "Hello"}], "stream": True}, "[DONE]"),
    ],
    ids=["run", "model", "agent as a model"],
)
async def test_a_model_that_is_silent_for_long_does_not_leave_the_connection_silent(
    monkeypatch: pytest.MonkeyPatch, rooms: Rooms, doors: Doors, path: str, body: dict[str, object], ended: str
) -> None:
    monkeypatch.setattr(event_stream, "HEARTBEAT_S", 0.02)
    model = HeldModel("One.")
    rooms.has(model)
    rooms.hosts(an_agent())
    async with asyncio.timeout(AMPLE_S), doors.http.post(path, json=body) as response:
        assert response.status == 200
        assert "X-Astromesh-Node" not in response.headers
        beaten = b""
        while beaten.count(b": still here\n\n") < 2:
            beaten += await response.content.readany()
        assert model.said == 0
        model.let_all()
        last = [event async for event in sent_events(response)][-1]
    assert ended in (last.event, last.data)


@pytest.mark.parametrize("path", [RUN, "/v1/chat/completions"])
async def test_a_failure_after_a_long_silence_is_told_in_the_stream(
    monkeypatch: pytest.MonkeyPatch, rooms: Rooms, doors: Doors, path: str
) -> None:
    monkeypatch.setattr(event_stream, "HEARTBEAT_S", 0.02)
    model = HeldModel(failure=ModelFailed("the worker died", code="model_provider_unavailable"))
    rooms.has(model)
    rooms.hosts(an_agent())
    body = ASKED if path == RUN else {"model": "m", "messages": [{"role": "user", "content": "Hello"}], "stream": True}
    async with asyncio.timeout(AMPLE_S), doors.http.post(path, json=body) as response:
        assert response.status == 200
        model.let_all()
        told = [event async for event in sent_events(response)]
    assert len(told) == 1
    assert "the worker died" in str(told[0].data)


async def test_a_client_that_leaves_in_the_silence_takes_the_model_along(
    monkeypatch: pytest.MonkeyPatch, rooms: Rooms, doors: Doors
) -> None:
    monkeypatch.setattr(event_stream, "HEARTBEAT_S", 0.02)
    model = HeldModel("One.")
    rooms.has(model)
    async with aiohttp.ClientSession(doors.url) as http:
        response = await http.post(
            "/v1/chat/completions", json={"model": "m", "messages": [{"role": "user", "content": "Hello"}], "stream": True}
        )
        response.close()
        await model.was_released()
    assert model.finished == 0


# Of a run that another node was asked for.


@asynccontextmanager
async def two_nodes() -> AsyncIterator[tuple[Rooms, Doors, Doors]]:
    """The rooms of `b`, its doors, and those of `a`, which knows of it."""
    a, b = Rooms("a", linked=True), Rooms("b", linked=True)
    async with a.open_door(), b.open_door() as at, open_doors(a) as of_a, open_doors(b) as of_b:
        a.sees(member("b-000000", title="b", agents=["desk"], link=at))
        yield b, of_b, of_a


async def test_the_events_of_a_run_are_read_on_any_node() -> None:
    async with two_nodes() as (b, of_b, of_a):
        b.hosts(an_agent(provider=Scripted(["Good day, Ada."])))
        async with of_b.http.post(RUN, json=ASKED, headers={"X-Request-Id": "r1"}) as response:
            first = [event async for event in sent_events(response)]
        assert await again(of_a) == (200, first)
        assert await again(of_a, after=first[2].id) == (200, first[3:])
        assert await again(of_a, after=first[-1].id) == (204, [])
        status, problem = await of_a.get(EVENTS, headers={"Last-Event-ID": "99"})
        assert (status, problem["param"]) == (422, "Last-Event-ID")


async def test_a_reader_may_come_back_on_another_node() -> None:
    async with two_nodes() as (b, of_b, of_a):
        model = HeldModel("One ", "two ", "three.")
        b.hosts(an_agent(provider=model))
        model.let()
        response = await of_b.http.post(RUN, json=ASKED, headers=COMES_BACK)
        seen = await token(sent_events(response))
        response.close()
        asking = asyncio.create_task(again(of_a, after=seen.id))
        model.let(3)
        status, told = await asking
        assert (status, said(told), told[-1].data["answer"]) == (200, "two three.", "One two three.")


async def test_a_run_is_cancelled_on_any_node() -> None:
    async with two_nodes() as (b, of_b, of_a):
        model = HeldModel("One ", "two.")
        b.hosts(an_agent(provider=model))
        model.let()
        async with asyncio.timeout(AMPLE_S), of_b.http.post(RUN, json=ASKED, headers={"X-Request-Id": "r1"}) as response:
            mine = sent_events(response)
            await token(mine)
            async with of_a.http.delete("/v1/runs/r1") as cancelled:
                assert cancelled.status == 202
            last = [event async for event in mine][-1]
        assert (last.event, last.data["code"]) == ("error", "run_cancelled")
        async with of_a.http.delete("/v1/runs/r1") as cancelled:
            assert cancelled.status == 404
        _, told = await again(of_a)
        assert told[-1].data["code"] == "run_cancelled"


async def test_a_run_that_a_peer_conducts_for_this_node_is_cancelled_there() -> None:
    async with two_nodes() as (b, _, of_a):
        model = HeldModel("One ", "two.")
        b.hosts(an_agent(provider=model))
        model.let()
        async with asyncio.timeout(AMPLE_S), of_a.http.post(RUN, json=ASKED, headers={"X-Request-Id": "r1"}) as response:
            mine = sent_events(response)
            await token(mine)
            async with of_a.http.delete("/v1/runs/r1") as cancelled:
                assert cancelled.status == 202
            last = [event async for event in mine][-1]
        assert last.data["code"] == "run_cancelled"
        await model.was_released()
        assert model.finished == 0


async def test_a_run_that_no_node_knows_is_404_also_where_a_peer_is_gone() -> None:
    async with two_nodes() as (_, _, of_a):
        assert (await again_status(of_a)) == 404
    a = Rooms("a", linked=True)
    async with a.open_door(), open_doors(a) as of_a:
        a.sees(member("b-000000", title="b", link=Address("127.0.0.1", free_port())))
        assert (await again_status(of_a)) == 404


async def again_status(doors: Doors) -> int:
    async with doors.http.get(EVENTS) as response:
        return response.status


async def test_searches_among_the_peers_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_calls, "SEARCHES_MAX", 0)
    async with two_nodes() as (_, _, of_a):
        assert (await again_status(of_a)) == 429
