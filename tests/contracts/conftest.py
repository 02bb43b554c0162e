"""A witness of each test, who is asked in the end whether the test saw what it is said to show."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.contracts.shown import claims
from tests.contracts.witness import Witness
from tests.rig.stub_openai import StubOpenAI


@pytest.fixture
async def witness(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Witness]:
    watching = Witness(tmp_path)
    yield watching
    file, test = Path(str(request.node.fspath)).stem, request.node.name
    unseen = [item for item in claims(file, test) if not item.startswith("behaviour: ") and item not in watching.seen]
    assert unseen == [], "said to be shown by this test, and never seen by it"


@pytest.fixture
async def stub() -> AsyncIterator[StubOpenAI]:
    async with StubOpenAI(models=["stub", "other"], pause_s=0.02) as server:
        yield server
