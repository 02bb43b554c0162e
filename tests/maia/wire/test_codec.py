"""Memberlist's packets, byte for byte, and what is refused."""

from __future__ import annotations

import zlib

import msgpack
import pytest

from maia.config import INCARNATION_MAX, Address
from maia.errors import DatagramRejected, MisuseError
from maia.wire.codec import MESSAGE_BYTES_MAX, PACKET_BYTES_MAX, decode, encode, pack, packed_size
from maia.wire.messages import VSN, Ack, Alive, Dead, IndirectPing, Message, Nack, Ping, Suspect, User

HERE = Address("10.0.0.1", 7946)
SIX = Address("fd00::7", 7946)
ONE_OF_EACH: list[Message] = [
    Ping(7, "b-000002", HERE, "a-000001"),
    Ping(7),
    IndirectPing(8, SIX, "b-000002", True, HERE, "a-000001", 80),
    IndirectPing(8, HERE, "b-000002"),
    Ack(2**32 - 1, b"\x01coordinate", b"rootroot"),
    Ack(1),
    Nack(9),
    Suspect(3, "b-000002", "a-000001"),
    Alive(4, "b-000002", SIX, b"\xff\x80"),
    Dead(5, "b-000002", "b-000002"),
    User(b"\x80anything"),
]


def with_map(kind: int, fields: dict[str, object]) -> bytes:
    """A message as another implementation would encode it."""
    return bytes((kind,)) + msgpack.packb(fields, use_bin_type=False)


def alive(**changes: object) -> bytes:
    fields: dict[str, object] = {"Incarnation": 1, "Node": "b", "Addr": b"\x0a\x00\x00\x01", "Port": 7946, "Meta": None, "Vsn": VSN}
    return with_map(4, fields | changes)


@pytest.mark.parametrize("message", ONE_OF_EACH, ids=lambda message: type(message).__name__)
def test_what_is_encoded_is_decoded(message: Message) -> None:
    assert decode(encode(message)).messages == [message]


def test_a_ping_is_the_map_that_memberlist_writes() -> None:
    assert encode(Ping(7, "b", HERE, "a")) == (
        b"\x00\x85\xa5SeqNo\x07\xa4Node\xa1b\xaaSourceAddr\xa4\x0a\x00\x00\x01\xaaSourcePort\xcd\x1f\x0a\xaaSourceNode\xa1a"
    )


def test_long_strings_and_bytes_are_old_raws_since_go_msgpack_of_2015_knows_no_others() -> None:
    encoded = encode(Alive(1, "n" * 40, HERE, b"m" * 200))
    assert b"\xda\x00\x28" + b"n" * 40 in encoded
    assert b"\xda\x00\xc8" + b"m" * 200 in encoded


def test_an_alive_always_says_six_versions() -> None:
    assert msgpack.unpackb(encode(Alive(1, "b", HERE))[1:], raw=True)[b"Vsn"] == bytes((1, 5, 2, 2, 5, 4))


def test_several_messages_travel_in_a_compound_behind_a_checksum() -> None:
    parts = [encode(message) for message in ONE_OF_EACH]
    packet = pack(parts)
    assert packet[0] == 12
    assert int.from_bytes(packet[1:5], "big") == zlib.crc32(packet[5:])
    assert packet[5:7] == bytes((7, len(parts)))
    assert len(packet) == packed_size(parts)
    assert decode(packet).messages == ONE_OF_EACH


def test_a_single_message_travels_bare() -> None:
    assert pack([encode(Nack(1))]) == encode(Nack(1))


def test_a_flipped_bit_behind_a_checksum_rejects_the_packet() -> None:
    packet = bytearray(pack([encode(Nack(1)), encode(Nack(2))]))
    packet[-1] ^= 1
    with pytest.raises(DatagramRejected, match="bad-checksum"):
        decode(bytes(packet))


def test_a_poisoned_rumour_does_not_silence_those_beside_it() -> None:
    packet = decode(pack([encode(Nack(1)), alive(Vsn=b"\x01\x05"), b"\xf0?", encode(Nack(2))]))
    assert packet.messages == [Nack(1), Nack(2)]
    assert packet.rejected == ("bad-versions", "unknown-type")


def test_compounds_nest_twice_and_no_deeper() -> None:
    def wrap(part: bytes) -> bytes:
        return b"\x07\x01" + len(part).to_bytes(2, "big") + part

    once = wrap(encode(Nack(1)))
    assert decode(wrap(once)).messages == [Nack(1)]
    assert decode(wrap(wrap(once))).rejected == ("too-deep",)


