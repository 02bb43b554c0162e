"""The event stream of the mesh, and one member with its evidence."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import aiohttp
import orjson
import pytest
from tests.rig.doors import Doors, Membership, SentEvent, open_doors, sent_events
from tests.rig.held_model import AMPLE_S
from tests.rig.mesh_view import HERE, member, mesh_view
from tests.rig.rooms import Rooms

from astromesh.api import event_stream, mesh_events
from astromesh.api.mesh_events import WAITING_MAX, WATCHERS_MAX, Watcher
from maia.view import (
    Evidence,
    MemberDied,
    MemberForgotten,
    MemberLeft,
    MemberReturned,
    MemberSuspected,
    MeshEvent,
    OffersChanged,
    ProbeSeen,
)

B, C = "b-000001", "c-000003"
EVENTS = "/v1/mesh/events"
DEATH = Evidence(
    status="dead",
    at_s=90.0,
    accuser=HERE,
    how="did not refute",
    own_health=1,
    own_lag_s=0.004,
    accusers=(B, HERE),
    probes=(ProbeSeen(80.0, "acked", 0.001), ProbeSeen(88.0, "failed", 0.2, "no answer in 200 ms")),
)
DOUBT = Evidence(status="suspect", at_s=88.0, accuser=B, how="told", own_health=0)


@pytest.fixture
def membership() -> Membership:
    return Membership()


@pytest.fixture
def rooms() -> Rooms:
    rooms = Rooms()
    dead = replace(member(C, status="dead"), history=(DOUBT, DEATH), since_s=90.0)
    rooms.view = mesh_view(member(B, api="127.0.0.1:8001"), dead, version=7)
    return rooms


@pytest.fixture
async def doors(rooms: Rooms, membership: Membership) -> AsyncIterator[Doors]:
    async with asyncio.timeout(AMPLE_S), open_doors(rooms, mesh=membership) as opened:
        yield opened


async def next_of(stream: AsyncIterator[SentEvent], count: int) -> list[SentEvent]:
    return [await anext(stream) for _ in range(count)]


# The stream.


async def test_a_watcher_is_told_who_is_there_and_then_what_changes(doors: Doors, membership: Membership) -> None:
    async with doors.http.get(EVENTS) as response:
        assert response.headers["Content-Type"].startswith("text/event-stream")
        stream = sent_events(response)
        (first,) = await next_of(stream, 1)
        assert (first.event, first.data["node"], first.data["version"]) == ("members", "here", 7)
        assert [(row["name"], row["status"], row["url"]) for row in first.data["members"]] == [
            ("b", "alive", "http://127.0.0.1:8001"),
            ("c", "dead", None),
            ("here", "alive", None),
        ]
        for event in (MemberSuspected(C, B), OffersChanged(B), MemberDied(C, HERE), MemberForgotten("gone-999999")):
            membership.say(event)
        told = await next_of(stream, 3)
    assert [(event.event, event.data["name"], event.data["accuser"]) for event in told] == [
        ("suspected", "c", "b"),
        ("died", "c", "here"),
        ("forgotten", "gone-999999", None),
    ]
    assert [event.id for event in (first, *told)] == ["0", "1", "2", "3"]
    assert (told[1].data["member"]["status"], told[2].data["member"]) == ("dead", None)


async def test_after_this_node_began_anew_everyone_is_told_anew(doors: Doors, membership: Membership) -> None:
    async with doors.http.get(EVENTS) as response:
        stream = sent_events(response)
        await next_of(stream, 1)
        membership.say(MemberLeft(HERE))
        membership.say(MemberReturned(HERE, 2))
        assert [event.event for event in await next_of(stream, 3)] == ["left", "returned", "members"]


async def test_silence_is_kept_alive(doors: Doors, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_stream, "HEARTBEAT_S", 0.01)
    async with doors.http.get(EVENTS) as response:
        seen = b""
        while seen.count(b": still here\n\n") < 2:
            seen += await response.content.readany()


async def test_a_watcher_that_leaves_is_forgotten(doors: Doors, membership: Membership) -> None:
    async with doors.http.get(EVENTS) as response:
        await next_of(sent_events(response), 1)
        assert len(membership.listening) == 1
    while membership.listening:
        await asyncio.sleep(0.001)


async def test_one_watcher_too_many_is_refused_and_finds_room_when_another_leaves(
    doors: Doors, membership: Membership, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mesh_events, "WATCHERS_MAX", 1)
    async with doors.http.get(EVENTS) as first:
        await next_of(sent_events(first), 1)
        status, refusal = await doors.get(EVENTS)
        assert (status, refusal["code"]) == (429, "overloaded")
    while membership.listening:
        await asyncio.sleep(0.001)
    async with doors.http.get(EVENTS) as again:
        assert again.status == 200
    assert WATCHERS_MAX > 1


async def test_doors_that_close_do_not_wait_for_watchers_and_tell_them_why(rooms: Rooms, membership: Membership) -> None:
    async with asyncio.timeout(AMPLE_S), aiohttp.ClientSession() as client:
        async with open_doors(rooms, mesh=membership) as doors:
            response = await client.get(doors.url + EVENTS)
            await response.content.readuntil(b"\n\n")
        assert await response.content.read() == b": the node is shutting down\n\n"


async def test_a_watcher_that_does_not_read_is_cut_off_and_others_hear_on(
    doors: Doors, membership: Membership, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mesh_events, "LAST_WORDS_S", 0.01)
    reader, deaf = await asyncio.open_connection("127.0.0.1", int(doors.url.rpartition(":")[2]), limit=1024)
    deaf.write(b"GET /v1/mesh/events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    await reader.readuntil(b"event: members")
    assert len(membership.listening) == 1
    async with doors.http.get(EVENTS) as response:
        stream = sent_events(response)
        await next_of(stream, 1)
        event: MeshEvent = MemberDied(C, B)
        heard = 0
        while len(membership.listening) > 1:  # until the buffers of two kernels are full of what nobody reads
            for _ in range(50):
                membership.say(event)
            heard += len(await next_of(stream, 50))
        membership.say(MemberSuspected(B, HERE))
        assert (await next_of(stream, 1))[0].event == "suspected"
    assert heard > WAITING_MAX
    deaf.close()


async def test_a_watcher_that_is_too_slow_hears_the_reason_last() -> None:
    cut: list[bool] = []
    watcher = Watcher(lambda: cut.append(True))
    for number in range(WAITING_MAX + 1):
        watcher.tell(("changed", {"number": number}))
    watcher.tell(("changed", {"after": "the end"}))
    assert await watcher.next() is None
    assert watcher.farewell.startswith("dropped: ")
    watcher.close()
    assert cut == []


# One member.


async def test_the_evidence_names_who_accused_and_what_we_saw_ourselves(doors: Doors) -> None:
    status, shown = await doors.get("/v1/mesh/members/c")
    assert (status, shown["name"], shown["wire_name"], shown["status"]) == (200, "c", C, "dead")
    assert [(change["status"], change["accuser"]) for change in shown["history"]] == [("suspect", "b"), ("dead", "here")]
    evidence = shown["evidence"]
    assert evidence == shown["history"][-1]
    assert (evidence["accusers"], evidence["own_health"], evidence["own_lag_seconds"]) == (["b", "here"], 1, 0.004)
    assert [(probe["outcome"], probe["took_seconds"]) for probe in evidence["probes"]] == [("acked", 0.001), ("failed", 0.2)]
    assert evidence["probes"][0]["at"] < evidence["probes"][1]["at"] < evidence["at"] == shown["since"]


@pytest.mark.parametrize("name", ["c", C, "000003"])
async def test_a_member_is_found_by_each_of_its_names(doors: Doors, name: str) -> None:
    assert (await doors.get(f"/v1/mesh/members/{name}"))[1]["wire_name"] == C


async def test_one_of_whom_nothing_happened_has_no_evidence(doors: Doors) -> None:
    _, shown = await doors.get("/v1/mesh/members/b")
    assert (shown["evidence"], shown["history"]) == (None, [])


async def test_an_unknown_name_is_met_with_the_nearest(rooms: Rooms, doors: Doors) -> None:
    rooms.view = mesh_view(member("kitchen-000001"), member("cellar-000002"))
    async with doors.http.get("/v1/mesh/members/kitchn") as response:
        body = orjson.loads(await response.read())
        assert (response.status, body["code"]) == (404, "member_not_found")
    assert body["hint"].startswith("nearest: kitchen")


async def test_a_name_that_two_share_is_met_with_both(rooms: Rooms, doors: Doors) -> None:
    rooms.view = mesh_view(member("gpu-000001"), member("gpu-000002"))
    status, body = await doors.get("/v1/mesh/members/gpu")
    assert (status, body["hint"]) == (404, "say which: gpu-000001, gpu-000002")
