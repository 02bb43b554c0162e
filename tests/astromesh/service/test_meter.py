"""What a node tells of its load."""

from __future__ import annotations

import asyncio

from astromesh.fleet import loads
from astromesh.service.meter import Meter


async def test_requests_are_counted_at_the_moment_of_the_question_and_the_rest_once_a_second() -> None:
    measured = asyncio.Event()
    active = [0]
    meter = Meter(active=lambda: active[0], queued=lambda: 1, changed=measured.set)
    meter.open()
    try:
        async with asyncio.timeout(5):
            await measured.wait()
            measured.clear()
            await measured.wait()  # and again, by itself
        active[0] = 3
        assert (meter.load.active_requests, meter.load.queued_requests) == (3, 1)
        told = loads.read(meter.encoded())
        assert told is not None
        assert told.active_requests == 3
        assert 0.0 < meter.load.memory_percent <= 100.0
    finally:
        await meter.close()
