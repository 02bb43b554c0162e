"""How many layers of a model go to which card: what fits goes there, what does not is said with its figures."""

from __future__ import annotations

from dataclasses import replace

import pytest

from astromesh.inference.devices import Accelerator, Inventory, Look
from astromesh.inference.gguf import GgufHeader, Weights
from astromesh.inference.placement import CARD_RESERVE_BYTES, CARD_SHARE, Placement, cells, plan_placement

GIB = 2**30
MIB = 2**20

# The shape of an 8B model of grouped attention in four bits: 32 layers of 128 MiB, 8 heads of keys and values of 128.
MODEL = GgufHeader(
    architecture="llama",
    title="Eight",
    licence="",
    quantisation="Q4_K_M",
    context=131_072,
    has_chat_template=True,
    split_count=0,
    layers=32,
    cache_values=32 * 8 * (128 + 128),
    vocabulary=128_256,
    bytes_min=5 * GIB,
    weights=Weights(layers=(128 * MIB,) * 32, output_bytes=410 * MIB, other_bytes=280 * MIB),
)
CACHE = 2 * cells(4096, 4) * MODEL.cache_values


def inventory(*free_bytes: int | None, shares_memory: bool = False, host: int | None = 64 * GIB) -> Inventory:
    cards = tuple(
        Accelerator(f"id{n}", f"Card {n}", "engine", 24 * GIB, free, engine=f"CUDA{n}", shares_memory=shares_memory)
        for n, free in enumerate(free_bytes)
    )
    return Inventory((Look("engine", "ok", found=cards),), memory_total_bytes=host, memory_free_bytes=host)


def plan(devices: Inventory, *, gpu_layers: int | None = None, context: int = 4096) -> Placement:
    return plan_placement(MODEL, devices, context=context, parallel=4, gpu_layers=gpu_layers)


def split(placement: Placement) -> list[int]:
    return [part.layers for part in placement.parts]


def test_a_model_that_fits_one_card_goes_there_whole() -> None:
    placement = plan(inventory(24 * GIB))
    assert (placement.gpu_layers, placement.layers, placement.tensor_split, placement.fits) == (33, 33, (33,), True)
    assert placement.cache_bytes == CACHE == 1 * GIB
    assert placement.weights_bytes == (32 * 128 + 410 + 280) * MIB
    assert placement.parts[0].needed_bytes >= 32 * 128 * MIB + 410 * MIB + CACHE
    # Only the embeddings stay.
    assert 280 * MIB <= placement.host_needed_bytes < 320 * MIB


def test_of_two_cards_with_room_the_emptier_one_gets_all_so_that_nothing_travels() -> None:
    assert plan(inventory(12 * GIB, 20 * GIB)).tensor_split == (0, 33)
    assert plan(inventory(12 * GIB, 12 * GIB)).tensor_split == (33, 0)


def test_a_model_too_large_for_one_card_is_spread_as_the_cards_have_room() -> None:
    placement = plan(inventory(4 * GIB, 4 * GIB))
    assert placement.gpu_layers == 33
    first, second = split(placement)
    assert abs(first - second) <= 4  # the output takes the room of three layers
    assert placement.fits is True
    uneven = split(plan(inventory(2 * GIB, 6 * GIB)))
    assert uneven[0] < uneven[1]


def test_every_card_keeps_the_room_that_it_needs() -> None:
    for free in ((24 * GIB,), (4 * GIB, 4 * GIB), (3 * GIB, 1 * GIB, 2 * GIB), (1 * GIB,), (2 * GIB, 700 * MIB)):
        placement = plan(inventory(*free))
        for part, room in zip(placement.parts, free, strict=True):
            assert part.needed_bytes <= room * CARD_SHARE
        assert placement.gpu_layers == sum(split(placement))


def test_of_a_model_too_large_for_all_cards_as_many_layers_as_fit_are_offloaded_from_the_end() -> None:
    placement = plan(inventory(3 * GIB))
    assert 0 < placement.gpu_layers < 33
    assert placement.fits is True
    more = plan(inventory(3 * GIB), gpu_layers=placement.gpu_layers + 1)
    assert more.parts[0].needed_bytes > 3 * GIB * CARD_SHARE
    # What is not on the card is in the machine's memory, and nothing is twice or nowhere.
    layer = 128 * MIB + CACHE // 32
    assert placement.parts[0].needed_bytes - (placement.gpu_layers - 1) * layer - 410 * MIB < CARD_RESERVE_BYTES + 64 * MIB
    assert placement.host_needed_bytes - (33 - placement.gpu_layers) * layer - 280 * MIB < 64 * MIB