def test_a_packet_of_nested_compounds_cannot_hold_more_parts_than_one_compound() -> None:
    part = encode(Nack(1))
    inner = bytes((7, 200)) + len(part).to_bytes(2, "big") * 200 + part * 200
    outer = b"\x07\x02" + len(inner).to_bytes(2, "big") * 2 + inner * 2
    with pytest.raises(DatagramRejected, match="too-many-parts"):
        decode(outer)


def test_unknown_keys_and_trailing_bytes_are_ignored() -> None:
    assert decode(with_map(11, {"SeqNo": 3, "New": {"nested": [1, 2]}}) + b"trailing").messages == [Nack(3)]


def test_absent_fields_are_zero_as_in_go() -> None:
    assert decode(b"\x00\x80").messages == [Ping(0)]


def test_a_mapped_address_is_an_ipv4_address() -> None:
    (message,) = decode(alive(Addr=b"\0" * 10 + b"\xff\xff\x0a\x00\x00\x01")).messages
    assert message == Alive(1, "b", HERE)


@pytest.mark.parametrize(
    ("datagram", "reason"),
    [
        (b"", "empty"),
        (b"\x0c\x00\x00\x00", "truncated"),
        (b"\x07", "truncated"),
        (b"\x07\x02\x00", "truncated"),
        (b"\x09\x80", "bad-compression"),
        (b"\x00", "bad-msgpack"),
        (b"\x00\xc1", "bad-msgpack"),
        (b"\x00\x05", "not-a-map"),
        (b"\x00\xdf\xff\xff\xff\xff", "bad-msgpack"),
        (b"\x00" + b"\x91" * 5000, "bad-msgpack"),
        (b"x" * 70_000, "too-long"),
        (with_map(0, {"SeqNo": 2**32}), "bad-number"),
        (with_map(0, {"SeqNo": -1}), "bad-number"),
        (with_map(0, {"SeqNo": True}), "bad-number"),
        (with_map(0, {"SeqNo": 1, "Node": "x" * 200}), "bad-name"),
        (with_map(0, {"SeqNo": 1, "Node": b"\xff"}), "bad-name"),
        (with_map(0, {"SeqNo": 1, "Node": "line\nbreak"}), "bad-name"),
        (with_map(1, {"SeqNo": 1, "Nack": 1, "Target": b"\1\2\3\4", "Port": 1}), "bad-boolean"),
        (with_map(2, {"SeqNo": 1, "MaiaRoot": b"short"}), "bad-bytes"),
        (with_map(3, {"Incarnation": 1}), "bad-name"),
        (alive(Addr=b"\x0a\x00"), "bad-address"),
        (alive(Addr=None), "bad-address"),
        (alive(Port=0), "bad-address"),
        (alive(Port=70_000), "bad-number"),
        (alive(Meta=b"m" * 513), "bad-bytes"),
        (alive(Vsn=b""), "bad-versions"),
        (alive(Vsn=b"\x01\x05\x02"), "bad-versions"),
        (alive(Vsn=bytes((1, 5, 6, 2, 5, 4))), "bad-versions"),
        (alive(Incarnation=2**32 - 1), "hostile-incarnation"),
        (with_map(3, {"Incarnation": INCARNATION_MAX + 1, "Node": "b"}), "hostile-incarnation"),
        (with_map(5, {"Incarnation": INCARNATION_MAX + 1, "Node": "b"}), "hostile-incarnation"),
    ],
)
def test_what_is_no_message_is_refused_with_its_reason(datagram: bytes, reason: str) -> None:
    with pytest.raises(DatagramRejected) as refusal:
        decode(datagram)
    assert refusal.value.reason == reason


def test_who_is_accused_at_the_highest_incarnation_can_still_answer_with_a_higher_one() -> None:
    assert decode(with_map(5, {"Incarnation": INCARNATION_MAX, "Node": "b"})).messages == [Dead(INCARNATION_MAX, "b", "")]
    (message,) = decode(alive(Incarnation=INCARNATION_MAX + 1)).messages
    assert isinstance(message, Alive)


def test_a_message_that_no_packet_can_carry_is_not_encoded() -> None:
    fits = User(b"\x80" + b"x" * (MESSAGE_BYTES_MAX - 2))
    assert packed_size([encode(fits), b""]) <= PACKET_BYTES_MAX + 2
    with pytest.raises(MisuseError, match="1162"):
        encode(User(fits.body + b"x"))


def test_a_name_is_no_address() -> None:
    with pytest.raises(MisuseError, match="resolve names"):
        encode(Alive(1, "b", Address("gpu.local", 1)))
