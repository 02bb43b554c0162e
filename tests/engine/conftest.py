"""The real engine and a real model. Where one is missing these tests fail and say what brings it: a skip would look like a pass."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from astromesh.inference.backends.folder import open_store
from astromesh.inference.backends.llama_cpp.engine import LlamaCppEngine
from astromesh.inference.engines import HOW_TO_GET_ONE
from astromesh.inference.manifest import StoredModel
from astromesh.inference.port import ModelSpecification
from astromesh.inference.store import ModelStore


def a_store() -> ModelStore:
    """In a cache outside the checkout."""
    return open_store(Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "astromesh" / "models")


@pytest.fixture(scope="session")
def smollm2() -> StoredModel:
    """SmolLM2-135M, installed through the store itself, once."""
    if not LlamaCppEngine.installed():
        pytest.fail(f"these tests need the compiled engine: {HOW_TO_GET_ONE}", pytrace=False)
    return a_store().pull("smollm2")


@pytest.fixture
def specification(smollm2: StoredModel) -> ModelSpecification:
    return ModelSpecification("smollm2", smollm2.path, smollm2.sha256)


@pytest.fixture
async def engine(specification: ModelSpecification) -> AsyncIterator[LlamaCppEngine]:
    engine = LlamaCppEngine(specification)
    await engine.start()
    yield engine
    await engine.close()
