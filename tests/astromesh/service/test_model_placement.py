"""Where the layers of a model go: planned from the free memory of the cards before each load, unless somebody chose a number."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.astromesh.inference.gguf_files import a_gguf
from tests.rig.rooms import Rooms

from astromesh.inference.devices import Accelerator, Inventory, Look
from astromesh.inference.port import ModelSpecification
from astromesh.runtime.assembly import Providers
from astromesh.runtime.local_models import LocalModels
from astromesh.runtime.own_model import FoundModel
from astromesh.service.models import InstalledModels
from astromesh.service.settings import settle
from astromesh.specs.parse import parse
from astromesh.specs.runtime import Runtime

GIB = 2**30


class Loads(LocalModels):
    """Remembers how each model is found, which is what a load begins with."""

    def __init__(self) -> None:
        super().__init__(lambda: None)
        self.find: Callable[..., FoundModel] | None = None

    def add_own(self, name: str, find: Any, **how: Any) -> Any:
        self.find = find
        return super().add_own(name, find, **how)


def cards(*free_bytes: int) -> Inventory:
    found = tuple(Accelerator(f"id{n}", f"Card {n}", "engine", 24 * GIB, free, engine=f"CUDA{n}") for n, free in enumerate(free_bytes))
    return Inventory((Look("engine", "ok" if found else "absent", found=found),), 64 * GIB, 64 * GIB)


@pytest.fixture
def found(tmp_path: Path) -> Callable[..., ModelSpecification]:
    (tmp_path / "tiny.gguf").write_bytes(a_gguf())

    def find(written: str, seen: Inventory) -> ModelSpecification:
        text = "apiVersion: astromesh/v1\nkind: RuntimeConfig\nspec:\n  inference:\n    models:\n"
        parsed = parse(text + f"      - {{name: tiny, path: {tmp_path / 'tiny.gguf'}{written}}}\n", source="runtime.yaml", environment={})
        assert [str(mistake) for mistake in parsed.mistakes] == []
        (runtime,) = parsed.resources
        assert isinstance(runtime, Runtime)
        settings = settle(
            flags={}, environment={}, runtime=runtime, folder=tmp_path, data_default=tmp_path / "data", hostname="here"
        ).values
        rooms, loads = Rooms(), Loads()
        InstalledModels(settings, local=loads, models=rooms.models, survey=lambda: seen).open(
            runtime, providers=Providers({}), health=rooms.health
        )
        assert loads.find is not None
        return loads.find(lambda *_: None).specification

    return find


@pytest.mark.parametrize("written", ["", ", gpu_layers: auto"])
def test_unsaid_or_auto_the_cards_get_what_they_have_room_for(found: Callable[..., ModelSpecification], written: str) -> None:
    roomy = found(written, cards(2 * GIB, 8 * GIB))
    assert (roomy.gpu_layers, roomy.tensor_split) == (1, (0, 1))
    full = found(written, cards(GIB // 4))
    assert (full.gpu_layers, full.tensor_split) == (0, ())


def test_without_a_card_it_is_left_to_the_engine(found: Callable[..., ModelSpecification]) -> None:
    specification = found("", cards())
    assert (specification.gpu_layers, specification.tensor_split) == (-1, ())


@pytest.mark.parametrize("chosen", [-1, 0, 7])
@pytest.mark.parametrize("seen", [cards(), cards(8 * GIB)])
def test_a_number_that_somebody_chose_stays(found: Callable[..., ModelSpecification], chosen: int, seen: Inventory) -> None:
    assert found(f", gpu_layers: {chosen}", seen).gpu_layers == chosen
