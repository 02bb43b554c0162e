"""What is found of cards and drivers: each answer and each failure of a real library call, in the processes that really ask."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest
from tests.rig.c_library import compiled
from tests.rig.eventually import eventually

from astromesh.inference.backends.devices.looking import Looker, beyond_the_processor
from astromesh.inference.devices import Inventory, Look

pytestmark = pytest.mark.processes
GIB = 2**30
NOT_SUPPORTED, DRIVER_NOT_LOADED, FUNCTION_NOT_FOUND, VERSION_MISMATCH, UNKNOWN = 3, 9, 13, 18, 999


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`nvml`, `old-nvml`: folders with NVIDIA's library; `engine`: one with an engine's."""
    root = tmp_path_factory.mktemp("libraries")
    compiled("nvml_stub.c", root / "nvml" / "libnvidia-ml.so.1")
    compiled("nvml_stub.c", root / "old-nvml" / "libnvidia-ml.so.1", "-DOLD")
    for name in ("ggml", "ggml-base", "llama"):
        compiled("ggml_stub.c", root / "engine" / f"lib{name}.so")
    return root


@pytest.fixture
def nvidia(libraries: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setenv("LD_LIBRARY_PATH", str(libraries / "nvml"))
    return monkeypatch


def ask_nvidia() -> Look:
    return Looker().look("nvidia")


def test_a_card_is_told_with_all_its_figures(nvidia: pytest.MonkeyPatch) -> None:
    look = ask_nvidia()
    (card,) = look.found
    assert (look.state, look.reason) == ("ok", "")
    assert (card.name, card.id, card.pci, card.driver) == (
        "NVIDIA Stub 4090",
        "GPU-00000001-0000-0000-0000-000000000000",
        "0000:c1:00.0",
        "999.1",
    )
    assert (card.total_bytes, card.free_bytes, card.utilisation_percent) == (24 * GIB, 20 * GIB + GIB // 2, 37)


def test_two_cards_are_two(nvidia: pytest.MonkeyPatch) -> None:
    nvidia.setenv("STUB_NVML_CARDS", "2")
    look = ask_nvidia()
    assert look.state == "ok"
    assert len({card.id for card in look.found}) == 2


def test_a_driver_without_a_card_has_none(nvidia: pytest.MonkeyPatch) -> None:
    nvidia.setenv("STUB_NVML_CARDS", "0")
    assert (ask_nvidia().state, ask_nvidia().found) == ("absent", ())


def test_without_a_driver_there_are_no_cards_and_that_is_a_normal_answer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    look = ask_nvidia()
    assert (look.state, look.found) == ("absent", ())
    assert "driver" in look.reason


@pytest.mark.parametrize(
    ("code", "state", "said"),
    [
        (DRIVER_NOT_LOADED, "degraded", "not loaded"),
        (VERSION_MISMATCH, "degraded", "restart"),
        (FUNCTION_NOT_FOUND, "failed", "too old"),
        (UNKNOWN, "failed", "NVML 999"),
    ],
)
def test_a_driver_that_does_not_start_is_not_the_same_as_no_card(nvidia: pytest.MonkeyPatch, code: int, state: str, said: str) -> None:
    nvidia.setenv("STUB_NVML_INIT", str(code))
    look = ask_nvidia()
    assert (look.state, look.found) == (state, ())
    assert said in look.reason


def test_a_figure_that_a_card_does_not_tell_is_unknown_and_not_0(nvidia: pytest.MonkeyPatch) -> None:
    nvidia.setenv("STUB_NVML_MEMORY", str(NOT_SUPPORTED))
    (card,) = ask_nvidia().found
    assert (card.total_bytes, card.free_bytes, card.utilisation_percent) == (None, None, 37)
    nvidia.setenv("STUB_NVML_RATES", str(NOT_SUPPORTED))
    (card,) = ask_nvidia().found
    assert card.utilisation_percent is None
    assert card.name == "NVIDIA Stub 4090"


def test_a_library_that_lacks_functions_tells_what_it_can(nvidia: pytest.MonkeyPatch, libraries: Path) -> None:
    nvidia.setenv("LD_LIBRARY_PATH", str(libraries / "old-nvml"))
    look = ask_nvidia()
    (card,) = look.found
    assert look.state == "ok"
    assert (card.total_bytes, card.free_bytes, card.utilisation_percent, card.pci) == (24 * GIB, 20 * GIB, None, "")


def test_a_card_that_fell_off_its_bus_does_not_hide_the_others(nvidia: pytest.MonkeyPatch) -> None:
    nvidia.setenv("STUB_NVML_CARDS", "2")
    nvidia.setenv("STUB_NVML_LOST", "0")
    look = ask_nvidia()
    lost, well = look.found
    assert look.state == "degraded"
    assert "NVML 15" in lost.note
    assert (lost.total_bytes, well.total_bytes) == (None, 24 * GIB)


def test_a_driver_that_hangs_costs_its_time_and_says_so(nvidia: pytest.MonkeyPatch) -> None:
    nvidia.setenv("STUB_NVML_HANG", "1")
    look = Looker(timeout_s=1.0).look("nvidia")
    assert look.state == "failed"
    assert "within 1 s" in look.reason


async def test_who_stops_does_not_wait_for_a_driver_that_hangs(nvidia: pytest.MonkeyPatch) -> None:
    nvidia.setenv("STUB_NVML_HANG", "1")
    looker = Looker(timeout_s=1000.0)
    look = asyncio.create_task(asyncio.to_thread(looker.look, "nvidia"))

    async def asked() -> bool:
        return looker.asking

    await eventually(asked, 2.0)
    looker.stop()
    assert (await look).state == "failed"
    assert "shutting down" in looker.look("nvidia").reason


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGILL)", "built for another"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "SIGSEGV"),
        ("raise SystemExit('out of cheese')", "out of cheese"),
        ("print('no answer')", "no answer"),
        ("print('[1]')", "no answer"),
        ('print(\'{"state": "ok", "reason": "", "found": [{}]}\')', "malformed"),
    ],
)
def test_a_process_that_dies_or_talks_nonsense_is_a_failed_look_and_never_no_card(program: str, said: str) -> None:
    look = Looker(commands={"nvidia": (sys.executable, "-c", program)}).look("nvidia")
    assert (look.state, look.found) == ("failed", ())
    assert said in look.reason


