"""What a GGUF file says about itself, and whether it is all there. Pure but for reading the stream that it is given.

Layout (the GGUF specification, versions 2 and 3, little-endian): magic, version, counts; key-value pairs; one record for each tensor with
its shape, type and offset; padding; the tensors. So the header tells how long the file must be, and half a download is known as such
without loading it.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

MAGIC = b"GGUF"
DEFAULT_ALIGNMENT_BYTES = 32

# Real files have some 30 pairs, 300 to 2,000 tensors and strings up to a chat template; arrays hold vocabularies of up to 300,000 tokens.
PAIRS_MAX = 4096
TENSORS_MAX = 65_536
STRING_BYTES_MAX = 4 * 1024 * 1024
ARRAY_ITEMS_MAX = 4_000_000
DIMENSIONS_MAX = 8

# The name of `general.file_type` as llama.cpp numbers it (`llama_ftype`).
_QUANTISATIONS: Mapping[int, str] = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K", 11: "Q3_K_S", 12: "Q3_K_M", 13: "Q3_K_L",
    14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M", 18: "Q6_K", 19: "IQ2_XXS", 20: "IQ2_XS", 21: "Q2_K_S", 22: "IQ3_XS",
    23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M", 28: "IQ2_S", 29: "IQ2_M", 30: "IQ4_XS", 31: "IQ1_M", 32: "BF16",
    38: "MXFP4",
}  # fmt: skip

# Tensor types (`ggml_type`): values in a block, bytes of a block. Of a type that is not here only the offset is checked.
_BLOCKS: Mapping[int, tuple[int, int]] = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 9: (32, 36), 10: (256, 84), 11: (256, 110),
    12: (256, 144), 13: (256, 176), 14: (256, 210), 15: (256, 292), 24: (1, 1), 25: (1, 2), 26: (1, 4), 27: (1, 8), 28: (1, 8), 30: (1, 2),
}  # fmt: skip

_SCALARS: Mapping[int, str] = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9


class NotGguf(Exception):
    """The bytes are no GGUF file that could be loaded. The message says why."""


@dataclass(frozen=True, slots=True)
class GgufHeader:
    architecture: str
    title: str
    licence: str
    quantisation: str  # empty where the file does not say
    context: int | None  # the tokens of context that it was trained on
    has_chat_template: bool
    bytes_min: int  # a shorter file is cut


def read_header(stream: BinaryIO) -> GgufHeader:
    """Reads from the beginning. Raises `NotGguf`."""
    if stream.read(4) != MAGIC:
        raise NotGguf("it does not begin with GGUF")
    version, tensor_count, pair_count = _unpack(stream, "IQQ")
    if version not in (2, 3):
        raise NotGguf(f"it is GGUF version {version}; 2 and 3 can be read")
    if pair_count > PAIRS_MAX or tensor_count > TENSORS_MAX:
        raise NotGguf(f"it claims {pair_count} keys and {tensor_count} tensors")
    pairs: dict[str, Any] = {}
    for _ in range(pair_count):
        key = _string(stream)
        pairs[key] = _value(stream, *_unpack(stream, "I"))
    end = 0
    for _ in range(tensor_count):
        end = max(end, _tensor_end(stream))
    alignment = pairs.get("general.alignment", DEFAULT_ALIGNMENT_BYTES)
    if not isinstance(alignment, int) or alignment < 1:
        raise NotGguf(f"its alignment is {alignment!r}")
    data_start = -(-stream.tell() // alignment) * alignment
    architecture = _text(pairs, "general.architecture")
    context = pairs.get(f"{architecture}.context_length")
    return GgufHeader(
        architecture=architecture,
        title=_text(pairs, "general.name"),
        licence=_text(pairs, "general.license"),
        quantisation=_QUANTISATIONS.get(pairs.get("general.file_type", -1), ""),
        context=context if isinstance(context, int) else None,
        has_chat_template="tokenizer.chat_template" in pairs,
        bytes_min=data_start + end,
    )


def _text(pairs: Mapping[str, Any], key: str) -> str:
    value = pairs.get(key, "")
    return value if isinstance(value, str) else ""


def _read(stream: BinaryIO, count: int) -> bytes:
    data = stream.read(count)
    if len(data) < count:
        raise NotGguf("it ends inside its own header: the file is cut")
    return data


def _unpack(stream: BinaryIO, layout: str) -> tuple[Any, ...]:
    layout = "<" + layout
    return struct.unpack(layout, _read(stream, struct.calcsize(layout)))


def _string(stream: BinaryIO) -> str:
    (length,) = _unpack(stream, "Q")
    if length > STRING_BYTES_MAX:
        raise NotGguf(f"it claims a text of {length} bytes")
    return _read(stream, length).decode("utf-8", "replace")


def _value(stream: BinaryIO, kind: int) -> Any:
    if kind == _STRING:
        return _string(stream)
    if kind == _ARRAY:
        _skip_array(stream)
        return None  # vocabularies and the like: nothing here needs them
    if kind not in _SCALARS:
        raise NotGguf(f"it has a value of type {kind}")
    (value,) = _unpack(stream, _SCALARS[kind])
    return value


def _skip_array(stream: BinaryIO) -> None:
    kind, count = _unpack(stream, "IQ")
    if count > ARRAY_ITEMS_MAX:
        raise NotGguf(f"it claims an array of {count} values")
    if kind in _SCALARS:
        _read(stream, struct.calcsize("<" + _SCALARS[kind]) * count)
    elif kind == _STRING:
        for _ in range(count):
            (length,) = _unpack(stream, "Q")
            if length > STRING_BYTES_MAX:
                raise NotGguf(f"it claims a text of {length} bytes")
            _read(stream, length)
    else:
        raise NotGguf(f"it has an array of type {kind}")


def _tensor_end(stream: BinaryIO) -> int:
    """Where the tensor of the next record ends, counted from the start of the data."""
    _string(stream)
    (dimensions,) = _unpack(stream, "I")
    if dimensions > DIMENSIONS_MAX:
        raise NotGguf(f"it has a tensor of {dimensions} dimensions")
    values = 1
    for size in _unpack(stream, "Q" * dimensions):
        values *= size
    kind, offset = _unpack(stream, "IQ")
    if kind not in _BLOCKS:
        return int(offset)
    block_values, block_bytes = _BLOCKS[kind]
    return int(offset) + -(-values // block_values) * block_bytes
