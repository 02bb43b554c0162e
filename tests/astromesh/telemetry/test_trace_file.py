"""Traces on disk: found again by the next life of a node, bounded, and never in anybody's way."""

from __future__ import annotations

import logging
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from astromesh.telemetry import trace_file
from astromesh.telemetry.trace_file import TraceFile
from astromesh.telemetry.traces import Ring, Span, Trace


def trace(id: str, *, agent: str = "desk", started_at: float = 0.0, name: str = "llm.complete") -> Trace:  # noqa: A002
    return Trace(id, agent, started_at, "here", status="ok", duration_ms=2.0, spans=[Span(name, 0.0, 1.0, {"tokens_in": 3})])


@asynccontextmanager
async def a_life(folder: Path, *traces: Trace, kept: int = 256) -> AsyncIterator[Ring]:
    """Of a node that conducts these runs first."""
    ring = Ring(kept=kept)
    ring.file = TraceFile(folder)
    ring.file.open()
    try:
        for one in traces:
            ring.add(one)
            ring.ended(one)
        yield ring
    finally:
        await ring.file.close()


async def ids(ring: Ring, *, agent: str | None = None, limit: int = 99) -> list[str]:
    return [shown["trace_id"] for shown in await ring.latest(agent=agent, limit=limit)]


async def test_the_next_life_finds_what_the_last_one_did_newest_first(tmp_path: Path) -> None:
    async with a_life(tmp_path, trace("a"), trace("b")):
        pass
    async with a_life(tmp_path, trace("c", started_at=1.0)) as ring:
        assert await ids(ring) == ["c", "b", "a"]
        assert await ring.find("a") == trace("a").as_json()
        assert await ring.find("nothing") is None


async def test_one_agents_traces_are_found_among_those_of_others(tmp_path: Path) -> None:
    async with a_life(tmp_path, *(trace(f"t{number}", agent="desk" if number % 50 else "billing") for number in range(200))):
        pass
    async with a_life(tmp_path) as ring:
        assert await ids(ring, agent="billing") == ["t150", "t100", "t50", "t0"]
        assert await ids(ring, agent="billing", limit=2) == ["t150", "t100"]


async def test_what_left_the_memory_is_still_on_disk(tmp_path: Path) -> None:
    async with a_life(tmp_path, trace("a"), trace("b"), trace("c"), kept=1):
        pass
    async with a_life(tmp_path, trace("d"), kept=1) as ring:
        assert await ids(ring, limit=3) == ["d", "c", "b"]


async def test_a_trace_that_is_both_here_and_on_disk_is_told_once(tmp_path: Path) -> None:
    async with a_life(tmp_path, trace("a")) as first:
        pass
    first.file = TraceFile(tmp_path)
    assert await ids(first) == ["a"]


async def test_an_id_that_was_used_twice_is_the_newest(tmp_path: Path) -> None:
    async with a_life(tmp_path, trace("a", name="first"), trace("a", started_at=1.0, name="second")):
        pass
    async with a_life(tmp_path) as ring:
        found = await ring.find("a")
    assert found is not None
    assert found["spans"][0]["name"] == "second"


@pytest.mark.parametrize("tail", [b'{"trace_id":"half', b"\xff\x00 no JSON", b"[]", b"\n\n"])
async def test_a_damaged_last_line_costs_itself_and_no_other(tmp_path: Path, tail: bytes) -> None:
    async with a_life(tmp_path, trace("a")):
        pass
    with (tmp_path / "traces.jsonl").open("ab") as file:
        file.write(tail)
    async with a_life(tmp_path, trace("b")):
        pass
    async with a_life(tmp_path) as ring:
        assert await ids(ring) == ["b", "a"]
        assert await ring.find("half") is None


async def test_the_files_stay_bounded_and_have_the_newest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace_file, "FILE_BYTES_MAX", 2000)
    for life in range(20):
        async with a_life(tmp_path, *(trace(f"t{life}-{number}") for number in range(9))):
            pass
    sizes = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    assert sizes.keys() == {"traces.jsonl", "traces.1.jsonl"}
    assert max(sizes.values()) <= 2000
    async with a_life(tmp_path) as ring:
        found = await ids(ring)
    assert found[:3] == ["t19-8", "t19-7", "t19-6"]
    assert len(found) > 9


async def test_nobody_else_may_read_them(tmp_path: Path) -> None:
    async with a_life(tmp_path, trace("a")):
        pass
    assert stat.S_IMODE((tmp_path / "traces.jsonl").stat().st_mode) == 0o600


async def test_a_disk_that_does_not_take_them_is_told_once_and_stops_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    (tmp_path / "traces.jsonl").mkdir()
    async with a_life(tmp_path, trace("a"), trace("b")) as ring:
        assert await ids(ring) == ["b", "a"]
    async with a_life(tmp_path) as ring:
        assert await ids(ring) == []
    assert [record.getMessage().partition(" (")[0] for record in caplog.records] == ["traces are not kept on disk"]


async def test_lines_that_wait_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace_file, "LINES_WAITING_MAX", 2)
    file = TraceFile(tmp_path)  # nobody writes
    for name in "abcde":
        file.keep(trace(name).as_json())
    assert file.dropped == 3