def test_a_longer_context_leaves_room_for_fewer_layers() -> None:
    short, long = plan(inventory(6 * GIB)), plan(inventory(6 * GIB), context=32_768)
    assert long.gpu_layers < short.gpu_layers
    assert long.cache_bytes == 8 * short.cache_bytes


def test_more_context_than_the_model_was_trained_on_is_not_paid_for() -> None:
    trained = replace(MODEL, context=2048)
    assert plan_placement(trained, inventory(), context=4096, parallel=4).cache_bytes == CACHE // 2


def test_without_a_card_all_is_in_memory_and_the_figures_say_whether_it_fits() -> None:
    placement = plan(inventory(host=8 * GIB))
    assert (placement.gpu_layers, placement.tensor_split, placement.fits) == (0, (), True)
    assert placement.host_needed_bytes >= placement.weights_bytes + placement.cache_bytes
    assert plan(inventory(host=4 * GIB)).fits is False
    assert plan(inventory(host=None)).fits is None


def test_a_card_without_room_for_one_layer_is_left_alone() -> None:
    placement = plan(inventory(600 * MIB))
    assert placement.gpu_layers == 0
    assert "room" in placement.note


def test_a_card_that_does_not_tell_its_memory_gets_all_and_nobody_promises_that_it_fits() -> None:
    placement = plan(inventory(None))
    assert (placement.gpu_layers, placement.fits) == (33, None)


def test_a_number_that_somebody_chose_is_kept_and_judged() -> None:
    assert plan(inventory(24 * GIB), gpu_layers=10).gpu_layers == 10
    assert plan(inventory(24 * GIB), gpu_layers=0).gpu_layers == 0
    assert plan(inventory(24 * GIB), gpu_layers=-1).gpu_layers == 33
    assert plan(inventory(24 * GIB), gpu_layers=99).gpu_layers == 33
    forced = plan(inventory(2 * GIB, 2 * GIB), gpu_layers=-1)
    assert (forced.gpu_layers, forced.fits) == (33, False)
    assert sum(split(forced)) == 33


def test_a_card_without_memory_of_its_own_takes_the_machines() -> None:
    assert plan(inventory(24 * GIB, shares_memory=True, host=24 * GIB)).fits is True
    assert plan(inventory(24 * GIB, shares_memory=True, host=5 * GIB)).fits is False


def test_embeddings_that_serve_as_output_are_copied_to_a_card_and_not_counted_twice_in_memory() -> None:
    tied = replace(MODEL, weights=replace(MODEL.weights, output_copied=True))
    on_card, in_memory = (plan_placement(tied, devices, context=4096, parallel=4) for devices in (inventory(24 * GIB), inventory()))
    assert on_card.parts[0].needed_bytes == plan(inventory(24 * GIB)).parts[0].needed_bytes
    assert in_memory.host_needed_bytes == plan(inventory()).host_needed_bytes - 410 * MIB
    assert in_memory.weights_bytes == (32 * 128 + 280) * MIB


def test_a_card_that_the_engine_cannot_use_is_named_and_not_planned_with() -> None:
    seen = Look("nvidia", "ok", found=(Accelerator("GPU-1", "A card", "nvidia", 24 * GIB, 24 * GIB),))
    placement = plan(Inventory((seen, Look("engine", "absent")), 64 * GIB, 64 * GIB))
    assert placement.gpu_layers == 0
    assert "A card" in placement.note


@pytest.mark.parametrize("chosen", [None, -1, 5])
def test_the_plan_can_be_shown_as_json(chosen: int | None) -> None:
    shown = plan(inventory(4 * GIB, 4 * GIB), gpu_layers=chosen).as_json()
    assert shown["gpu_layers"] == sum(shown["tensor_split"]) == sum(device["layers"] for device in shown["devices"])
    assert {"needed_bytes", "free_bytes"} <= shown["devices"][0].keys()
    assert shown["host"]["free_bytes"] == 64 * GIB


def test_a_model_that_says_nothing_of_its_layers_is_all_in_memory() -> None:
    silent = replace(MODEL, cache_values=0, layers=0, weights=Weights(other_bytes=GIB))
    assert plan_placement(silent, inventory(), context=4096, parallel=4).host_needed_bytes >= GIB
