"""One queue between a run and whoever watches it."""

from __future__ import annotations

import asyncio

import pytest
from tests.rig.rooms import drained

from astromesh.errors import Overloaded
from astromesh.runtime import events as runtime_events
from astromesh.runtime.events import EVENTS_WAITING_MAX, RunEvents


async def test_events_are_numbered_from_zero_and_come_in_their_order() -> None:
    events = RunEvents(watched=True)
    await events.tell("token", {"content": "a"})
    await events.tell("done", {})
    events.end(None)
    assert [(event.position, event.kind) async for event in events] == [(0, "token"), (1, "done")]


async def test_a_failure_is_raised_where_the_events_are_read_after_all_that_came_before() -> None:
    events = RunEvents(watched=True)
    await events.tell("token", {})
    events.end(Overloaded("busy"))
    reading = aiter(events)
    assert (await anext(reading)).kind == "token"
    with pytest.raises(Overloaded):
        await anext(reading)


async def test_a_slow_reader_slows_the_writer_and_the_queue_does_not_grow() -> None:
    events, written = RunEvents(watched=True), 0

    async def write() -> None:
        nonlocal written
        while True:
            await events.tell("token", {})
            written += 1

    writing = asyncio.create_task(write())
    for _ in range(EVENTS_WAITING_MAX * 2):
        await asyncio.sleep(0)
    assert written == EVENTS_WAITING_MAX

    reading = aiter(events)
    for _ in range(3):
        await anext(reading)
    for _ in range(EVENTS_WAITING_MAX):
        await asyncio.sleep(0)
    assert written == EVENTS_WAITING_MAX + 3
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing


async def test_an_end_is_read_at_once_even_where_the_queue_was_full() -> None:
    """A run that is cancelled has nobody who could wait for room."""
    events = RunEvents(watched=True)
    for _ in range(EVENTS_WAITING_MAX):
        await events.tell("token", {})
    events.end(Overloaded("cancelled"))
    seen, failure = await drained(events)
    assert len(seen) == EVENTS_WAITING_MAX
    assert isinstance(failure, Overloaded)


async def test_a_reader_that_waits_is_woken_by_the_end() -> None:
    events = RunEvents(watched=True)
    waiting = asyncio.create_task(anext(aiter(events)))
    await asyncio.sleep(0)
    events.end(Overloaded("cancelled"))
    with pytest.raises(Overloaded):
        await waiting


async def test_only_the_last_reader_that_came_to_set_the_pace_sets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime_events, "EVENTS_WAITING_MAX", 4)
    events = RunEvents(watched=True)
    events.keep()
    for _ in range(4):
        await events.tell("token", {})
    first, last = events.read(paces=True), events.read(paces=True)
    await anext(first)
    await anext(last)
    for _ in range(3):
        await anext(first)
    await events.tell("token", {})
    telling = asyncio.create_task(events.tell("token", {}))
    for _ in range(20):
        await asyncio.sleep(0)
    assert not telling.done()
    await anext(last)
    await telling


async def test_what_was_read_is_kept_only_where_somebody_may_ask_for_it_again() -> None:
    kept, passed_on = RunEvents(watched=True), RunEvents(watched=True)
    kept.keep()
    for events in (kept, passed_on):
        reading = aiter(events)
        for _ in range(10):
            await events.tell("token", {})
            await anext(reading)
    assert (kept.first, passed_on.first, passed_on.kept_bytes) == (0, 10, 0)
