"""A real model in a real worker process: it answers, it can be stopped, and it survives what is done to it."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from tests.rig.eventually import eventually

from astromesh.dialogue import Message, ModelEvent, ModelReply, ModelRequest, Sampling, TextDelta
from astromesh.errors import ContextExceeded, InvalidRequest, ModelFailed
from astromesh.inference.backends.llama_cpp.engine import LlamaCppEngine
from astromesh.inference.manifest import StoredModel
from astromesh.inference.port import ModelSpecification
from astromesh.inference.schedule import CONTEXT_HINT, FULL_CONTEXT_HINT

pytestmark = pytest.mark.engine

GREEDY = Sampling(temperature=0, max_tokens=48)
QUESTIONS = (
    "What is the capital of France?",
    "Name three colours.",
    "Write one sentence about the sea.",
    "Say hello in German. Schöne Grüße!",
)
LONG = "Tell a very long story about a lighthouse keeper, with many chapters."


def ask(engine: LlamaCppEngine, question: str, sampling: Sampling = GREEDY) -> AsyncGenerator[ModelEvent, None]:
    return engine.complete(ModelRequest("smollm2", (Message("user", question),), sampling=sampling), timeout_s=100)


async def reply_to(engine: LlamaCppEngine, question: str, sampling: Sampling = GREEDY) -> ModelReply:
    *deltas, reply = [event async for event in ask(engine, question, sampling)]
    assert isinstance(reply, ModelReply)
    assert "".join(delta.text for delta in deltas if isinstance(delta, TextDelta)) == reply.text
    return reply


@cache
def no_log() -> Any:
    """Kept for good: llama.cpp may call it until the process ends."""
    import llama_cpp

    return llama_cpp.llama_log_callback(lambda _level, _text, _data: None)


def plain_loop(path: Path, question: str, tokens_max: int) -> tuple[str, int]:
    """Greedy decoding as llama.cpp's own examples do it: the whole prompt in one batch, then one token at a time. No code of ours."""
    import ctypes

    import llama_cpp

    llama_cpp.llama_log_set(no_log(), ctypes.c_void_p(0))
    model = llama_cpp.llama_model_load_from_file(str(path).encode(), llama_cpp.llama_model_default_params())
    vocabulary = llama_cpp.llama_model_get_vocab(model)
    parameters = llama_cpp.llama_context_default_params()
    # bfloat16, as in `library.open_context`: other caches round otherwise, and choose other words.
    parameters.type_k = parameters.type_v = 30
    parameters.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_ENABLED
    context = llama_cpp.llama_init_from_model(model, parameters)
    sampler = llama_cpp.llama_sampler_init_greedy()
    prompt = (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
    ).encode()
    tokens = (llama_cpp.llama_token * 512)()
    count = llama_cpp.llama_tokenize(vocabulary, prompt, len(prompt), tokens, 512, False, True)
    assert llama_cpp.llama_decode(context, llama_cpp.llama_batch_get_one(tokens, count)) == 0
    taken: list[int] = []
    while len(taken) < tokens_max:
        token = llama_cpp.llama_sampler_sample(sampler, context, -1)
        taken.append(token)
        if llama_cpp.llama_vocab_is_eog(vocabulary, token):
            break
        one = (llama_cpp.llama_token * 1)(token)
        assert llama_cpp.llama_decode(context, llama_cpp.llama_batch_get_one(one, 1)) == 0
    buffer = ctypes.create_string_buffer(1 << 16)
    array = (llama_cpp.llama_token * len(taken))(*taken)
    size = llama_cpp.llama_detokenize(vocabulary, array, len(taken), buffer, len(buffer), False, False)
    llama_cpp.llama_sampler_free(sampler)
    llama_cpp.llama_free(context)
    llama_cpp.llama_model_free(model)
    return buffer.raw[:size].decode(errors="ignore"), len(taken)


