"""Several answers to one request, as one stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import TypeVar

from astromesh.dialogue import Usage

CHOICES_MAX = 16  # each is a stream of its own, and a model decodes a few side by side
PIECES_AHEAD_MAX = 64  # of a client that reads slowly; then the models wait

P = TypeVar("P")


async def merged(streams: Sequence[AsyncGenerator[P, None]]) -> AsyncGenerator[tuple[int, P], None]:
    """`(which, piece)` as they come. The first failure of one ends all; closing it closes them, too."""
    if len(streams) == 1:
        async with aclosing(streams[0]) as only:
            async for piece in only:
                yield 0, piece
        return
    pieces: asyncio.Queue[tuple[int, P] | Exception | None] = asyncio.Queue(PIECES_AHEAD_MAX)

    async def pump(index: int, stream: AsyncGenerator[P, None]) -> None:
        try:
            async with aclosing(stream):
                async for piece in stream:
                    await pieces.put((index, piece))
        except Exception as failure:  # noqa: BLE001  raised again where the pieces are read
            await pieces.put(failure)
        else:
            await pieces.put(None)

    tasks = [asyncio.create_task(pump(index, stream), name=f"choice {index}") for index, stream in enumerate(streams)]
    try:
        running = len(tasks)
        while running:
            match await pieces.get():
                case None:
                    running -= 1
                case Exception() as failure:
                    raise failure
                case (index, piece):
                    yield index, piece
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def together(usages: Sequence[Usage]) -> Usage:
    """What they cost: the prompt that they share counts once, and as cached what none of them computed."""
    return Usage(
        max((usage.tokens_in for usage in usages), default=0),
        sum(usage.tokens_out for usage in usages),
        min((usage.cached_tokens for usage in usages), default=0),
    )
