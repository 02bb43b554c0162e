"""Whatever a worker process does, its callers are told, the others are served, and the node never blinks."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.rig.eventually import eventually
from tests.rig.rooms import drained

from astromesh.dialogue import Message, ModelEvent, ModelReply, ModelRequest, TextDelta, Usage
from astromesh.errors import InvalidRequest, MissingExtra, ModelFailed, ModelUnavailable, Overloaded
from astromesh.inference.backends import supervised
from astromesh.inference.backends.llama_cpp.engine import LlamaCppEngine
from astromesh.inference.backends.supervised import EngineLimits
from astromesh.inference.frames import FRAME_BYTES_MAX
from astromesh.inference.port import InferenceEngine, ModelSpecification

DOUBLE = (sys.executable, str(Path(__file__).with_name("worker_double.py")))
LIMITS = EngineLimits(restart_pause_s=0.001, restart_pause_max_s=0.01, starts_without_success=3)


def an_engine(*, file: str = "tiny", parallel: int = 1, limits: EngineLimits = LIMITS) -> LlamaCppEngine:
    return LlamaCppEngine(
        ModelSpecification("tiny", Path(f"/models/{file}.gguf"), "0" * 64, parallel=parallel), limits=limits, command=DOUBLE
    )


@asynccontextmanager
async def started(engine: LlamaCppEngine) -> AsyncIterator[LlamaCppEngine]:
    try:
        await engine.start()
        yield engine
    finally:
        await engine.close()


def ask(engine: InferenceEngine, order: str, *, timeout_s: float = 20.0) -> AsyncGenerator[ModelEvent, None]:
    return engine.complete(ModelRequest("tiny", (Message("user", order),)), timeout_s=timeout_s)


async def all_of(stream: AsyncGenerator[ModelEvent, None]) -> list[ModelEvent]:
    return [event async for event in stream]


async def seen(condition: Callable[[], bool]) -> None:
    async def holds() -> bool:
        return condition()

    await eventually(holds, 1.0)


def test_an_engine_is_what_the_port_promises() -> None:
    engine: InferenceEngine = an_engine()
    assert (engine.name, engine.identity, engine.state) == ("tiny", "0" * 64, "unloaded")


async def test_text_streams_as_it_is_made_and_the_reply_sums_it_up() -> None:
    async with started(an_engine()) as engine:
        *deltas, reply = await all_of(ask(engine, "say one two three"))
    assert deltas == [TextDelta("one", (1,)), TextDelta("two", (1,)), TextDelta("three", (1,))]
    assert isinstance(reply, ModelReply)
    assert (reply.text, reply.finish_reason, reply.usage, reply.model) == ("onetwothree", "stop", Usage(5, 4), "tiny")
    assert set(reply.timings) == {"queue_ms", "prefill_ms", "decode_tok_s"}


async def test_counters_tell_what_was_done() -> None:
    async with started(an_engine()) as engine:
        await all_of(ask(engine, "say one"))
        await all_of(ask(engine, "say one two"))
        assert (engine.stats.finished, engine.stats.tokens_in, engine.stats.tokens_out) == (2, 10, 5)
        assert (engine.stats.queued, engine.stats.running, engine.stats.restarts) == (0, 0, 0)


async def test_streams_side_by_side_do_not_mix() -> None:
    async with started(an_engine(parallel=2)) as engine:
        texts = [reply.text for *_, reply in await asyncio.gather(*(all_of(ask(engine, f"say {n} {n}")) for n in range(6)))]
    assert texts == ["00", "11", "22", "33", "44", "55"]


async def test_a_crash_is_told_to_its_stream_and_the_next_in_the_queue_is_served() -> None:
    async with started(an_engine()) as engine:
        crashing, waiting = ask(engine, "crash"), asyncio.create_task(all_of(ask(engine, "say hello")))
        assert await anext(crashing) == TextDelta("ouch", (1,))
        with pytest.raises(ModelFailed, match="SIGKILL") as broken:
            await anext(crashing)
        assert broken.value.code == "model_provider_unavailable"
        assert not broken.value.definite
        assert (await waiting)[0] == TextDelta("hello", (1,))
        assert engine.stats.restarts == 1


async def test_noise_in_the_pipe_ends_the_worker_and_not_the_node() -> None:
    async with started(an_engine()) as engine:
        with pytest.raises(ModelFailed, match="a frame claims"):
            await all_of(ask(engine, "noise"))
        assert (await all_of(ask(engine, "say hello")))[0] == TextDelta("hello", (1,))


async def test_a_worker_that_falls_silent_at_work_is_killed() -> None:
    limits = EngineLimits(silence_s=0.05, restart_pause_s=0.001)
    async with started(an_engine(limits=limits)) as engine:
        stream = ask(engine, "hold on")
        assert await anext(stream) == TextDelta("on", (1,))
        with pytest.raises(ModelFailed, match=r"said nothing for 0\.05 s"):
            await anext(stream)
        assert (await all_of(ask(engine, "say hello")))[0] == TextDelta("hello", (1,))


async def test_a_worker_without_work_may_be_silent_for_longer_than_one_with_work_lives() -> None:
    idle = an_engine(limits=EngineLimits(silence_s=0.02))
    busy = an_engine(limits=EngineLimits(silence_s=0.2))
    async with started(idle), started(busy):
        await all_of(ask(idle, "say hello"))
        before = idle.worker_pid
        with pytest.raises(ModelFailed, match="said nothing"):
            await all_of(ask(busy, "hold on"))
        assert idle.worker_pid == before


async def test_closing_a_stream_cancels_it_and_its_place_goes_to_the_next() -> None:
    async with started(an_engine()) as engine:
        stream = ask(engine, "hold on")
        await anext(stream)
        waiting = asyncio.create_task(all_of(ask(engine, "say hello")))
        await seen(lambda: engine.stats.queued == 1)
        await stream.aclose()
        assert (await waiting)[0] == TextDelta("hello", (1,))
        assert (engine.stats.queued, engine.stats.running) == (0, 0)


async def test_a_caller_that_is_cancelled_in_the_queue_leaves_it() -> None:
    async with started(an_engine()) as engine:
        stream = ask(engine, "hold on")
        await anext(stream)
        waiting = asyncio.create_task(all_of(ask(engine, "say hello")))
        await seen(lambda: engine.stats.queued == 1)
        waiting.cancel()
        await asyncio.wait([waiting])
        assert engine.stats.queued == 0
        await stream.aclose()


async def test_a_full_queue_refuses_at_once() -> None:
    async with started(an_engine(limits=EngineLimits(waiting=1))) as engine:
        stream = ask(engine, "hold on")
        await anext(stream)
        waiting = asyncio.create_task(all_of(ask(engine, "say hello")))
        await seen(lambda: engine.stats.queued == 1)
        with pytest.raises(Overloaded) as full:
            await anext(ask(engine, "say more"))
        assert full.value.definite
        await stream.aclose()
        assert (await waiting)[0] == TextDelta("hello", (1,))


async def test_a_refusal_of_the_worker_is_the_callers_mistake_by_name() -> None:
    async with started(an_engine()) as engine:
        with pytest.raises(InvalidRequest, match="9 tokens") as refused:
            await all_of(ask(engine, "refuse"))
        assert refused.value.param == "messages"
        assert engine.stats.running == 0


@pytest.mark.parametrize("content", ["half a pair: \ud83e", "x" * FRAME_BYTES_MAX], ids=["surrogate", "too long"])
async def test_a_text_that_cannot_be_sent_is_the_callers_mistake_and_disturbs_nobody(content: str) -> None:
    async with started(an_engine()) as engine:
        stream = ask(engine, "hold on")
        await anext(stream)
        with pytest.raises(InvalidRequest) as refused:
            await anext(ask(engine, content))
        assert refused.value.param == "messages"
        assert (engine.state, engine.stats.running, engine.stats.queued) == ("loaded", 1, 0)
        await stream.aclose()


async def test_a_stream_that_takes_too_long_is_cut_and_may_have_happened() -> None:
    async with started(an_engine()) as engine:
        with pytest.raises(ModelFailed) as late:
            await all_of(ask(engine, "hold on", timeout_s=0.05))
        assert (late.value.code, late.value.definite) == ("model_timeout", False)
        await seen(lambda: engine.stats.running == 0)


async def test_a_request_that_never_left_the_queue_certainly_did_not_happen() -> None:
    async with started(an_engine()) as engine:
        stream = ask(engine, "hold on")
        await anext(stream)
        with pytest.raises(ModelFailed) as late:
            await all_of(ask(engine, "say hello", timeout_s=0.05))
        assert (late.value.code, late.value.definite) == ("model_timeout", True)
        await stream.aclose()


async def test_a_model_that_is_still_loading_says_so_after_a_while() -> None:
    engine = an_engine(file="never", limits=EngineLimits(loading_patience_s=0.05))
    loading = asyncio.create_task(engine.start())
    await seen(lambda: engine.state == "loading")
    with pytest.raises(ModelUnavailable, match="still loading") as early:
        await all_of(ask(engine, "say hello"))
    assert early.value.definite
    await engine.close()
    with pytest.raises(ModelUnavailable):
        await loading


async def test_who_waits_while_a_worker_dies_waits_no_longer_for_the_next_one_than_who_comes_then(tmp_path: Path) -> None:
    """One that comes back soon is worth waiting for; see the tests of crashes above."""
    limits = EngineLimits(loading_patience_s=0.2, restart_pause_s=0.001)
    model = ModelSpecification("tiny", tmp_path / "once.gguf", "0" * 64, parallel=1)
    async with started(LlamaCppEngine(model, limits=limits, command=DOUBLE)) as engine:
        stream = ask(engine, "hold on")
        await anext(stream)
        waiting = asyncio.create_task(all_of(ask(engine, "say hello")))
        await seen(lambda: engine.stats.queued == 1)
        assert engine.worker_pid is not None
        os.kill(engine.worker_pid, signal.SIGKILL)
        with pytest.raises(ModelFailed):
            await anext(stream)
        with pytest.raises(ModelUnavailable, match="still loading") as told:
            await waiting
        assert told.value.definite


async def test_pauses_between_starts_grow_to_their_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    sleep = asyncio.sleep

    async def noted(seconds: float) -> None:
        pauses.append(seconds)
        await sleep(0)

    limits = EngineLimits(restart_pause_s=0.25, restart_pause_max_s=1.0, starts_without_success=6)
    engine = an_engine(file="dies", limits=limits)
    monkeypatch.setattr(supervised.asyncio, "sleep", noted)
    with pytest.raises(ModelFailed):
        await engine.start()
    assert pauses == [0.25, 0.5, 1.0, 1.0, 1.0]
    await engine.close()


async def test_an_answer_to_its_end_makes_pauses_short_again(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    sleep = asyncio.sleep

    async def noted(seconds: float) -> None:
        pauses.append(seconds)
        await sleep(0)

    async with started(an_engine(limits=EngineLimits(restart_pause_s=0.25))) as engine:
        with monkeypatch.context() as patched:
            patched.setattr(supervised.asyncio, "sleep", noted)
            for order in ("crash", "crash", "say hello", "crash"):
                await drained(ask(engine, order))
    assert [pause for pause in pauses if pause] == [0.25, 0.5, 0.25]


async def test_loading_that_falls_silent_is_tried_again_and_then_given_up() -> None:
    engine = an_engine(file="never", limits=EngineLimits(load_silence_s=0.05, restart_pause_s=0.001, starts_without_success=2))
    with pytest.raises(ModelFailed, match=r"said nothing for 0\.05 s") as failed:
        await engine.start()
    assert failed.value.definite
    assert (engine.state, engine.stats.restarts) == ("failed", 1)
    await engine.close()


async def test_a_worker_that_dies_while_loading_is_given_up_with_its_last_words() -> None:
    engine = an_engine(file="dies")
    with pytest.raises(ModelFailed, match=r"exited with code 3.*the last words"):
        await engine.start()
    assert engine.state == "failed"
    with pytest.raises(ModelUnavailable, match="failed"):
        await anext(ask(engine, "say hello"))
    await engine.close()


async def test_a_worker_of_another_version_leaves_nobody_waiting() -> None:
    engine = an_engine()
    await engine.start()
    with pytest.raises(ModelFailed, match="supervision broke"):
        await all_of(ask(engine, "misnumber"))
    assert engine.state == "failed"
    await engine.close()


async def test_a_file_that_is_no_model_is_not_tried_twice() -> None:
    engine = an_engine(file="unusable")
    with pytest.raises(ModelFailed, match=r"llama\.cpp cannot load it") as failed:
        await engine.start()
    assert failed.value.definite
    assert engine.stats.restarts == 0
    await engine.close()


async def test_closing_ends_running_and_waiting_requests_and_the_process() -> None:
    engine = an_engine()
    await engine.start()
    running = ask(engine, "hold on")
    await anext(running)
    waiting = asyncio.create_task(all_of(ask(engine, "say hello")))
    await seen(lambda: engine.stats.queued == 1)
    await engine.close()
    assert (engine.state, engine.worker_pid) == ("unloaded", None)
    with pytest.raises(ModelFailed):
        await anext(running)
    with pytest.raises(ModelUnavailable):
        await waiting
    with pytest.raises(ModelUnavailable, match="unloaded"):
        await anext(ask(engine, "say hello"))


async def test_a_closed_engine_can_be_started_again() -> None:
    engine = an_engine()
    for _ in range(2):
        async with started(engine):
            assert (await all_of(ask(engine, "say hello")))[0] == TextDelta("hello", (1,))


async def test_without_an_engine_the_error_names_the_command_that_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LlamaCppEngine, "needs", ("no_such_engine",))
    with pytest.raises(MissingExtra) as missing:
        await LlamaCppEngine(ModelSpecification("tiny", Path("/x.gguf"), "")).start()
    assert "astromesh-node[local-prebuilt]" in missing.value.hint


# The file under a model.


def a_filed_engine(path: Path) -> LlamaCppEngine:
    status = path.stat()
    model = ModelSpecification("tiny", path, "0" * 64, parallel=1, size_bytes=status.st_size, changed_ns=status.st_mtime_ns)
    return LlamaCppEngine(model, limits=LIMITS, command=DOUBLE)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.gguf"
    path.write_bytes(b"weights")
    return path


async def test_a_file_that_changed_since_it_was_found_is_not_loaded(file: Path) -> None:
    engine = a_filed_engine(file)
    file.write_bytes(b"weights of another model")
    with pytest.raises(ModelFailed, match="has changed since it was registered: it has 24 bytes and had 7"):
        await engine.start()
    assert engine.worker_pid is None
    await engine.close()


async def test_a_worker_that_died_of_a_cut_file_is_not_started_again(file: Path) -> None:
    async with started(a_filed_engine(file)) as engine:
        reading = ask(engine, "hold on")
        await anext(reading)
        waiting = asyncio.create_task(all_of(ask(engine, "say hello")))
        await seen(lambda: engine.stats.queued == 1)
        file.write_bytes(b"wei")
        assert engine.worker_pid is not None
        os.kill(engine.worker_pid, signal.SIGBUS)
        with pytest.raises(ModelFailed, match="SIGBUS: a file that it reads was cut under it"):
            await anext(reading)
        with pytest.raises(ModelFailed, match="it has 3 bytes and had 7") as told:
            await waiting
        assert (told.value.definite, "models load tiny" in told.value.hint) == (True, True)
        assert (engine.state, engine.stats.restarts) == ("failed", 1)
        assert "it has 3 bytes and had 7" in engine.problem


async def test_a_file_that_was_swapped_for_one_of_the_same_size_is_not_taken_for_the_old_one(file: Path) -> None:
    async with started(a_filed_engine(file)) as engine:
        file.write_bytes(b"WEIGHTS")
        os.utime(file, ns=(0, 0))
        with pytest.raises(ModelFailed):
            await all_of(ask(engine, "crash"))
        await seen(lambda: engine.state == "failed")
        assert "it was written to" in engine.problem
