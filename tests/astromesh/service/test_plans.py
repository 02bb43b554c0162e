"""Whether a model fits, reckoned as it would be loaded: by what the configuration says of it, and with what it keeps of prompts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from tests.astromesh.inference.gguf_files import a_gguf
from tests.rig.rooms import Rooms
from tests.rig.small_encoders import small_encoder

from astromesh.inference.devices import Inventory
from astromesh.runtime.assembly import Providers
from astromesh.runtime.local_models import LocalModels
from astromesh.service.models import WORKER_BYTES, InstalledModels
from astromesh.service.settings import settle
from astromesh.service.shelf import Shelf
from astromesh.specs.parse import parse
from astromesh.specs.runtime import Runtime

MB = 1_000_000
Plan = Callable[..., Awaitable[dict[str, Any]]]


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    (tmp_path / "tiny.gguf").write_bytes(a_gguf(context=2048))
    small_encoder(tmp_path / "compass", {"east": (1.0, 0.0)})

    async def reckon(name: str = "tiny", *, free_mb: int = 10_000, budget_mb: int = 4000, **written: object) -> dict[str, Any]:
        path = {"tiny": "tiny.gguf"}.get(name, name)
        keys = "".join(f", {key}: {value}" for key, value in written.items())
        text = f"apiVersion: astromesh/v1\nkind: RuntimeConfig\nspec:\n  inference:\n    memory_budget_mb: {budget_mb}\n    models:\n"
        parsed = parse(text + f"      - {{name: {name}, path: {tmp_path / path}{keys}}}\n", source="runtime.yaml", environment={})
        (runtime,) = parsed.resources
        assert isinstance(runtime, Runtime)
        settings = settle(
            flags={}, environment={}, runtime=runtime, folder=tmp_path, data_default=tmp_path / "data", hostname="here"
        ).values
        rooms, local = Rooms(), LocalModels(lambda: None)
        survey = Inventory(memory_total_bytes=10**12, memory_free_bytes=free_mb * MB)
        installed = InstalledModels(settings, local=local, models=rooms.models, survey=lambda: survey)
        installed.open(runtime, providers=Providers({}), health=rooms.health)
        installed.store.pull(str(tmp_path / path), name=name)
        shelf = Shelf(installed)
        try:
            return await shelf.plan(name)
        finally:
            await shelf.close()

    return reckon


async def test_what_is_kept_of_prompts_is_part_of_what_a_model_takes(plan: Plan) -> None:
    little, much = await plan(prefix_cache_mb=1), await plan(prefix_cache_mb=2001)
    assert (little["prefix_cache_bytes"], much["prefix_cache_bytes"]) == (1 << 20, 2001 << 20)
    assert much["needed_bytes"] - little["needed_bytes"] == 2000 << 20
    assert little["needed_bytes"] == little["placement"]["host"]["needed_bytes"] + (1 << 20) + WORKER_BYTES
    assert (little["fits"], much["fits"]) == (True, True)
    assert (await plan(prefix_cache_mb=2001, budget_mb=2000))["fits"] is False  # more than models may take
    assert (await plan(prefix_cache_mb=2001, free_mb=2000))["fits"] is False  # more than is free
    assert (await plan(prefix_cache_mb=1, free_mb=2000))["fits"] is True


async def test_unsaid_a_model_keeps_an_eighth_of_the_budget_at_most(plan: Plan) -> None:
    assert [(await plan(budget_mb=budget))["prefix_cache_bytes"] for budget in (800, 100_000)] == [100 * MB, 512 << 20]


async def test_the_plan_is_for_the_context_and_the_streams_that_are_configured(plan: Plan) -> None:
    found = await plan(context=1000, parallel=1)
    assert (found["context"], found["parallel"]) == (1000, 1)
    assert found["placement"]["cache_bytes"] == 3 * 2 * 16 * 2 * 2 * 1000


async def test_an_encoder_is_planned_too_and_keeps_no_prompts(plan: Plan) -> None:
    found = await plan("compass")
    assert (found["placement"], found["prefix_cache_bytes"], found["fits"]) == (None, 0, None)
    assert found["needed_bytes"] > WORKER_BYTES
    assert (await plan("compass", budget_mb=60))["fits"] is False
