"""What llama.cpp's own registry says it can compute with: `python -m astromesh.inference.backends.devices.engine FOLDER`.

`FOLDER` holds its libraries. They are called without the Python package around them, which would bring numpy along. Where an engine was
built for another processor this process dies of it, and not the one that wants to know.
"""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path
from typing import Any

from astromesh.inference.backends.devices.answering import begin, say
from astromesh.inference.devices import Accelerator, Look, write_look

DEVICES_MAX = 64

_GPU, _INTEGRATED_GPU = 1, 2  # of `ggml_backend_dev_type`
_SUFFIXES = {"darwin": (".dylib", ".so"), "win32": (".dll",)}
_UNIFIED = ("Metal", "MTL")


class _Properties(ctypes.Structure):
    """`ggml_backend_dev_props`; what a newer one has at its end falls into `rest`."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("description", ctypes.c_char_p),
        ("memory_free", ctypes.c_size_t),
        ("memory_total", ctypes.c_size_t),
        ("kind", ctypes.c_int),
        ("device_id", ctypes.c_char_p),
        ("rest", ctypes.c_char * 256),
    )


def report(folder: Path) -> dict[str, Any]:
    """`look` with its devices, `backends` by name, and `system`: what the build says of itself."""
    ggml, base, llama = (_library(folder, name) for name in ("ggml", "ggml-base", "llama"))
    text, number, pointer = ctypes.c_char_p, ctypes.c_size_t, ctypes.c_void_p
    ggml.ggml_backend_load_all_from_path.argtypes = [text]
    # Backends that are libraries of their own; those that are linked in are known already.
    ggml.ggml_backend_load_all_from_path(str(folder).encode())
    for library, function, result, arguments in (
        (ggml, "ggml_backend_reg_count", number, ()),
        (ggml, "ggml_backend_reg_get", pointer, (number,)),
        (base, "ggml_backend_reg_name", text, (pointer,)),
        (ggml, "ggml_backend_dev_count", number, ()),
        (ggml, "ggml_backend_dev_get", pointer, (number,)),
        (base, "ggml_backend_dev_backend_reg", pointer, (pointer,)),
        (base, "ggml_backend_dev_get_props", None, (pointer, ctypes.POINTER(_Properties))),
        (llama, "llama_print_system_info", text, ()),
    ):
        getattr(library, function).restype, getattr(library, function).argtypes = result, arguments
    backends = [_text(base.ggml_backend_reg_name(ggml.ggml_backend_reg_get(place))) for place in range(ggml.ggml_backend_reg_count())]
    found = [_device(ggml, base, place) for place in range(min(ggml.ggml_backend_dev_count(), DEVICES_MAX))]
    usable = tuple(device for device in found if device is not None)
    look = Look("engine", "ok", found=usable) if usable else Look("engine", "absent", "the engine has nothing but the processor to use")
    return {"look": write_look(look), "backends": backends, "system": _text(llama.llama_print_system_info()).strip()}


def _device(ggml: Any, base: Any, place: int) -> Accelerator | None:
    """None for the processor itself and what only helps it."""
    handle = ggml.ggml_backend_dev_get(place)
    told = _Properties()
    base.ggml_backend_dev_get_props(handle, ctypes.byref(told))
    if told.kind not in (_GPU, _INTEGRATED_GPU):
        return None
    name = _text(told.name)
    backend = _text(base.ggml_backend_reg_name(base.ggml_backend_dev_backend_reg(handle)))
    pci = _text(told.device_id).lower()
    return Accelerator(
        id=pci or name,
        name=_text(told.description) or name,
        source="engine",
        # Some backends say 0 of 0 where they do not know.
        total_bytes=told.memory_total or None,
        free_bytes=told.memory_free if told.memory_total else None,
        pci=pci,
        engine=name,
        shares_memory=told.kind == _INTEGRATED_GPU or backend in _UNIFIED,
    )


def _library(folder: Path, name: str) -> Any:
    suffixes = _SUFFIXES.get(sys.platform, (".so",))
    prefixes = ("", "lib") if sys.platform == "win32" else ("lib",)
    for path in (folder / f"{prefix}{name}{suffix}" for prefix in prefixes for suffix in suffixes):
        if path.exists():
            return ctypes.CDLL(str(path))
    raise FileNotFoundError(f"{folder} has no library {name}")


def _text(value: bytes | None) -> str:
    return value.decode(errors="replace") if value else ""


if __name__ == "__main__":
    answer_on = begin()
    say(answer_on, report(Path(sys.argv[1])))
