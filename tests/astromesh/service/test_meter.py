"""What a node tells of itself: its load and its devices."""

from __future__ import annotations

import asyncio

from astromesh.fleet import loads
from astromesh.service.meter import Meter, processor

CPUINFO = """processor\t: 0
model name\t: A processor @ 2 GHz
flags\t\t: avx2 fma sse

processor\t: 1
model name\t: Another
flags\t\t: sse
"""


def test_the_first_processor_is_named_and_its_flags_make_a_digest_whatever_their_order() -> None:
    name, flags = processor(CPUINFO)
    assert name == "A processor @ 2 GHz"
    assert processor(CPUINFO.replace("avx2 fma sse", "sse avx2 fma"))[1] == flags
    assert processor(CPUINFO.replace("avx2 fma sse", "fma sse"))[1] != flags
    assert processor("Features\t: asimd\nCPU part: 0xd0c\n")[1] != ""
    assert processor("nothing to see") == ("", "")


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


def test_this_machine_has_a_processor_and_memory_and_nobody_has_looked_for_cards() -> None:
    devices = Meter(active=lambda: 0, queued=lambda: 0, changed=lambda: None).devices
    assert devices.cpu is not None
    assert devices.cpu.threads >= devices.cpu.cores >= 1
    assert devices.memory is not None
    assert devices.memory.total_bytes > devices.memory.free_bytes > 0
    assert devices.gpus is None
