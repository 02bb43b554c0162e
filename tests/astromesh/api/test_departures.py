"""A client that goes away takes along what was done for it, on whichever door and in whatever moment."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from tests.rig.doors import Doors, open_doors
from tests.rig.held_model import AMPLE_S, HeldModel
from tests.rig.rooms import Rooms, an_agent

RUN = ("/v1/agents/desk/run", {"query": "Hello"})
CHAT = ("/v1/chat/completions", {"model": "m", "messages": [{"role": "user", "content": "Hello"}]})
AGENT_CHAT = ("/v1/chat/completions", {"model": "agent:desk", "messages": [{"role": "user", "content": "Hello"}]})
EVERY_DOOR = pytest.mark.parametrize(("path", "body"), [RUN, CHAT, AGENT_CHAT], ids=["run", "chat", "agent as a model"])


@pytest.fixture
def rooms() -> Rooms:
    return Rooms()


@pytest.fixture
def model(rooms: Rooms) -> HeldModel:
    held = HeldModel("One ", "two")
    rooms.has(held)
    rooms.hosts(an_agent())
    return held


@pytest.fixture
async def doors(rooms: Rooms) -> AsyncIterator[Doors]:
    async with open_doors(rooms) as opened:
        yield opened


async def until_nothing_is_done(rooms: Rooms, model: HeldModel) -> None:
    await model.was_released()
    async with asyncio.timeout(AMPLE_S):
        while rooms.runtime.active_runs:
            await asyncio.sleep(0.001)


@EVERY_DOOR
async def test_in_mid_stream(rooms: Rooms, doors: Doors, model: HeldModel, path: str, body: dict[str, object]) -> None:
    model.let()
    response = await doors.http.post(path, json={**body, "stream": True})
    assert response.status == 200
    assert model.open == 1
    response.close()
    await until_nothing_is_done(rooms, model)
    assert model.finished == 0


@EVERY_DOOR
async def test_before_the_first_word(rooms: Rooms, doors: Doors, model: HeldModel, path: str, body: dict[str, object]) -> None:
    asking = asyncio.create_task(doors.http.post(path, json={**body, "stream": True}))
    await model.was_begun()
    asking.cancel()
    await until_nothing_is_done(rooms, model)


@EVERY_DOOR
async def test_while_it_waits_for_json(rooms: Rooms, doors: Doors, model: HeldModel, path: str, body: dict[str, object]) -> None:
    asking = asyncio.create_task(doors.http.post(path, json=body))
    await model.was_begun()
    model.let()
    asking.cancel()
    await until_nothing_is_done(rooms, model)
    assert model.finished == 0


async def test_the_node_goes_on_answering_others(rooms: Rooms, doors: Doors, model: HeldModel) -> None:
    leaving = asyncio.create_task(doors.http.post(RUN[0], json=RUN[1]))
    await model.was_begun()
    leaving.cancel()
    await until_nothing_is_done(rooms, model)
    model.let_all()
    status, answer, _ = await doors.run({"query": "Hello"})
    assert (status, answer["answer"]) == (200, "One two")
