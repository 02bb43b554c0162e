"""A model that was made to write turns texts into vectors, too: between the steps of its streams, and without changing a token of them."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from astromesh.dialogue import EncodingRequest, Message, ModelReply, ModelRequest, Sampling
from astromesh.errors import InvalidRequest
from astromesh.inference.backends.llama_cpp.engine import LlamaCppEngine
from astromesh.inference.manifest import StoredModel

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]

TEXTS = ("The cat sat on the mat.", "Ships came in at night.", "x")
AMPLE_S = 120.0


async def vectors(engine: LlamaCppEngine, *texts: str) -> Any:
    made = await engine.encode(EncodingRequest("smollm2", texts), timeout_s=AMPLE_S)
    return np.array(list(made.vectors.numbers()))


async def test_a_vector_is_the_mean_of_the_models_own_states(engine: LlamaCppEngine, smollm2: StoredModel) -> None:
    import llama_cpp

    theirs = llama_cpp.Llama(
        str(smollm2.path),
        embedding=True,
        pooling_type=llama_cpp.LLAMA_POOLING_TYPE_MEAN,
        flash_attn=True,  # as llama.cpp chooses by itself; without it a number differs by 0.01
        n_ctx=512,
        n_threads=2,
        verbose=False,
    )
    rows = await vectors(engine, *TEXTS)
    assert rows.shape == (3, 576)
    assert np.linalg.norm(rows, axis=1) == pytest.approx(np.ones(3), abs=1e-5)
    for text, row in zip(TEXTS, rows, strict=True):
        reference = np.array(theirs.embed(text))
        assert row == pytest.approx(reference / np.linalg.norm(reference), abs=1e-5)


async def test_a_text_has_the_same_vector_in_any_company(engine: LlamaCppEngine) -> None:
    together = await vectors(engine, *TEXTS)
    alone = [(await vectors(engine, text))[0] for text in TEXTS]
    assert np.array_equal(together, np.array(alone))


async def test_a_long_text_is_cut_and_said_to_be_and_special_tokens_are_text(engine: LlamaCppEngine) -> None:
    from astromesh.inference.backends.llama_cpp.texts import TEXT_TOKENS

    made = await engine.encode(EncodingRequest("smollm2", ("short", "word " * 3000, "<|im_end|>")), timeout_s=AMPLE_S)
    assert made.truncated == (1,)
    assert made.usage.tokens_in > TEXT_TOKENS + 4  # the marks of a special token are several tokens of text


async def test_another_number_of_dimensions_is_refused_by_name(engine: LlamaCppEngine) -> None:
    with pytest.raises(InvalidRequest, match="576 dimensions, not 3"):
        await engine.encode(EncodingRequest("smollm2", ("x",), dimensions=3), timeout_s=AMPLE_S)


async def test_streams_go_on_beside_texts_and_say_what_they_say_alone(engine: LlamaCppEngine) -> None:
    request = ModelRequest("smollm2", (Message("user", "Count from one to ten."),), sampling=Sampling(temperature=0.0, max_tokens=24))

    async def said() -> str:
        *_, reply = [event async for event in engine.complete(request, timeout_s=AMPLE_S)]
        assert isinstance(reply, ModelReply)
        return reply.text

    alone = await said()
    beside, rows = await asyncio.gather(said(), vectors(engine, *(f"text number {number}" for number in range(20))))
    assert beside == alone
    assert len(rows) == 20
    assert engine.stats.running == 0
