"""What is asked of a worker beside answers: states of conversations and counts, several at once, given up or refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from tests.astromesh.inference.test_supervision import all_of, an_engine, ask, seen, started

from astromesh.dialogue import Message, ModelRequest, TextDelta
from astromesh.errors import AstromeshError, InvalidRequest, ModelFailed, Overloaded
from astromesh.inference.backends.llama_cpp import engine as llama_cpp
from astromesh.inference.backends.llama_cpp.engine import SESSIONS_MAX, LlamaCppEngine
from astromesh.inference.handovers import AHEAD_PIECES
from astromesh.inference.session_state import PIECE_BYTES


def conversation(order: str) -> ModelRequest:
    return ModelRequest("tiny", (Message("user", order),))


async def given(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


class Slow:
    """Pieces that come when the test lets them."""

    def __init__(self, *pieces: bytes) -> None:
        self._pieces = pieces
        self.begun = asyncio.Event()
        self.rest = asyncio.Event()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._pieces[0]
        self.begun.set()
        await self.rest.wait()
        for piece in self._pieces[1:]:
            yield piece


async def serves(engine: LlamaCppEngine, *, held: int = 0) -> None:
    """It answers, and its worker has so many states under way and no more."""
    assert (await all_of(ask(engine, "held")))[0] == TextDelta(str(held), (1,))
    assert (engine.state, engine.stats.restarts) == ("loaded", 0)


async def test_two_imports_at_once_do_not_mix() -> None:
    async with started(an_engine()) as engine:
        slow = Slow(b"a" * 1000, b"a" * 1000)
        importing = asyncio.create_task(engine.import_session(slow, timeout_s=20))
        await slow.begun.wait()
        assert await engine.import_session(given(b"b" * 30, b"b" * 30), timeout_s=20) == 60
        slow.rest.set()
        assert await importing == 2000


@pytest.mark.parametrize("how", ["cancelled", "too late", "its source broke"])
async def test_an_import_that_was_given_up_leaves_nothing_to_the_next(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with started(an_engine()) as engine:
        slow = Slow(b"a" * 1000)
        importing = asyncio.create_task(engine.import_session(slow, timeout_s=0.05 if how == "too late" else 20))
        if how == "its source broke":

            async def broken() -> AsyncIterator[bytes]:
                yield b"a"
                raise ModelFailed("the link broke", code="model_provider_unavailable")

            with pytest.raises(ModelFailed, match="the link broke"):
                await engine.import_session(broken(), timeout_s=20)
        if how != "too late":
            await slow.begun.wait()
            importing.cancel()
        assert isinstance((await asyncio.gather(importing, return_exceptions=True))[0], (asyncio.CancelledError, ModelFailed))
        assert await engine.import_session(given(b"b" * 30), timeout_s=20) == 30
        monkeypatch.setattr(llama_cpp, "STATE_BYTES_MAX", 1000)  # what was given up is not counted, either
        assert await engine.import_session(given(b"c" * 1000), timeout_s=20) == 1000
        await serves(engine)


async def test_a_large_state_goes_in_and_out_whole() -> None:
    async with started(an_engine()) as engine:
        pieces = [piece async for piece in engine.export_session(conversation(f"state {3 * AHEAD_PIECES} x"), timeout_s=20)]
        assert b"".join(pieces) == b"x" * (3 * AHEAD_PIECES * PIECE_BYTES)
        assert await engine.import_session(given(b"".join(pieces)), timeout_s=20) == 3 * AHEAD_PIECES * PIECE_BYTES


async def test_a_state_is_no_faster_sent_than_it_is_read() -> None:
    """What is not read yet waits in the worker: of a state that is never read on, only the window comes."""
    async with started(an_engine()) as engine:
        export = engine.export_session(conversation("state 1000 x"), timeout_s=20)
        assert await anext(export) == b"x" * PIECE_BYTES
        (session,) = engine._sessions.values()
        await seen(lambda: session.answers.qsize() == AHEAD_PIECES - 1)
        await serves(engine, held=1)  # whatever else it would have sent would have come before this
        assert session.answers.qsize() == AHEAD_PIECES - 1
        await export.aclose()
        await serves(engine)


async def test_a_refusal_of_what_was_given_up_breaks_nothing() -> None:
    async with started(an_engine()) as engine:
        with pytest.raises(ModelFailed, match="did not answer"):
            await anext(engine.export_session(conversation("refuse"), timeout_s=0))  # it was sent, and nobody waits for its answer
        await serves(engine)
        with pytest.raises(InvalidRequest, match="9 tokens"):
            await anext(engine.export_session(conversation("refuse"), timeout_s=20))
        with pytest.raises(InvalidRequest, match="no whole session state"):
            await engine.import_session(given(b"refuse"), timeout_s=20)
        await serves(engine)


async def test_a_worker_that_dies_in_the_middle_of_an_import_ends_it() -> None:
    async with started(an_engine(parallel=2)) as engine:
        slow = Slow(b"a" * 1000, b"a")
        importing = asyncio.create_task(engine.import_session(slow, timeout_s=20))
        await slow.begun.wait()
        with pytest.raises(ModelFailed, match="SIGKILL"):
            await all_of(ask(engine, "crash"))
        slow.rest.set()
        with pytest.raises(ModelFailed, match="SIGKILL"):
            await importing


async def test_a_state_that_is_too_large_is_refused_and_one_too_many_at_a_time_may_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llama_cpp, "STATE_BYTES_MAX", 1000)
    async with started(an_engine()) as engine:
        with pytest.raises(InvalidRequest, match="over 1000 bytes") as refused:
            await engine.import_session(given(b"a" * 999, b"aa"), timeout_s=20)
        assert refused.value.param == "session"
        slow = Slow(b"a" * 600)
        importing = asyncio.create_task(engine.import_session(slow, timeout_s=20))
        await slow.begun.wait()
        with pytest.raises(Overloaded):
            await engine.import_session(given(b"b" * 600), timeout_s=20)
        slow.rest.set()
        assert await importing == 600
        assert await engine.import_session(given(b"b" * 600), timeout_s=20) == 600


async def test_only_so_many_are_under_way_at_once() -> None:
    async with started(an_engine()) as engine:
        slow = [Slow(b"a") for _ in range(SESSIONS_MAX)]
        importing = [asyncio.create_task(engine.import_session(one, timeout_s=20)) for one in slow]
        await asyncio.gather(*(one.begun.wait() for one in slow))
        with pytest.raises(Overloaded) as full:
            await engine.count_tokens(["one"], timeout_s=20)
        assert full.value.definite
        for one in slow:
            one.rest.set()
        assert await asyncio.gather(*importing) == [1] * SESSIONS_MAX
        assert await engine.count_tokens(["one", "one two", ""], timeout_s=20) == (1, 2, 0)


@pytest.mark.parametrize("texts", [["half a pair: \ud83e"], ["x" * (llama_cpp.COUNTED_CHARACTERS_MAX + 1)]], ids=["surrogate", "too long"])
async def test_a_text_that_cannot_be_counted_is_an_error_of_ours_and_breaks_nothing(texts: list[str]) -> None:
    async with started(an_engine()) as engine:
        with pytest.raises(AstromeshError) as refused:
            await engine.count_tokens(texts, timeout_s=20)
        assert isinstance(refused.value, InvalidRequest)
        await serves(engine)


async def test_a_session_begun_in_between_takes_no_answers_number() -> None:
    async with started(an_engine(parallel=3)) as engine:
        first, second = ask(engine, "say one"), ask(engine, "say two")
        replies = await asyncio.gather(all_of(first), engine.count_tokens(["a b c"], timeout_s=20), all_of(second))
    assert replies[1] == (3,)
    assert [replies[0][0], replies[2][0]] == [TextDelta("one", (1,)), TextDelta("two", (1,))]
