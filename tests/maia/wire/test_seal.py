"""Sealed gossip: what stock agents sealed opens, what was changed does not, and open and sealed never mix."""

from __future__ import annotations

import base64
import contextlib
import json
from pathlib import Path
from random import Random

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, settings
from hypothesis import strategies as st

from maia.config import Address
from maia.errors import DatagramRejected
from maia.keyring import Keyring
from maia.wire.codec import decode, encode
from maia.wire.frames import StreamDecoder, encode_push_pull
from maia.wire.messages import Ack, IndirectPing, Nack, Ping, PushPull, Suspect
from maia.wire.seal import SEAL_OVERHEAD, Sealer, seems_sealed

KEY, OTHER = b"k" * 32, b"o" * 16
HERE = Address("10.0.0.1", 7946)
EXCHANGE = PushPull((), join=True, user_state=b"state")


def sealer_of(*keys: bytes, seed: int = 1) -> Sealer:
    return Sealer(Keyring(keys), random=Random(seed))


def golden(name: str) -> tuple[Sealer, list[bytes], list[bytes]]:
    document = json.loads((Path(__file__).parent / "golden" / f"{name}.json").read_text())
    packets, streams = ([bytes.fromhex(text) for text in document[kind]] for kind in ("packets", "streams"))
    return sealer_of(base64.b64decode(document["key"])), packets, streams


@pytest.mark.parametrize("name", ["aes128", "aes256"])
def test_what_a_stock_agent_sealed_is_read(name: str) -> None:
    sealer, packets, streams = golden(name)
    for packet in packets:
        assert seems_sealed(packet)
        found = decode(sealer.open(packet))
        assert found.messages
        assert found.rejected == ()
    exchange = StreamDecoder(sealer).feed(streams[0])
    assert isinstance(exchange, PushPull)
    assert [node.alive.node for node in exchange.nodes] == ["stock"]


@given(st.binary(max_size=300), st.binary(max_size=8))
def test_what_was_sealed_opens_with_the_same_key_and_the_same_vouched_bytes(plaintext: bytes, vouched: bytes) -> None:
    sealed = sealer_of(KEY).seal(plaintext, vouched=vouched)
    assert len(sealed) == len(plaintext) + SEAL_OVERHEAD
    assert sealed[0] == 1
    assert sealer_of(OTHER, KEY).open(sealed, vouched=vouched) == plaintext
    for keys, said in (((OTHER,), vouched), ((KEY,), vouched + b"x")):
        with pytest.raises(DatagramRejected, match="undecryptable"):
            sealer_of(*keys).open(sealed, vouched=said)


@given(st.integers(0, 400), st.integers(1, 255))
def test_a_single_changed_byte_is_noticed(place: int, change: int) -> None:
    sealed = bytearray(sealer_of(KEY).seal(b"an accusation " * 20))
    sealed[place % len(sealed)] ^= change
    with pytest.raises(DatagramRejected):
        sealer_of(KEY).open(bytes(sealed))


def test_every_message_has_its_own_nonce() -> None:
    sealer = sealer_of(KEY)
    assert len({sealer.seal(b"the same")[1:13] for _ in range(100)}) == 100


@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 100])
def test_memberlist_s_first_version_with_its_padding_is_read(size: int) -> None:
    plaintext, nonce = b"p" * size, b"n" * 12
    padding = 16 - size % 16
    sealed = b"\x00" + nonce + AESGCM(KEY).encrypt(nonce, plaintext + bytes([padding]) * padding, None)
    assert sealer_of(KEY).open(sealed) == plaintext


@pytest.mark.parametrize("padded", [b"", b"p" * 15 + b"\x00", b"p" * 15 + b"\x11", b"p" * 14 + b"\x01"])
def test_a_wrong_padding_is_refused(padded: bytes) -> None:
    sealed = b"\x00" + b"n" * 12 + AESGCM(KEY).encrypt(b"n" * 12, padded, None)
    with pytest.raises(DatagramRejected, match="bad-padding"):
        sealer_of(KEY).open(sealed)


@pytest.mark.parametrize(
    "message",
    [Ping(1, "somebody", HERE, "me"), IndirectPing(1, HERE, "somebody", True, HERE, "me"), Ack(1), Nack(1), Suspect(1, "somebody", "me")],
)
def test_what_nobody_sealed_is_told_from_what_another_key_sealed(message: Ping) -> None:
    with pytest.raises(DatagramRejected) as refusal:
        sealer_of(KEY).open(encode(message))
    assert refusal.value.reason == "plaintext"
    assert not seems_sealed(encode(message))


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_sealed_stream_is_whole_with_its_last_byte_and_not_before(size: int) -> None:
    stream = sealer_of(KEY).seal_stream(encode_push_pull(EXCHANGE))
    decoder = StreamDecoder(sealer_of(KEY))
    found = [decoder.feed(stream[at : at + size]) for at in range(0, len(stream), size)]
    assert found == [None] * (len(found) - 1) + [EXCHANGE]


def test_a_stream_with_another_length_than_the_one_that_was_vouched_for_is_refused() -> None:
    stream = bytearray(sealer_of(KEY).seal_stream(encode_push_pull(EXCHANGE)))
    stream[4] -= 1
    with pytest.raises(DatagramRejected, match="undecryptable"):
        StreamDecoder(sealer_of(KEY)).feed(bytes(stream))


@pytest.mark.parametrize(
    ("sealer", "stream", "reason"),
    [
        (sealer_of(KEY), encode_push_pull(EXCHANGE), "plaintext"),
        (None, sealer_of(KEY).seal_stream(encode_push_pull(EXCHANGE)), "sealed"),
        (sealer_of(OTHER), sealer_of(KEY).seal_stream(encode_push_pull(EXCHANGE)), "undecryptable"),
        (sealer_of(KEY), sealer_of(KEY).seal_stream(b""), "truncated"),
        (sealer_of(KEY), sealer_of(KEY).seal_stream(sealer_of(KEY).seal_stream(encode_push_pull(EXCHANGE))), "unknown-stream"),
        (sealer_of(KEY), b"\x0a\x01\x40\x00\x00", "stream-too-long"),
    ],
)
def test_streams_open_and_sealed_never_mix(sealer: Sealer | None, stream: bytes, reason: str) -> None:
    with pytest.raises(DatagramRejected) as refusal:
        StreamDecoder(sealer).feed(stream)
    assert refusal.value.reason == reason


@given(st.binary(max_size=1500))
@settings(max_examples=500)
def test_whatever_the_bytes_are_opening_them_is_refused_and_nothing_else(data: bytes) -> None:
    with pytest.raises(DatagramRejected):
        sealer_of(KEY, OTHER).open(data)
    with contextlib.suppress(DatagramRejected):
        StreamDecoder(sealer_of(KEY)).feed(data)
