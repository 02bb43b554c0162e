"""A small whole GGUF file, byte by byte after the specification: enough for a header, nothing that an engine could run."""

from __future__ import annotations

import struct

_UINT16, _UINT32, _STRING, _ARRAY = 2, 4, 8, 9
_Q8_0 = 8


def _text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def _pair(key: str, kind: int, value: bytes) -> bytes:
    return _text(key) + struct.pack("<I", kind) + value


def a_gguf(*, context: int = 512, title: str = "Tiny", salt: bytes = b"", split_count: int = 0) -> bytes:
    """One tensor of 64 × 2 values in Q8_0: four blocks of 34 bytes. `salt` makes its bytes differ."""
    pairs = [
        _pair("general.architecture", _STRING, _text("llama")),
        _pair("general.name", _STRING, _text(title)),
        _pair("general.license", _STRING, _text("apache-2.0")),
        _pair("general.file_type", _UINT32, struct.pack("<I", 3)),
        _pair("llama.context_length", _UINT32, struct.pack("<I", context)),
        _pair("llama.block_count", _UINT32, struct.pack("<I", 3)),
        _pair("llama.embedding_length", _UINT32, struct.pack("<I", 64)),
        _pair("llama.attention.head_count", _UINT32, struct.pack("<I", 4)),
        _pair("llama.attention.head_count_kv", _UINT32, struct.pack("<I", 2)),
        _pair("tokenizer.ggml.tokens", _ARRAY, struct.pack("<IQ", _STRING, 2) + _text("a") + _text("b")),
        _pair("tokenizer.ggml.token_type", _ARRAY, struct.pack("<IQ", _UINT32, 2) + struct.pack("<II", 1, 1)),
        _pair("tokenizer.chat_template", _STRING, _text("{{ messages }}")),
    ]
    if split_count:
        pairs.append(_pair("split.count", _UINT16, struct.pack("<H", split_count)))
    tensor = _text("token_embd.weight") + struct.pack("<IQQIQ", 2, 64, 2, _Q8_0, 0)
    header = b"GGUF" + struct.pack("<IQQ", 3, 1, len(pairs)) + b"".join(pairs) + tensor
    header += bytes(-len(header) % 32)
    return header + bytes(4 * 34 - len(salt)) + salt
