"""What a node computes with, as others read it."""

from __future__ import annotations

from dataclasses import replace

import msgpack
import pytest

from astromesh.fleet.devices import GPUS_MAX, SLOT, Cpu, Devices, Gpu, Memory, read, write

CPU = Cpu("A processor", 4, 8, "abc", ("avx2", "fma"))
GIB = 2**30
GPU = Gpu("A card", "GPU-1", 24 * GIB, None)


@pytest.mark.parametrize(
    "devices",
    [
        Devices(),
        Devices(CPU),
        Devices(CPU, Memory(16 * GIB, 3 * GIB)),
        Devices(CPU, gpus=()),
        Devices(None, None, (GPU, Gpu("b", "c"))),
        Devices(gpus=(Gpu("a", "b", 16 * GIB, 2 * GIB, 40, usable=True), Gpu("a", "c", usable=False, note="it is ill"))),
        Devices(CPU, troubles=("nvidia: it hangs",)),
    ],
)
def test_what_is_written_is_read(devices: Devices) -> None:
    assert read({SLOT: write(devices)}) == devices


def test_nobody_has_looked_differs_from_none_found() -> None:
    assert write(Devices(CPU)) != write(Devices(CPU, gpus=()))


def test_free_memory_is_told_in_sixteenths_so_that_it_seldom_changes() -> None:
    assert read({SLOT: write(Devices(memory=Memory(16 * GIB, 3 * GIB + 12345)))}) == Devices(memory=Memory(16 * GIB, 3 * GIB))
    assert write(Devices(memory=Memory(16 * GIB, 3 * GIB + 1))) == write(Devices(memory=Memory(16 * GIB, 4 * GIB - 1)))


def test_what_a_card_does_is_told_coarsely_so_that_it_seldom_changes() -> None:
    def told(free_bytes: int, busy: int) -> bytes:
        return write(Devices(gpus=(Gpu("a", "b", 16 * GIB, free_bytes, busy),)))

    assert told(3 * GIB + 1, 41) == told(4 * GIB - 1, 44)
    assert told(3 * GIB, 41) != told(4 * GIB, 41)
    assert told(3 * GIB, 41) != told(3 * GIB, 49)


def test_of_a_long_id_so_much_travels_that_cards_of_one_node_differ() -> None:
    cards = tuple(Gpu("a", told) for told in ("GPU-1a2b3c4d-0000-0000", "GPU-1a2b3c4e-0000-0000", "0000:c1:00.0", "0000:c2:00.0"))
    found = read({SLOT: write(Devices(gpus=cards))})
    assert found is not None
    assert [gpu.id for gpu in found.gpus or ()] == ["GPU-1a2b3c4d", "GPU-1a2b3c4e", "0000:c1:00.0", "0000:c2:00.0"]


def test_sixteen_large_cards_fit_a_packet_and_more_are_cut() -> None:
    cards = tuple(Gpu("An accelerator of a long name", f"GPU-{number:08}", 80 * GIB, 80 * GIB, 90, True) for number in range(GPUS_MAX + 3))
    value = write(Devices(CPU, Memory(GIB, GIB), cards))
    assert len(value) <= 1100
    assert read({SLOT: value}) == Devices(CPU, Memory(GIB, GIB // 16 * 16), cards[:GPUS_MAX])


@pytest.mark.parametrize(
    "rows",
    [7, {"cpu": 1}, [7, None, []], [["cpu"], ["cpu", 1, 2, 3, 4], ["memory", "much", "little"], ["gpus", 3], ["gpus", [["x"], 7]]]],
)
def test_what_is_malformed_says_nothing(rows: object) -> None:
    found = read({SLOT: msgpack.packb(rows)})
    assert found is not None
    assert (found.cpu, found.memory) == (None, None)
    assert not found.gpus


def test_what_a_newer_node_adds_is_ignored() -> None:
    rows = [["cpu", "A processor", 4, 8, "abc", "more"], ["npu", "new"], ["memory", 32, 16, 8]]
    assert read({SLOT: msgpack.packb(rows)}) == Devices(replace(CPU, features=()), Memory(32, 16))
    assert read({SLOT: msgpack.packb([["gpus", [["a", "b", 1, None, 10, True, "note", "more"]]]])}) == Devices(
        gpus=(Gpu("a", "b", 1, None, 10, usable=True, note="note"),)
    )
    assert read({SLOT: msgpack.packb([["gpus", [["a", "b", 1, None, "busy", 7, 8]]]])}) == Devices(gpus=(Gpu("a", "b", 1),))
    assert read({SLOT: b"\xc1"}) is None
    assert read({}) is None


def test_people_see_a_row_for_each() -> None:
    assert [row["kind"] for row in Devices(CPU, Memory(1, 1), (GPU,)).as_json()] == ["cpu", "memory", "gpu"]
    assert Devices().as_json() == []
