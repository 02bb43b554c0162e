"""A witness of each test, who is asked in the end whether the test saw what it is said to show."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.contracts.shown import claims
from tests.contracts.witness import Witness
from tests.rig.stub_openai import StubOpenAI

HERE = Path(__file__).resolve().parent


COLLECTED = pytest.StashKey[set[str]]()  # the tests of this folder, before any is deselected


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    config.stash[COLLECTED] = {f"{item.path.stem}::{item.name}" for item in items if item.path.parent == HERE}


@pytest.fixture
async def witness(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Witness]:
    watching = Witness(tmp_path)
    yield watching
    file, test = request.node.path.stem, request.node.name
    unseen = [item for item in claims(file, test) if not item.startswith("behaviour: ") and item not in watching.seen]
    assert unseen == [], "said to be shown by this test, and never seen by it"


@pytest.fixture
async def stub() -> AsyncIterator[StubOpenAI]:
    async with StubOpenAI(models=["stub", "other"], pause_s=0.02) as server:
        yield server