# AMD's cards are files.


def a_card(sysfs: Path, name: str, **files: str) -> Path:
    folder = sysfs / "class" / "drm" / name / "device"
    folder.mkdir(parents=True)
    for file, text in files.items():
        (folder / file).write_text(text + "\n")
    return folder


UEVENT = "DRIVER=amdgpu\nPCI_ID=1002:744C\nPCI_SLOT_NAME=0000:03:00.0"


def ask_amd(sysfs: Path) -> Look:
    return Looker(commands={"amd": (sys.executable, "-P", "-m", "astromesh.inference.backends.devices.amd", str(sysfs))}).look("amd")


def test_amds_cards_are_read_from_files(tmp_path: Path) -> None:
    a_card(tmp_path, "card1", vendor="0x8086", uevent="DRIVER=i915")
    told = {"mem_info_vram_total": str(16 * GIB), "mem_info_vram_used": str(GIB), "gpu_busy_percent": "12", "unique_id": "83a1b2c3"}
    a_card(tmp_path, "card0", vendor="0x1002", uevent=UEVENT, product_name="Radeon of a kind", **told)
    (tmp_path / "class" / "drm" / "card0-DP-1").mkdir()
    look = ask_amd(tmp_path)
    (card,) = look.found
    assert look.state == "ok"
    assert (card.id, card.name, card.pci, card.driver) == ("83a1b2c3", "Radeon of a kind", "0000:03:00.0", "amdgpu")
    assert (card.total_bytes, card.free_bytes, card.utilisation_percent) == (16 * GIB, 15 * GIB, 12)


def test_what_amds_files_do_not_say_is_unknown(tmp_path: Path) -> None:
    a_card(tmp_path, "card0", vendor="0x1002", uevent=UEVENT, mem_info_vram_total="much")
    (card,) = ask_amd(tmp_path).found
    assert (card.id, card.name) == ("0000:03:00.0", "AMD graphics 1002:744C")
    assert (card.total_bytes, card.free_bytes, card.utilisation_percent) == (None, None, None)


def test_a_card_with_another_driver_is_degraded(tmp_path: Path) -> None:
    a_card(tmp_path, "card0", vendor="0x1002", uevent="DRIVER=vfio-pci")
    look = ask_amd(tmp_path)
    assert look.state == "degraded"
    assert "vfio-pci" in look.reason


def test_without_cards_of_amd_there_are_none(tmp_path: Path) -> None:
    assert ask_amd(tmp_path).state == "absent"


# The engine knows what it can use.


def ask_engine(folder: Path) -> Looker:
    return Looker(commands={"engine": (sys.executable, "-P", "-m", "astromesh.inference.backends.devices.engine", str(folder))})


def test_the_engine_tells_its_backends_its_build_and_the_cards_that_it_can_use(libraries: Path) -> None:
    looker = ask_engine(libraries / "engine")
    report = looker.report()
    assert (report["backends"], report["system"]) == (["CUDA", "CPU"], "CUDA : ARCHS = 890 | CPU : AVX2 = 1 | AVX512 = 0 |")
    first, second = looker.look("engine").found
    assert (first.engine, first.pci, first.total_bytes, first.free_bytes) == ("CUDA0", "0000:c1:00.0", 24 * GIB, 20 * GIB)
    assert (second.engine, second.total_bytes, second.free_bytes) == ("CUDA1", None, None)


def test_a_card_that_driver_and_engine_know_is_one_card_with_the_drivers_figures(nvidia: pytest.MonkeyPatch, libraries: Path) -> None:
    nvidia.setenv("STUB_NVML_CARDS", "2")
    found = Inventory((ask_nvidia(), ask_engine(libraries / "engine").look("engine")))
    assert [(card.engine, card.id[:12], card.free_bytes) for card in found.accelerators] == [
        ("CUDA0", "GPU-00000001", 20 * GIB + GIB // 2),
        ("CUDA1", "GPU-00000002", 20 * GIB + GIB // 2),
    ]
    assert found.usable == found.accelerators


def test_an_engine_that_is_not_whole_is_a_failed_look(tmp_path: Path) -> None:
    look = ask_engine(tmp_path).look("engine")
    assert look.state == "failed"
    assert "ggml" in look.reason


def test_an_engine_for_the_processor_alone_is_known_by_its_libraries(tmp_path: Path) -> None:
    for name in ("libggml-base.so", "libggml-cpu.so.0", "libggml-cpu-haswell.so", "libggml.so"):
        (tmp_path / name).touch()
    assert not beyond_the_processor(tmp_path)
    (tmp_path / "libggml-vulkan.so").touch()
    assert beyond_the_processor(tmp_path)