async def test_it_answers_and_streams_token_by_token(engine: LlamaCppEngine) -> None:
    *deltas, reply = [event async for event in ask(engine, QUESTIONS[2])]
    assert isinstance(reply, ModelReply)
    assert "sea" in reply.text.lower()
    assert len(deltas) > 5
    # One delta for each token that is text; the token that ends the turn is none, and half a character waits for its other half.
    assert reply.usage.tokens_out - 3 <= len(deltas) <= reply.usage.tokens_out
    assert reply.usage.tokens_in > 20
    assert reply.timings["decode_tok_s"] > 0
    assert reply.timings["prefill_ms"] > 0
    print(reply.timings)


async def test_greedy_text_is_that_of_a_plain_decode_loop_token_for_token(engine: LlamaCppEngine, smollm2: StoredModel) -> None:
    for question in QUESTIONS:
        reply = await reply_to(engine, question)
        assert (reply.text, reply.usage.tokens_out) == await asyncio.to_thread(plain_loop, smollm2.path, question, 48)


async def test_greedy_text_is_the_same_alone_and_in_company(engine: LlamaCppEngine) -> None:
    alone = [(await reply_to(engine, question)).text for question in QUESTIONS]
    together = [reply.text for reply in await asyncio.gather(*(reply_to(engine, question) for question in QUESTIONS))]
    assert together == alone


async def test_cancelling_frees_the_worker_in_a_moment(specification: ModelSpecification) -> None:
    engine = LlamaCppEngine(replace(specification, parallel=1))
    await engine.start()
    try:
        endless = ask(engine, LONG, Sampling(temperature=0))
        await anext(endless)
        await endless.aclose()
        await eventually_idle(engine)
        # In its prompt, too: 2,000 tokens are six seconds here, and a cancel acts after a chunk of them.
        reading = asyncio.create_task(reply_to(engine, "word " * 2000))
        await eventually(lambda: _is(engine.stats.running == 1), 1.0, what="the long prompt has begun")
        reading.cancel()
        await asyncio.wait([reading])
        await eventually_idle(engine)
        assert (await reply_to(engine, QUESTIONS[0])).text
    finally:
        await engine.close()


async def _is(condition: bool) -> bool:
    return condition


async def eventually_idle(engine: LlamaCppEngine) -> None:
    async def idle() -> bool:
        return engine.stats.running == 0

    await eventually(idle, 1.0, what="the worker is idle again")


async def test_the_end_of_the_worker_in_mid_stream_is_an_indefinite_error_and_the_next_request_works(engine: LlamaCppEngine) -> None:
    stream = ask(engine, LONG, Sampling(temperature=0))
    await anext(stream)
    assert engine.worker_pid is not None
    os.kill(engine.worker_pid, signal.SIGKILL)
    with pytest.raises(ModelFailed, match="SIGKILL") as broken:
        async for _ in stream:
            pass
    assert (broken.value.code, broken.value.definite) == ("model_provider_unavailable", False)
    assert (await reply_to(engine, QUESTIONS[2])).text
    assert engine.stats.restarts == 1


async def test_a_context_longer_than_the_model_was_trained_on_is_said_at_the_load_and_again_to_who_wants_more(
    specification: ModelSpecification, caplog: pytest.LogCaptureFixture
) -> None:
    engine = LlamaCppEngine(replace(specification, context=32_768, parallel=1))
    await engine.start()
    try:
        assert "model smollm2 reads 8192 tokens of a text, not the 32768 that it is asked for" in caplog.text
        assert "spec.inference.models" in caplog.text
        with pytest.raises(InvalidRequest, match="has 8192") as refused:
            await reply_to(engine, "word " * 9000)
        assert refused.value.hint == FULL_CONTEXT_HINT
    finally:
        await engine.close()


async def test_a_prompt_longer_than_the_context_is_refused_with_both_numbers(specification: ModelSpecification) -> None:
    engine = LlamaCppEngine(replace(specification, context=256))
    await engine.start()
    try:
        with pytest.raises(ContextExceeded, match=r"\d{3} tokens and the context of this model has 256") as refused:
            await reply_to(engine, "word " * 400)
        assert (refused.value.param, refused.value.hint) == ("messages", CONTEXT_HINT)
        full = await reply_to(engine, LONG, Sampling(temperature=0))
        assert (full.finish_reason, full.usage.tokens_in + full.usage.tokens_out) == ("length", 256)
    finally:
        await engine.close()


