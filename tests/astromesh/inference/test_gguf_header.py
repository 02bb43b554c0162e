"""A GGUF's header is read without loading it, and a file that is none or is cut is known by it."""

from __future__ import annotations

import io
import struct

import pytest
from tests.astromesh.inference.gguf_files import a_gguf

from astromesh.inference.gguf import NotGguf, read_header

WHOLE = a_gguf(context=2048)


def test_the_header_tells_what_the_model_is() -> None:
    header = read_header(io.BytesIO(WHOLE))
    assert (header.architecture, header.title, header.licence) == ("llama", "Tiny", "apache-2.0")
    assert (header.quantisation, header.context, header.has_chat_template) == ("Q4_1", 2048, True)


def test_the_header_tells_how_long_the_file_is() -> None:
    assert read_header(io.BytesIO(WHOLE)).bytes_min == len(WHOLE)


def test_embeddings_that_serve_as_output_count_for_both() -> None:
    weights = read_header(io.BytesIO(WHOLE)).weights
    assert (weights.layers, weights.other_bytes) == ((), 4 * 34)
    assert (weights.output_bytes, weights.output_copied) == (4 * 34, True)


def test_the_header_tells_how_large_each_layer_is_whatever_the_type_of_its_tensors() -> None:
    def tensor(name: str, kind: int, offset: int) -> bytes:
        return struct.pack("<Q", len(name)) + name.encode() + struct.pack("<IQQIQ", 2, 64, 2, kind, offset)

    q8_0, unheard_of = 8, 99
    tensors = [
        tensor("blk.1.ffn_up.weight", unheard_of, 288),
        tensor("blk.0.attn_q.weight", q8_0, 0),
        tensor("blk.0.ffn_up.weight", q8_0, 136),
        tensor("output.weight", q8_0, 2000),
        tensor("output_norm.weight", q8_0, 1000),
        tensor("token_embd.weight", q8_0, 1136),
    ]
    weights = read_header(io.BytesIO(b"GGUF" + struct.pack("<IQQ", 3, len(tensors), 0) + b"".join(tensors))).weights
    assert weights.layers == (2 * 136, 1000 - 288)  # the unheard-of one is as long as it is to the next
    assert (weights.output_bytes, weights.output_copied, weights.other_bytes) == (2 * 136, False, 136)


@pytest.mark.parametrize("beginning", [b"", b"GG", b"PK\x03\x04 a zip file", b"<!DOCTYPE html>", b"GGUF"])
def test_another_kind_of_file_is_no_gguf(beginning: bytes) -> None:
    with pytest.raises(NotGguf):
        read_header(io.BytesIO(beginning))


def test_a_header_that_is_cut_anywhere_is_known_as_cut() -> None:
    header_ends = WHOLE.index(b"\x00" * 64)  # the tensor's own zeros come after the header
    for length in range(header_ends):
        with pytest.raises(NotGguf):
            read_header(io.BytesIO(WHOLE[:length]))


@pytest.mark.parametrize(
    "claims",
    [
        struct.pack("<IQQ", 1, 0, 0),  # a version before there were alignments
        struct.pack("<IQQ", 3, 0, 2**40),
        struct.pack("<IQQ", 3, 2**40, 0),
        struct.pack("<IQQQ", 3, 0, 1, 2**50),  # a key of a petabyte
        struct.pack("<IQQQ", 3, 0, 1, 1) + b"k" + struct.pack("<IIQ", 9, 4, 2**50),  # an array of as many values
        struct.pack("<IQQQ", 3, 0, 1, 1) + b"k" + struct.pack("<I", 77),
    ],
)
def test_what_a_header_claims_is_never_believed_beyond_a_limit(claims: bytes) -> None:
    with pytest.raises(NotGguf):
        read_header(io.BytesIO(b"GGUF" + claims))
