"""What several sources say of one machine, put together; and what a processor can do."""

from __future__ import annotations

import pytest

from astromesh.inference.devices import Accelerator, Inventory, Look, merged, processor, read_flags, read_look, write_look

GIB = 2**30


def card(number: int, *, pci: str = "", free: int | None = 8 * GIB, name: str = "A card") -> Accelerator:
    return Accelerator(f"GPU-{number}", name, "nvidia", 24 * GIB, free, 37, pci=pci, driver="999")


def seen(engine: str, *, pci: str = "", name: str = "A card", shares_memory: bool = False) -> Accelerator:
    return Accelerator(pci or engine, name, "engine", 24 * GIB, 1, pci=pci, engine=engine, shares_memory=shares_memory)


def test_a_card_is_known_by_its_place_on_the_bus_however_that_is_written() -> None:
    found = merged(
        (Look("nvidia", "ok", found=(card(1, pci="00000000:C1:00.0"),)), Look("engine", "ok", found=(seen("CUDA0", pci="0000:c1:00.0"),)))
    )
    assert [(one.id, one.engine, one.free_bytes) for one in found] == [("GPU-1", "CUDA0", 8 * GIB)]


def test_cards_of_one_name_without_a_bus_are_paired_in_their_order() -> None:
    found = merged((Look("nvidia", "ok", found=(card(1), card(2))), Look("engine", "ok", found=(seen("CUDA0"), seen("CUDA1")))))
    assert [(one.id, one.engine) for one in found] == [("GPU-1", "CUDA0"), ("GPU-2", "CUDA1")]


def test_cards_that_differ_stay_two() -> None:
    looks = (Look("nvidia", "ok", found=(card(1, pci="0000:c1:00.0"),)), Look("engine", "ok", found=(seen("Vulkan0", pci="0000:03:00.0"),)))
    assert len(merged(looks)) == 2


def test_what_the_driver_leaves_open_the_engine_fills() -> None:
    found = merged((Look("nvidia", "ok", found=(card(1, free=None),)), Look("engine", "ok", found=(seen("CUDA0"),))))
    assert (found[0].free_bytes, found[0].utilisation_percent) == (1, 37)


def test_usable_is_what_the_engine_can_use_in_its_own_order() -> None:
    looks = (
        Look("nvidia", "ok", found=(card(1, pci="0:1"), card(2, pci="0:2"), card(3, pci="0:3"))),
        Look("engine", "ok", found=(seen("CUDA0", pci="0:3"), seen("CUDA1", pci="0:1"))),
    )
    assert [one.id for one in Inventory(looks).usable] == ["GPU-3", "GPU-1"]
    assert [one.id for one in Inventory(looks[:1]).usable] == []


def test_a_graphics_unit_beside_the_processor_counts_only_where_there_is_no_card() -> None:
    unit, real = seen("Vulkan0", pci="0:1", shares_memory=True), seen("Vulkan1", pci="0:2")
    assert [one.engine for one in Inventory((Look("engine", "ok", found=(unit, real)),)).usable] == ["Vulkan1"]
    assert [one.engine for one in Inventory((Look("engine", "ok", found=(unit,)),)).usable] == ["Vulkan0"]


def test_what_is_absent_is_no_trouble_and_what_failed_is() -> None:
    looks = (Look("nvidia", "failed", "it hangs"), Look("amd", "absent", "none"), Look("engine", "degraded", "half"))
    assert Inventory(looks).troubles == ("nvidia: it hangs", "engine: half")


def test_a_look_that_is_written_is_read() -> None:
    look = Look("nvidia", "degraded", "a reason", (card(1, pci="0:1", free=None),))
    assert read_look(write_look(look), source="nvidia") == look


@pytest.mark.parametrize(
    "answer",
    [
        None,
        [],
        {},
        {"state": "fine", "reason": "", "found": []},
        {"state": "ok", "reason": "", "found": [{"id": 3}]},
        {"state": "ok", "found": []},
    ],
)
def test_what_is_no_look_is_refused(answer: object) -> None:
    with pytest.raises(ValueError, match="nvidia"):
        read_look(answer, source="nvidia")


def test_the_features_of_a_processor_that_matter_are_named_as_people_name_them() -> None:
    intel = "model name\t: A processor\nflags\t\t: sse avx avx2 fma avx512f avx512_bf16 amx_tile\n\nmodel name\t: Another\nflags: sse\n"
    told = processor(intel, otherwise="x86_64", cores=4, threads=8)
    assert (told.name, told.cores, told.threads) == ("A processor", 4, 8)
    assert told.features == ("avx", "avx2", "fma", "avx512f", "avx512-bf16", "amx-tile")
    arm = processor("Features\t: fp asimd asimddp bf16 i8mm\n", otherwise="aarch64", cores=4, threads=4)
    assert (arm.name, arm.features) == ("aarch64", ("neon", "dotprod", "bf16", "i8mm"))


def test_equal_flags_make_one_digest_whatever_their_order() -> None:
    def digest(flags: str) -> str:
        return processor(f"flags : {flags}", otherwise="", cores=1, threads=1).digest

    assert digest("avx2 fma sse") == digest("sse avx2 fma") != digest("fma sse")
    assert digest("") == ""
    assert read_flags("nothing to see") == ("", ())
