"""A signal to read the files again is heard, whatever became of the one before."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from astromesh.errors import ReloadRefused
from astromesh.service.up import reload_whenever


@pytest.mark.parametrize(
    "failure", [ReloadRefused("refused"), RuntimeError("nobody foresaw it")], ids=lambda failure: type(failure).__name__
)
async def test_the_signal_after_a_failure_is_heard(failure: Exception, caplog: pytest.LogCaptureFixture) -> None:
    changed, reloads = asyncio.Event(), asyncio.Semaphore(0)
    failures = [failure]

    async def reload() -> None:
        reloads.release()
        if failures:
            raise failures.pop()

    task = asyncio.create_task(reload_whenever(changed, reload))
    for _ in range(2):
        changed.set()
        async with asyncio.timeout(5):
            await reloads.acquire()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert ("nobody foresaw" in caplog.text) == isinstance(failure, RuntimeError)
