"""AMD's cards, as the kernel's driver `amdgpu` tells in files: `python -m astromesh.inference.backends.devices.amd [SYSFS]`."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from astromesh.inference.backends.devices.answering import begin, say
from astromesh.inference.devices import Accelerator, Look, write_look

SYSFS = Path("/sys")
_AMD = "0x1002"
_FILE_BYTES_MAX = 4096


def folders(sysfs: Path) -> list[Path]:
    """A folder for each card of AMD's, in their order. Asks no driver anything."""
    cards = [path for path in (sysfs / "class" / "drm").glob("card*") if re.fullmatch(r"card[0-9]+", path.name)]
    cards.sort(key=lambda path: int(path.name.removeprefix("card")))
    return [path / "device" for path in cards if _read(path / "device" / "vendor") == _AMD]


def look(sysfs: Path = SYSFS) -> Look:
    found = folders(sysfs)
    if not found:
        return Look("amd", "absent", "no card of AMD")
    cards = tuple(_card(folder) for folder in found)
    ill = [card for card in cards if card.note]
    if ill:
        return Look("amd", "degraded", f"{ill[0].name}: {ill[0].note}", cards)
    return Look("amd", "ok", found=cards)


def _card(folder: Path) -> Accelerator:
    told = dict(line.split("=", 1) for line in _read(folder / "uevent").splitlines() if "=" in line)
    pci = told.get("PCI_SLOT_NAME", "").lower()
    total, used = _number(folder / "mem_info_vram_total"), _number(folder / "mem_info_vram_used")
    driver = told.get("DRIVER", "")
    return Accelerator(
        id=_read(folder / "unique_id") or pci or folder.parent.name,
        name=_read(folder / "product_name") or f"AMD graphics {told.get('PCI_ID', '')}".strip(),
        source="amd",
        total_bytes=total,
        free_bytes=max(0, total - used) if total is not None and used is not None else None,
        utilisation_percent=_number(folder / "gpu_busy_percent"),
        pci=pci,
        driver=driver,
        note="" if driver == "amdgpu" or total is not None else f"it is driven by {driver or 'nobody'}; amdgpu would tell its memory",
    )


def _read(path: Path) -> str:
    """Empty where there is no such file, or the driver behind it refuses."""
    try:
        with path.open("rb") as file:
            return file.read(_FILE_BYTES_MAX).decode(errors="replace").strip()
    except OSError:
        return ""


def _number(path: Path) -> int | None:
    text = _read(path)
    return int(text) if re.fullmatch(r"[0-9]{1,18}", text) else None


if __name__ == "__main__":
    answer_on = begin()
    say(answer_on, write_look(look(Path(sys.argv[1]) if len(sys.argv) > 1 else SYSFS)))
