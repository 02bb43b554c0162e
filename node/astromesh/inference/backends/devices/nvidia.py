"""NVIDIA's cards, as their driver tells: `python -m astromesh.inference.backends.devices.nvidia`. The only file that imports `pynvml`.

Every figure is asked for by itself: cards of one driver differ in what they tell, and what one does not tell stays unknown.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from astromesh.inference.backends.devices.answering import begin, say
from astromesh.inference.devices import Accelerator, Look, bus_address, write_look

# Of nvml.h.
_NOT_SUPPORTED, _NO_PERMISSION, _DRIVER_NOT_LOADED, _LIBRARY_NOT_FOUND, _FUNCTION_NOT_FOUND, _VERSION_MISMATCH = 3, 4, 9, 12, 13, 18
_UNTOLD = (_NOT_SUPPORTED, _NO_PERMISSION, _FUNCTION_NOT_FOUND)


def look() -> Look:
    try:
        import pynvml as nvml
    except ImportError as error:
        if sys.platform == "darwin":
            return Look("nvidia", "absent", "there are no drivers of NVIDIA for this system")
        return Look("nvidia", "failed", f"nvidia-ml-py cannot be imported: {error}")
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        return _refused(error)
    try:
        driver = _text(_told(nvml, nvml.nvmlSystemGetDriverVersion)[0])
        cards = [_card(nvml, index, driver) for index in range(nvml.nvmlDeviceGetCount())]
    except nvml.NVMLError as error:
        return Look("nvidia", "failed", f"the driver does not tell its cards: {_in_words(error)}")
    ill = [card for card in cards if card.note and card.total_bytes is None and card.utilisation_percent is None]
    if not cards:
        return Look("nvidia", "absent", "the driver is loaded and has no card")
    if ill:
        return Look("nvidia", "degraded", f"{ill[0].name}: {ill[0].note}", tuple(cards))
    return Look("nvidia", "ok", found=tuple(cards))


def _refused(error: Any) -> Look:
    match error.value:
        case code if code == _LIBRARY_NOT_FOUND:
            return Look("nvidia", "absent", "no driver of NVIDIA is installed")
        case code if code == _DRIVER_NOT_LOADED:
            return Look(
                "nvidia", "degraded", "NVIDIA's library is installed and its driver is not loaded: try 'modprobe nvidia', or restart"
            )
        case code if code == _VERSION_MISMATCH:
            return Look("nvidia", "degraded", "NVIDIA's library and the loaded driver are of two versions: restart after the update")
        case code if code == _FUNCTION_NOT_FOUND:
            return Look("nvidia", "failed", "NVIDIA's library lacks functions that this program asks for: its driver is too old")
        case _:
            return Look("nvidia", "failed", f"NVIDIA's driver does not start: {_in_words(error)}")


def _card(nvml: Any, index: int, driver: str) -> Accelerator:
    try:
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
    except nvml.NVMLError as error:
        # One card that fell off its bus must not hide the others.
        return Accelerator(f"index-{index}", f"NVIDIA card {index}", "nvidia", driver=driver, note=_in_words(error))
    name, _ = _told(nvml, nvml.nvmlDeviceGetName, handle)
    uuid, _ = _told(nvml, nvml.nvmlDeviceGetUUID, handle)
    place, _ = _told(nvml, nvml.nvmlDeviceGetPciInfo, handle)
    memory, wrong = _memory(nvml, handle)
    rates, _ = _told(nvml, nvml.nvmlDeviceGetUtilizationRates, handle)
    slices, _ = _told(nvml, nvml.nvmlDeviceGetMigMode, handle)
    pci = bus_address(_text(place.busId)) if place is not None else ""
    notes = [wrong] if wrong else []
    if slices is not None and slices[0]:
        notes.append("cut into slices (MIG); the figures are those of the whole card")
    return Accelerator(
        id=_text(uuid) or pci or f"index-{index}",
        name=_text(name) or f"NVIDIA card {index}",
        source="nvidia",
        total_bytes=int(memory.total) if memory is not None else None,
        free_bytes=int(memory.free) if memory is not None else None,
        utilisation_percent=int(rates.gpu) if rates is not None else None,
        pci=pci,
        driver=driver,
        note="; ".join(notes),
    )


def _memory(nvml: Any, handle: Any) -> tuple[Any, str]:
    """In the second version what the driver keeps for itself is not counted as free; an old library has only the first."""
    try:
        return nvml.nvmlDeviceGetMemoryInfo(handle, version=nvml.nvmlMemory_v2), ""
    except nvml.NVMLError as error:
        if error.value == _FUNCTION_NOT_FOUND:
            return _told(nvml, nvml.nvmlDeviceGetMemoryInfo, handle)
        return None, "its driver does not tell its memory" if error.value in _UNTOLD else _in_words(error)


def _told(nvml: Any, ask: Callable[..., Any], *arguments: Any) -> tuple[Any, str]:
    """The answer, or None and what is wrong; nothing is wrong with what is not told."""
    try:
        return ask(*arguments), ""
    except nvml.NVMLError as error:
        return None, "" if error.value in _UNTOLD else _in_words(error)


def _text(value: Any) -> str:
    if value is None:
        return ""
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _in_words(error: Any) -> str:
    return f"{error} (NVML {error.value})"


if __name__ == "__main__":
    answer_on = begin()
    say(answer_on, write_look(look()))
