"""An encoder in its worker process, with models that one can compute in one's head."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from onnx import TensorProto
from tests.rig.eventually import eventually
from tests.rig.small_encoders import small_encoder

from astromesh.dialogue import EncodingRequest
from astromesh.errors import InvalidRequest, MissingExtra, ModelFailed, ModelUnavailable
from astromesh.inference.backends.onnx_runtime.engine import OnnxEncoder
from astromesh.inference.backends.supervised import EngineLimits
from astromesh.inference.batches import ROWS_MAX
from astromesh.inference.encoding import TEXTS_MAX, TextEncoder
from astromesh.inference.port import ModelSpecification

COMPASS: Mapping[str, Sequence[float]] = {"east": (1.0, 0.0), "north": (0.0, 1.0), "west": (-1.0, 0.0)}


def an_encoder(model: ModelSpecification) -> OnnxEncoder:
    return OnnxEncoder(model, limits=EngineLimits(restart_pause_s=0.001, restart_pause_max_s=0.01, starts_without_success=3))


@asynccontextmanager
async def started(model: ModelSpecification) -> AsyncIterator[OnnxEncoder]:
    encoder = an_encoder(model)
    try:
        await encoder.start()
        yield encoder
    finally:
        await encoder.close()


async def vectors(encoder: TextEncoder, *texts: str) -> list[list[float]]:
    return list((await encoder.encode(EncodingRequest("small", texts), timeout_s=20)).vectors.numbers())


async def test_an_embedding_is_the_mean_of_its_own_tokens_with_the_length_one(tmp_path: Path) -> None:
    """Beside a longer text it is padded, and the padding counts for nothing."""
    async with started(small_encoder(tmp_path, COMPASS)) as encoder:
        east, between, long = await vectors(encoder, "east", "east north", "north north north north west")
    half = math.sqrt(0.5)
    assert east == [1.0, 0.0]
    assert between == pytest.approx([half, half])
    assert long == pytest.approx([-1 / math.sqrt(17), 4 / math.sqrt(17)])


async def test_usage_counts_tokens_and_texts_that_were_cut_are_named(tmp_path: Path) -> None:
    async with started(replace(small_encoder(tmp_path, COMPASS), context=4)) as encoder:
        told = await encoder.encode(EncodingRequest("small", ("east", "east north", "west " * 9 + "north")), timeout_s=20)
        assert (told.usage.tokens_in, told.usage.tokens_out, told.truncated) == (1 + 2 + 4, 0, (2,))
        assert list(told.vectors.numbers())[2] == [-1.0, 0.0]
        assert (encoder.stats.finished, encoder.stats.tokens_in) == (1, 7)


async def test_many_texts_come_back_in_their_order_whatever_batches_they_went_in(tmp_path: Path) -> None:
    words = [("east ", "north ", "west ")[n % 3] * (1 + n % 5) for n in range(3 * ROWS_MAX + 1)]
    expected = {"e": [1.0, 0.0], "n": [0.0, 1.0], "w": [-1.0, 0.0]}
    async with started(small_encoder(tmp_path, COMPASS)) as encoder:
        both = await asyncio.gather(vectors(encoder, *words), vectors(encoder, *reversed(words)))
    assert both[0] == [expected[word[0]] for word in words]
    assert both[1] == both[0][::-1]


async def test_a_classifier_tells_how_likely_every_label_is(tmp_path: Path) -> None:
    model = small_encoder(
        tmp_path,
        {"thanks": (0.0, 3.0), "idiot": (5.0, 0.0)},
        nodes="sums",
        manifest={"task": "classify", "labels": ["rude", "kind"]},
    )
    async with started(model) as encoder:
        told = await encoder.encode(EncodingRequest("small", ("thanks", "idiot thanks"), task="classify"), timeout_s=20)
    kind, rude = told.vectors.numbers()
    assert told.labels == ("rude", "kind")
    assert kind[1] > kind[0]
    assert rude[0] == pytest.approx(1 / (1 + math.exp(-2)))
    assert sum(rude) == pytest.approx(1)
    assert told.usage.tokens_in == 3


async def test_a_cross_encoder_scores_each_document_beside_the_query(tmp_path: Path) -> None:
    """The graph counts the second text of a pair only, so a query that is taken for a document shows."""
    model = small_encoder(tmp_path, {"sea": (2.0,), "tax": (-1.0,)}, nodes="second", manifest={"task": "rerank", "activation": "sigmoid"})
    async with started(model) as encoder:
        told = await encoder.encode(EncodingRequest("small", ("sea", "tax", "sea sea"), task="rerank", query="tax tax"), timeout_s=20)
    assert [score for (score,) in told.vectors.numbers()] == pytest.approx([1 / (1 + math.exp(-x)) for x in (2, -1, 4)])


@pytest.mark.parametrize(
    ("manifest", "nodes", "words", "said"),
    [
        ({"task": "classify", "labels": ["one"]}, "sums", COMPASS, "2 numbers a text, and its manifest names 1 labels"),
        ({"task": "rerank"}, "sums", COMPASS, "2 numbers a pair"),
        ({"pooling": "mean"}, "sums", COMPASS, "a mean is made of rows of tokens"),
        ({"output": "dreams"}, "rows", COMPASS, "no output 'dreams' but told"),
        ({"inputs": {"mask": "m"}}, "rows", COMPASS, "its graph takes input_ids, attention_mask"),
    ],
)
async def test_a_model_that_is_not_what_its_manifest_says_is_not_loaded(
    tmp_path: Path, manifest: dict[str, Any], nodes: str, words: Mapping[str, Sequence[float]], said: str
) -> None:
    encoder = an_encoder(small_encoder(tmp_path, words, nodes=nodes, manifest=manifest))
    try:
        with pytest.raises(ModelFailed, match=said) as failure:
            await encoder.start()
        assert failure.value.definite
        assert encoder.state == "failed"
    finally:
        await encoder.close()


async def test_a_file_that_is_no_model_is_told_and_not_tried_again(tmp_path: Path) -> None:
    model = small_encoder(tmp_path, COMPASS)
    model.path.write_bytes(b"no protobuf at all")
    encoder = an_encoder(model)
    with pytest.raises(ModelFailed, match="cannot be loaded"):
        await encoder.start()
    assert encoder.stats.restarts == 0
    await encoder.close()


async def test_a_text_that_the_graph_fails_of_is_told_to_its_asker_and_disturbs_nobody(tmp_path: Path) -> None:
    async with started(small_encoder(tmp_path, COMPASS, unmade=["void"])) as encoder:
        before = encoder.worker_pid
        long = asyncio.create_task(vectors(encoder, *["east"] * (3 * ROWS_MAX)))
        for texts in (["void"], ["void", *["north"] * (3 * ROWS_MAX)]):
            with pytest.raises(ModelFailed, match="its graph failed") as failed:
                await vectors(encoder, *texts)
            assert failed.value.code == "model_provider_unavailable"
        assert await long == [[1.0, 0.0]] * (3 * ROWS_MAX)
        assert await vectors(encoder, "north") == [[0.0, 1.0]]
        assert (encoder.worker_pid, encoder.stats.restarts, encoder.stats.running) == (before, 0, 0)


async def test_a_length_that_the_graph_has_no_places_for_is_said_and_cut_to_what_it_has(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with started(small_encoder(tmp_path, COMPASS, manifest={"max_length": 600}, places=21)) as encoder:
        told = await encoder.encode(EncodingRequest("small", ("east " * 21, "east " * 22)), timeout_s=20)
        assert (told.usage.tokens_in, told.truncated) == (42, (1,))
    assert "reads 21 tokens of a text, not the 600 that it is asked for" in caplog.text
    assert "max_length" in caplog.text


async def test_a_graph_that_fails_of_every_text_is_not_loaded_and_not_tried_again(tmp_path: Path) -> None:
    encoder = an_encoder(small_encoder(tmp_path, COMPASS, takes=TensorProto.INT32))
    with pytest.raises(ModelFailed, match="its graph failed"):
        await encoder.start()
    assert encoder.stats.restarts == 0
    await encoder.close()


async def test_what_it_cannot_do_is_refused_by_name(tmp_path: Path) -> None:
    async with started(small_encoder(tmp_path, COMPASS)) as encoder:
        with pytest.raises(InvalidRequest, match="cannot classify; it can embed"):
            await encoder.encode(EncodingRequest("small", ("east",), task="classify"), timeout_s=20)
        with pytest.raises(InvalidRequest, match="2 dimensions, not 3") as refused:
            await encoder.encode(EncodingRequest("small", ("east",), dimensions=3), timeout_s=20)
        assert refused.value.param == "dimensions"
        with pytest.raises(InvalidRequest, match="0 texts"):
            await vectors(encoder)
        with pytest.raises(InvalidRequest, match=f"from 1 to {TEXTS_MAX}"):
            await vectors(encoder, *["east"] * (TEXTS_MAX + 1))
        assert await vectors(encoder, "east") == [[1.0, 0.0]]


async def test_a_worker_that_dies_is_started_again(tmp_path: Path) -> None:
    async with started(small_encoder(tmp_path, COMPASS)) as encoder:
        assert encoder.worker_pid is not None
        psutil.Process(encoder.worker_pid).kill()

        async def again() -> bool:
            return encoder.stats.restarts == 1

        await eventually(again, 5.0)
        assert await vectors(encoder, "north") == [[0.0, 1.0]]
    with pytest.raises(ModelUnavailable, match="unloaded"):
        await vectors(encoder, "north")


async def test_where_onnx_runtime_is_missing_the_command_that_brings_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OnnxEncoder, "needs", ("no_such_runtime",))
    with pytest.raises(MissingExtra) as missing:
        await an_encoder(small_encoder(tmp_path, COMPASS)).start()
    assert "astromesh-node[onnx]" in missing.value.hint
