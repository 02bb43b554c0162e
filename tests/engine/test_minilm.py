"""MiniLM, 8 bits, as the store installs it: its vectors are those that its tokenizer and its graph make without any of our code."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import onnxruntime
import pytest
from tests.engine.conftest import a_store
from tokenizers import Tokenizer

from astromesh.dialogue import EncodingRequest
from astromesh.inference.backends.onnx_runtime.engine import OnnxEncoder
from astromesh.inference.manifest import StoredModel
from astromesh.inference.port import ModelSpecification

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]

TEXTS = (
    "The keeper of the lighthouse counted the ships.",
    "How do I reset my password?",
    "I forgot my passphrase and cannot log in.",
    "Grüße aus Köln: 3 € für ein Eis 🍦",
    "x",
)
LONG = "a ship came in and a ship went out " * 60  # of 540 tokens, and the model reads 256
TOLERANCE = 1e-2


@pytest.fixture(scope="module")
def minilm() -> StoredModel:
    return a_store().pull("minilm")


@pytest.fixture
async def encoder(minilm: StoredModel) -> AsyncIterator[OnnxEncoder]:
    tokenizer = minilm.file("tokenizer")
    assert tokenizer is not None
    specification = ModelSpecification(
        "minilm", minilm.path, minilm.sha256, context=minilm.context or 0, kind="onnx", tokenizer=tokenizer.path
    )
    encoder = OnnxEncoder(specification)
    try:
        await encoder.start()
        yield encoder
    finally:
        await encoder.close()


def reference(model: StoredModel, text: str, *, tokens: int = 256) -> Any:
    """One text alone, without padding."""
    file = model.file("tokenizer")
    assert file is not None
    tokenizer = Tokenizer.from_file(str(file.path))
    tokenizer.no_padding()
    tokenizer.enable_truncation(tokens)
    encoding = tokenizer.encode(text)
    session = onnxruntime.InferenceSession(str(model.path), providers=["CPUExecutionProvider"])
    ids = np.array([encoding.ids], dtype=np.int64)
    (told,) = session.run(None, {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)})
    mean = told[0].mean(axis=0)
    return mean / np.linalg.norm(mean)


async def test_vectors_are_those_of_the_model_itself(minilm: StoredModel, encoder: OnnxEncoder) -> None:
    made = await encoder.encode(EncodingRequest("minilm", (*TEXTS, LONG)), timeout_s=60)
    rows = np.array(list(made.vectors.numbers()))
    assert rows.shape == (6, 384)
    assert made.truncated == (5,)
    assert np.linalg.norm(rows, axis=1) == pytest.approx(np.ones(6), abs=1e-5)
    for text, row in zip((*TEXTS, LONG), rows, strict=True):
        assert np.abs(row - reference(minilm, text)).max() < TOLERANCE


async def test_what_means_the_same_is_near(encoder: OnnxEncoder) -> None:
    made = await encoder.encode(EncodingRequest("minilm", TEXTS), timeout_s=60)
    ships, password, passphrase, *_ = np.array(list(made.vectors.numbers()))
    assert password @ passphrase > 0.5
    assert abs(password @ ships) < 0.2
