"""A node looks at its devices beside everything else, and tells the mesh what was found, and what could not be told."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Mapping

import pytest

from astromesh.fleet.devices import Gpu
from astromesh.inference.backends.devices.looking import Looker
from astromesh.inference.devices import Accelerator, Look, Source, write_look
from astromesh.service.devices import DeviceWatch

GIB = 2**30
NONE = Look("nvidia", "absent")
CARD = Accelerator("GPU-1", "A card", "nvidia", 24 * GIB, 20 * GIB, 37, pci="0:1")
IN_ENGINE = Accelerator("0:1", "A card", "engine", pci="0:1", engine="CUDA0")


async def after_the_first_look(looks: Mapping[Source, Look]) -> DeviceWatch:
    """Every source is a real process that says what it is told to."""
    commands: dict[Source, tuple[str, ...]] = {}
    for source in ("nvidia", "amd", "engine"):
        answer = write_look(looks.get(source, NONE))
        commands[source] = (sys.executable, "-c", f"print({json.dumps(json.dumps({'look': answer} if source == 'engine' else answer))})")
    looked = asyncio.Event()
    watch = DeviceWatch(changed=looked.set, looker=Looker(commands=commands), first_look_s=0.0)
    watch.open()
    try:
        async with asyncio.timeout(30):
            await looked.wait()
    finally:
        await watch.close()
    return watch


async def test_before_the_first_look_processor_and_memory_are_told_and_nobody_has_looked_for_cards() -> None:
    devices = DeviceWatch(changed=lambda: None).devices
    assert devices.cpu is not None
    assert devices.cpu.threads >= devices.cpu.cores >= 1
    assert devices.memory is not None
    assert devices.memory.total_bytes > devices.memory.free_bytes > 0
    assert devices.gpus is None


async def test_a_card_is_told_with_its_figures_and_whether_the_engine_can_use_it() -> None:
    seen = await after_the_first_look({"nvidia": Look("nvidia", "ok", found=(CARD,))})
    assert seen.devices.gpus == (Gpu("A card", "GPU-1", 24 * GIB, 20 * GIB, 37, usable=False),)
    both = {"nvidia": Look("nvidia", "ok", found=(CARD,)), "engine": Look("engine", "ok", found=(IN_ENGINE,))}
    usable = (await after_the_first_look(both)).devices.gpus
    assert usable is not None
    assert [gpu.usable for gpu in usable] == [True]


async def test_no_card_is_an_answer_and_a_look_that_failed_is_none(caplog: pytest.LogCaptureFixture) -> None:
    assert (await after_the_first_look({})).devices.gpus == ()
    failed = (await after_the_first_look({"nvidia": Look("nvidia", "failed", "it hangs")})).devices
    assert (failed.gpus, failed.troubles) == (None, ("nvidia: it hangs",))
    assert "it hangs" in caplog.text


def test_a_node_imports_no_library_of_a_driver_or_an_engine() -> None:
    code = "import sys; import astromesh.service.node; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "astromesh.service.devices" in loaded
    heavy = ("pynvml", "llama_cpp", "xllamacpp", "numpy")
    processes = tuple(f"astromesh.inference.backends.devices.{source}" for source in ("nvidia", "amd", "engine"))
    assert [name for name in (*heavy, *processes) if name in loaded] == []
