"""A stream in which nothing is said is kept alive, and only then."""

from __future__ import annotations

import asyncio
import gc

import pytest
from tests.rig.doors import open_doors, sent_events
from tests.rig.held_model import AMPLE_S, HeldModel
from tests.rig.rooms import Rooms, an_agent

from astromesh.api import event_stream


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/agents/desk/run", {"query": "Hello", "stream": True}),
        ("/v1/chat/completions", {"model": "m", "messages": [{"role": "user", "content": "Hello"}], "stream": True}),
    ],
)
async def test_silence_is_filled_with_comments_that_no_client_takes_for_events(
    monkeypatch: pytest.MonkeyPatch, path: str, body: dict[str, object]
) -> None:
    monkeypatch.setattr(event_stream, "HEARTBEAT_S", 0.01)
    rooms, model = Rooms(), HeldModel("One ", "two.")
    rooms.has(model)
    rooms.hosts(an_agent())
    model.let()
    async with asyncio.timeout(AMPLE_S), open_doors(rooms) as doors, doors.http.post(path, json=body) as response:
        seen = b""
        while seen.count(b": still here\n\n") < 2:
            seen += await response.content.readany()
        model.let(2)
        last = [event async for event in sent_events(response)][-1]
    assert last.event == "done" or last.data == "[DONE]"


async def test_a_stream_that_is_over_says_nothing_more(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(event_stream, "HEARTBEAT_S", 0.001)
    rooms, model = Rooms(), HeldModel("One.")
    rooms.hosts(an_agent(provider=model))
    async with asyncio.timeout(AMPLE_S), open_doors(rooms) as doors:
        for _ in range(5):
            model.let_all()
            async with doors.http.post("/v1/agents/desk/run", json={"query": "Hello", "stream": True}) as response:
                assert [event async for event in sent_events(response)][-1].event == "done"
        assert (await doors.get("/v1/health"))[0] == 200
    gc.collect()  # a task whose failure nobody saw says so when it goes
    assert caplog.text == ""
