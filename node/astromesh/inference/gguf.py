"""What a GGUF file says about itself, and whether it is all there. Pure but for reading the stream that it is given.

Layout (the GGUF specification, versions 2 and 3, little-endian): magic, version, counts; key-value pairs; one record for each tensor with
its shape, type and offset; padding; the tensors. So the header tells how long the file must be, and half a download is known as such
without loading it.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import Any, BinaryIO, NamedTuple

MAGIC = b"GGUF"
DEFAULT_ALIGNMENT_BYTES = 32

# Real files have some 30 pairs, 300 to 2,000 tensors and strings up to a chat template; arrays hold vocabularies of up to 300,000 tokens.
PAIRS_MAX = 4096
TENSORS_MAX = 65_536
STRING_BYTES_MAX = 4 * 1024 * 1024
ARRAY_ITEMS_MAX = 4_000_000
ARRAY_ITEMS_KEPT = 1024  # what is told for each layer; vocabularies are only counted
DIMENSIONS_MAX = 8

# The name of `general.file_type` as llama.cpp numbers it (`llama_ftype`).
_QUANTISATIONS: Mapping[int, str] = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K", 11: "Q3_K_S", 12: "Q3_K_M", 13: "Q3_K_L",
    14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M", 18: "Q6_K", 19: "IQ2_XXS", 20: "IQ2_XS", 21: "Q2_K_S", 22: "IQ3_XS",
    23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M", 28: "IQ2_S", 29: "IQ2_M", 30: "IQ4_XS", 31: "IQ1_M", 32: "BF16",
    38: "MXFP4",
}  # fmt: skip

# Tensor types (`ggml_type`): values in a block, bytes of a block. A tensor of a type that is not here is as long as it is to the next one.
_BLOCKS: Mapping[int, tuple[int, int]] = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 9: (32, 36), 10: (256, 84), 11: (256, 110),
    12: (256, 144), 13: (256, 176), 14: (256, 210), 15: (256, 292), 16: (256, 66), 17: (256, 74), 18: (256, 98), 19: (256, 50),
    20: (32, 18), 21: (256, 110), 22: (256, 82), 23: (256, 136), 24: (1, 1), 25: (1, 2), 26: (1, 4), 27: (1, 8), 28: (1, 8),
    29: (256, 56), 30: (1, 2), 34: (256, 54), 35: (256, 66), 39: (32, 17), 40: (64, 36), 41: (128, 18), 42: (64, 18),
}  # fmt: skip

_LAYER = re.compile(r"blk\.([0-9]{1,4})\.")

_SCALARS: Mapping[int, str] = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9


class NotGguf(Exception):
    """The bytes are no GGUF file that could be loaded. The message says why."""


@dataclass(frozen=True, slots=True)
class Weights:
    """Where the bytes of a model are, for whoever has to find room for them."""

    layers: tuple[int, ...] = ()  # bytes of each repeating layer, from the first to the last
    output_bytes: int = 0  # what makes chances of the last layer's values
    output_copied: bool = False  # the file has nothing of its own for that: the embeddings serve once more, as a copy where they are far
    other_bytes: int = 0  # of all else: the embeddings


@dataclass(frozen=True, slots=True)
class GgufHeader:
    architecture: str
    title: str
    licence: str
    quantisation: str  # empty where the file does not say
    context: int | None  # the tokens of context that it was trained on
    has_chat_template: bool
    split_count: int  # files that make the model up; more than one cannot be loaded
    layers: int  # 0 where the file does not say
    cache_values: int  # for each token of context: keys and values of all layers
    vocabulary: int
    bytes_min: int  # a shorter file is cut
    weights: Weights


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
    tensors = [_tensor(stream) for _ in range(tensor_count)]
    alignment = pairs.get("general.alignment", DEFAULT_ALIGNMENT_BYTES)
    if not isinstance(alignment, int) or alignment < 1:
        raise NotGguf(f"its alignment is {alignment!r}")
    data_start = -(-stream.tell() // alignment) * alignment
    architecture = _text(pairs, "general.architecture")
    context = pairs.get(f"{architecture}.context_length")
    tokens = pairs.get("tokenizer.ggml.tokens")
    layers = _count(pairs, f"{architecture}.block_count")
    return GgufHeader(
        architecture=architecture,
        title=_text(pairs, "general.name"),
        licence=_text(pairs, "general.license"),
        quantisation=_QUANTISATIONS.get(pairs.get("general.file_type", -1), ""),
        context=context if isinstance(context, int) else None,
        has_chat_template="tokenizer.chat_template" in pairs,
        split_count=_count(pairs, "split.count"),
        layers=layers,
        cache_values=_cache_values(pairs, architecture, layers),
        vocabulary=tokens.count if isinstance(tokens, _Array) else 0,
        bytes_min=data_start + max((tensor.offset + tensor.size_bytes for tensor in tensors), default=0),
        weights=_weights(tensors),
    )


class _Tensor(NamedTuple):
    name: str
    offset: int
    size_bytes: int  # 0 where its type is unknown


def _weights(tensors: Sequence[_Tensor]) -> Weights:
    offsets = sorted(tensor.offset for tensor in tensors)
    following = dict(pairwise(offsets))
    layers: dict[int, int] = {}
    output = other = embeddings = 0
    has_output = False
    for tensor in tensors:
        size = tensor.size_bytes or following.get(tensor.offset, tensor.offset) - tensor.offset
        if (layer := _LAYER.match(tensor.name)) is not None:
            layers[int(layer[1])] = layers.get(int(layer[1]), 0) + size
        elif tensor.name.startswith("output"):
            output += size
            has_output = has_output or tensor.name == "output.weight"
        else:
            other += size
            embeddings = size if tensor.name == "token_embd.weight" else embeddings
    return Weights(
        layers=tuple(layers.get(number, 0) for number in range(max(layers, default=-1) + 1)),
        output_bytes=output if has_output else output + embeddings,
        output_copied=not has_output,
        other_bytes=other,
    )


@dataclass(frozen=True, slots=True)
class _Array:
    """`values` of a short one of numbers; of others only how many there are."""

    count: int
    values: tuple[Any, ...] = ()


def _cache_values(pairs: Mapping[str, Any], architecture: str, layers: int) -> int:
    """What one token takes in the cache of attention: for each layer, a key and a value for each head that has its own."""
    heads = _count(pairs, f"{architecture}.attention.head_count")
    per_head = _count(pairs, f"{architecture}.embedding_length") // heads if heads else 0
    key = _count(pairs, f"{architecture}.attention.key_length") or per_head
    value = _count(pairs, f"{architecture}.attention.value_length") or per_head
    own = pairs.get(f"{architecture}.attention.head_count_kv")
    if isinstance(own, _Array):
        return sum(one for one in own.values if isinstance(one, int)) * (key + value)
    return layers * (own if isinstance(own, int) else heads) * (key + value)


def _count(pairs: Mapping[str, Any], key: str) -> int:
    """0 where it is not told, or as something else than a number."""
    value = pairs.get(key, 0)
    return value if isinstance(value, int) and value >= 0 else 0


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
        return _array(stream)
    if kind not in _SCALARS:
        raise NotGguf(f"it has a value of type {kind}")
    (value,) = _unpack(stream, _SCALARS[kind])
    return value


def _array(stream: BinaryIO) -> _Array:
    kind, count = _unpack(stream, "IQ")
    if count > ARRAY_ITEMS_MAX:
        raise NotGguf(f"it claims an array of {count} values")
    if kind in _SCALARS:
        layout = "<" + _SCALARS[kind]
        data = _read(stream, struct.calcsize(layout) * count)
        values = tuple(value for (value,) in struct.iter_unpack(layout, data)) if count <= ARRAY_ITEMS_KEPT else ()
        return _Array(count, values)
    if kind == _STRING:
        for _ in range(count):
            (length,) = _unpack(stream, "Q")
            if length > STRING_BYTES_MAX:
                raise NotGguf(f"it claims a text of {length} bytes")
            _read(stream, length)
        return _Array(count)
    raise NotGguf(f"it has an array of type {kind}")


def _tensor(stream: BinaryIO) -> _Tensor:
    name = _string(stream)
    (dimensions,) = _unpack(stream, "I")
    if dimensions > DIMENSIONS_MAX:
        raise NotGguf(f"it has a tensor of {dimensions} dimensions")
    values = prod(_unpack(stream, "Q" * dimensions))
    kind, offset = _unpack(stream, "IQ")
    if kind not in _BLOCKS:
        return _Tensor(name, offset, 0)
    block_values, block_bytes = _BLOCKS[kind]
    return _Tensor(name, offset, -(-values // block_values) * block_bytes)
