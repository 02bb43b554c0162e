"""LZW as stock agents send it: what they compressed, what a compressor of ours makes, and what nobody should have made."""

from __future__ import annotations

import json
from pathlib import Path

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maia.errors import DatagramRejected
from maia.wire.codec import COMPRESS, DATAGRAM_BYTES_MAX, decode
from maia.wire.compress import CLEAR, END, expand
from maia.wire.frames import EXPANDED_BYTES_MAX, StreamDecoder
from maia.wire.messages import STATE_ALIVE, Alive, PushPull

GOLDEN = json.loads((Path(__file__).parent / "golden" / "plain.json").read_text())


class Codes:
    """A stream of codes, with their widths under control."""

    def __init__(self) -> None:
        self._held = self._bits = 0
        self._bytes = bytearray()

    def write(self, code: int, width: int) -> None:
        self._held |= code << self._bits
        self._bits += width
        while self._bits >= 8:
            self._bytes.append(self._held & 0xFF)
            self._held >>= 8
            self._bits -= 8

    def whole(self) -> bytes:
        return bytes(self._bytes) + bytes((self._held & 0xFF,))


def compress(data: bytes, *, clears: bool) -> bytes:
    """What a compressor makes of `data`: with `clears` as Go's does when its table is full, without as one that keeps the full table."""
    codes = Codes()
    table = {bytes((value,)): value for value in range(256)}
    highest, width = END, 9
    if clears:
        codes.write(CLEAR, width)
    prefix = b""
    for value in data:
        longer = prefix + bytes((value,))
        if longer in table:
            prefix = longer
            continue
        codes.write(table[prefix], width)
        prefix = bytes((value,))
        if highest < 4095:
            highest += 1
            if highest == 1 << width:
                width += 1
            table[longer] = highest
        elif clears:
            codes.write(CLEAR, width)
            table = {bytes((number,)): number for number in range(256)}
            highest, width = END, 9
    if prefix:
        codes.write(table[prefix], width)
        highest += highest < 4096
        if highest == 1 << width and width < 12:
            width += 1
    codes.write(END, width)
    return codes.whole()


def text_like() -> st.SearchStrategy[bytes]:
    """Data in which much repeats, so that codes grow wide and the table fills."""
    words = st.lists(st.sampled_from([b"node-", b"\x04\x86", b"Incarnation", b"a", b"aaaaaaaa", bytes(range(256))]), max_size=60)
    return st.one_of(st.binary(max_size=6000), words.map(b"".join))


@given(text_like(), st.booleans())
@settings(max_examples=200, deadline=None)
def test_what_was_compressed_comes_back(data: bytes, clears: bool) -> None:
    assert expand(compress(data, clears=clears), bytes_max=len(data)) == data


@pytest.mark.parametrize("clears", [True, False])
def test_a_full_table_is_cleared_or_kept_as_the_sender_wishes(clears: bool) -> None:
    data = b"".join(number.to_bytes(2, "big") for number in range(12_000))
    assert expand(compress(data, clears=clears), bytes_max=len(data)) == data


def test_a_packet_that_a_stock_agent_compressed_is_read() -> None:
    packets = [bytes.fromhex(packet) for packet in GOLDEN["packets"]]
    (compressed,) = [packet for packet in packets if packet[5] == COMPRESS]
    found = decode(compressed)
    assert found.rejected == ()
    others = [message for message in found.messages if isinstance(message, Alive) and message.node != "stock"]
    assert sorted(message.node for message in others) == [f"kitchen-{number:06}" for number in range(6)]
    assert {message.meta for message in others} == {b"\xff\x82\xa4role\xa6worker\xa4maia\xa11"}


@pytest.mark.parametrize("size", [1, 50, 10_000])
def test_an_exchange_that_a_stock_agent_compressed_is_read_in_pieces_of_any_size(size: int) -> None:
    stream = bytes.fromhex(GOLDEN["streams"][0])
    decoder = StreamDecoder()
    found = [decoder.feed(stream[at : at + size]) for at in range(0, len(stream), size)]
    assert found[:-1] == [None] * (len(found) - 1)
    exchange = found[-1]
    assert isinstance(exchange, PushPull)
    assert [(node.alive.node, node.state) for node in exchange.nodes] == [("stock", STATE_ALIVE)]
    assert exchange.join
    assert len(exchange.user_state) == 589


def code_stream(*codes: int) -> bytes:
    stream = Codes()
    for code in codes:
        stream.write(code, 9)
    return stream.whole()


@pytest.mark.parametrize(
    ("compressed", "reason"),
    [
        (b"", "bad-compression"),
        (code_stream(CLEAR, 65), "bad-compression"),  # no end
        (code_stream(CLEAR, 258, END), "bad-compression"),  # a code that nothing came before
        (code_stream(CLEAR, 65, 300, END), "bad-compression"),
        (compress(b"x" * 101, clears=True), "too-long"),
    ],
)
def test_what_was_never_compressed_is_refused(compressed: bytes, reason: str) -> None:
    with pytest.raises(DatagramRejected) as refusal:
        expand(compressed, bytes_max=100)
    assert refusal.value.reason == reason


def packed(data: bytes) -> bytes:
    return b"\x09" + msgpack.packb({"Algo": 0, "Buf": compress(data, clears=True)}, use_bin_type=False)


def test_a_bomb_is_refused_at_the_size_that_its_carrier_may_have() -> None:
    packet = packed(bytes(DATAGRAM_BYTES_MAX + 1))
    assert len(packet) < 1200
    with pytest.raises(DatagramRejected, match="too-long"):
        decode(packet)
    stream = packed(bytes(EXPANDED_BYTES_MAX + 1))
    assert len(stream) < 20_000
    with pytest.raises(DatagramRejected, match="too-long"):
        StreamDecoder().feed(stream)


def test_an_unknown_way_to_compress_and_a_compression_within_another_are_refused() -> None:
    with pytest.raises(DatagramRejected, match="unknown-compression"):
        decode(b"\x09" + msgpack.packb({"Algo": 1, "Buf": b"x"}, use_bin_type=False))
    twice = packed(packed(b"\x0b" + msgpack.packb({"SeqNo": 1})))
    with pytest.raises(DatagramRejected, match="unknown-type"):
        decode(twice)
    with pytest.raises(DatagramRejected, match="unknown-stream"):
        StreamDecoder().feed(twice)


def test_a_compressed_stream_that_is_whole_and_whose_message_is_not_never_ends_well() -> None:
    with pytest.raises(DatagramRejected, match="truncated"):
        StreamDecoder().feed(packed(b"\x06"))