async def test_a_stop_string_ends_the_text_before_it(engine: LlamaCppEngine) -> None:
    whole = await reply_to(engine, QUESTIONS[2])
    middle = whole.text[len(whole.text) // 2 :][:7]  # begins and ends wherever it may, not at a token's border
    cut = await reply_to(engine, QUESTIONS[2], replace(GREEDY, stop=(middle,)))
    assert cut.text == whole.text[: whole.text.index(middle)]
    assert cut.finish_reason == "stop"


async def test_a_seed_makes_chance_repeatable_and_another_one_does_not(engine: LlamaCppEngine) -> None:
    def sampling(seed: int | None) -> Sampling:
        return Sampling(temperature=1.5, top_p=1.0, top_k=0, min_p=0.0, seed=seed, max_tokens=24)

    texts = [(await reply_to(engine, LONG, sampling(seed))).text for seed in (7, 7, 8)]
    assert texts[0] == texts[1] != texts[2]
    unseeded = {(await reply_to(engine, LONG, sampling(None))).text for _ in range(3)}
    assert len(unseeded) == 3


@pytest.mark.parametrize(
    "changes", [{"presence_penalty": 2.0}, {"frequency_penalty": 2.0}, {"repeat_penalty": 1.5}], ids=lambda changes: next(iter(changes))
)
async def test_each_penalty_turns_a_model_away_from_what_it_said(engine: LlamaCppEngine, changes: dict[str, Any]) -> None:
    # Greedy SmolLM2 falls into a loop on this question; a penalty breaks it.
    def repeated(text: str) -> int:
        words = text.split()
        return len(words) - len(set(words))

    plain = await reply_to(engine, QUESTIONS[0])
    assert repeated((await reply_to(engine, QUESTIONS[0], replace(GREEDY, **changes))).text) < repeated(plain.text)


@pytest.mark.parametrize("changes", [{"top_k": 1}, {"top_p": 0.0, "top_k": 0}, {"min_p": 1.0, "top_k": 0, "top_p": 1.0}], ids=str)
async def test_each_filter_at_its_tightest_leaves_the_greedy_choice(engine: LlamaCppEngine, changes: dict[str, Any]) -> None:
    greedy = await reply_to(engine, QUESTIONS[2])
    filtered = await reply_to(engine, QUESTIONS[2], replace(GREEDY, temperature=1.0, **changes))
    assert filtered.text == greedy.text


async def test_a_file_with_the_magic_and_nothing_else_is_told_as_no_model(specification: ModelSpecification, tmp_path: Path) -> None:
    (tmp_path / "none.gguf").write_bytes(b"GGUF" + b"\x03\x00\x00\x00" + bytes(64))
    engine = LlamaCppEngine(replace(specification, path=tmp_path / "none.gguf"))
    with pytest.raises(ModelFailed, match=r"cannot load .*none\.gguf") as failed:
        await engine.start()
    assert failed.value.definite
    assert engine.state == "failed"
    await engine.close()


async def test_the_worker_gives_way_to_the_node(engine: LlamaCppEngine) -> None:
    assert engine.worker_pid is not None
    assert os.getpriority(os.PRIO_PROCESS, engine.worker_pid) > os.getpriority(os.PRIO_PROCESS, 0)
    assert os.getsid(engine.worker_pid) == os.getsid(0)
    assert b"GOMP_SPINCOUNT=1000" in Path(f"/proc/{engine.worker_pid}/environ").read_bytes().split(b"\0")


async def test_the_tokenizer_of_a_loaded_model_counts_while_it_answers(engine: LlamaCppEngine) -> None:
    async with aclosing(ask(engine, LONG)) as answer:
        await anext(answer)
        few, many, none = await engine.count_tokens(["Hello there.", "Hello there. " * 50, ""], timeout_s=20)
    assert 3 <= few <= 6
    assert 100 <= many <= 300
    assert none <= 1
