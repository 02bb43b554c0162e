"""Runs that ended lately: how many are kept, for how long, and in how many bytes."""

from __future__ import annotations

import pytest

from astromesh.errors import EventsGone, UnknownRun
from astromesh.runtime import events, recent_runs
from astromesh.runtime.events import EVENT_BYTES, RunEvents
from astromesh.runtime.recent_runs import RecentRuns

TEXT = {"content": "a" * 86}
TEXT_BYTES = EVENT_BYTES + 100


class Told:
    """A run that tells what the test says."""

    def __init__(self, run_id: str) -> None:
        self.id = run_id
        self.told = RunEvents(watched=True)
        self.cancelled = 0

    def cancel(self) -> None:
        self.cancelled += 1


async def a_run(recent: RecentRuns, run_id: str, *, tells: int = 1, over: bool = True) -> Told:
    run = Told(run_id)
    recent.add(run)
    for _ in range(tells):
        await run.told.tell("token", TEXT)
    if over:
        run.told.end(None)
        recent.ended(run)
    return run


async def read_all(run: Told) -> None:
    reading = run.told.read(paces=True)
    for _ in range(run.told.told):
        await anext(reading)
    await reading.aclose()


def kept(recent: RecentRuns, run_id: str) -> bool:
    try:
        recent.find(run_id)
    except EventsGone:
        return False
    return True


async def test_the_ones_that_ended_first_are_forgotten_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recent_runs, "ENDED_KEPT_MAX", 2)
    recent = RecentRuns()
    first = await a_run(recent, "a", over=False)
    for name in ("b", "c"):
        await a_run(recent, name)
    first.told.end(None)
    recent.ended(first)
    assert [name for name in "abc" if kept(recent, name)] == ["a", "c"]


async def test_all_runs_together_keep_so_many_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recent_runs, "KEPT_BYTES_MAX", 5 * TEXT_BYTES)
    recent = RecentRuns()
    for name in "abc":
        await a_run(recent, name, tells=2)
    assert [name for name in "abc" if kept(recent, name)] == ["b", "c"]


async def test_a_run_under_way_keeps_what_its_reader_has_yet_to_read_and_no_more_where_there_is_no_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(recent_runs, "KEPT_BYTES_MAX", 5 * TEXT_BYTES)
    recent = RecentRuns()
    await a_run(recent, "a")
    run = await a_run(recent, "b", tells=8, over=False)
    assert not kept(recent, "a")
    assert run.told.first == 0
    await read_all(run)
    await run.told.tell("token", TEXT)
    assert (run.told.first, run.told.told) == (8, 9)


async def test_what_was_forgotten_leaves_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recent_runs, "KEPT_BYTES_MAX", 5 * TEXT_BYTES)
    recent = RecentRuns()
    for number in range(100):
        await a_run(recent, f"r{number}", tells=2)
    assert [kept(recent, f"r{number}") for number in (97, 98, 99)] == [False, True, True]


async def test_an_id_that_comes_again_means_the_newest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recent_runs, "KEPT_BYTES_MAX", 5 * TEXT_BYTES)
    recent = RecentRuns()
    older = await a_run(recent, "a", over=False)
    newer = await a_run(recent, "a", over=False)
    recent.cancel("a")
    assert (older.cancelled, newer.cancelled) == (0, 1)
    older.told.end(None)
    recent.ended(older)
    assert recent.find("a") is newer
    for _ in range(100):
        await a_run(recent, "a")
    await a_run(recent, "b", tells=4)
    assert kept(recent, "a")


async def test_a_run_that_was_never_there_is_told_from_one_that_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recent_runs, "ENDED_KEPT_MAX", 0)
    recent = RecentRuns()
    await a_run(recent, "a")
    with pytest.raises(EventsGone):
        recent.find("a")
    with pytest.raises(UnknownRun):
        recent.find("b")


async def test_ids_of_what_was_forgotten_are_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recent_runs, "ENDED_KEPT_MAX", 0)
    monkeypatch.setattr(recent_runs, "IDS_KEPT_MAX", 2)
    recent = RecentRuns()
    for name in "abc":
        await a_run(recent, name)
    with pytest.raises(UnknownRun):
        recent.find("a")
    with pytest.raises(EventsGone):
        recent.find("b")


async def test_one_run_keeps_so_many_bytes_of_what_was_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "EVENTS_KEPT_BYTES_MAX", 3 * TEXT_BYTES)
    recent = RecentRuns()
    run = await a_run(recent, "a", tells=10)
    assert run.told.first == 0
    await read_all(run)
    assert (run.told.first, run.told.kept_bytes) == (7, 3 * TEXT_BYTES)


async def test_whoever_looks_on_and_falls_behind_is_told_so_and_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "EVENTS_KEPT_BYTES_MAX", 3 * TEXT_BYTES)
    recent = RecentRuns()
    run = await a_run(recent, "a", over=False)
    with recent.follow(run, after=-1) as looking_on:
        assert (await anext(looking_on)).position == 0
        for _ in range(10):
            await run.told.tell("token", TEXT)
        await read_all(run)
        with pytest.raises(EventsGone):
            await anext(looking_on)
