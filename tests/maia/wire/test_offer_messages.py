"""Maia's own messages about offers."""

from __future__ import annotations

import msgpack
import pytest
from tests.maia.keys import entry_of

from maia.errors import DatagramRejected
from maia.identity import PUBLIC_KEY_BYTES, SIGNATURE_BYTES
from maia.wire.codec import PACKET_BYTES_MAX, encode
from maia.wire.messages import User
from maia.wire.offers import (
    UDP_VALUE_BYTES_MAX,
    VALUE_BYTES_MAX,
    Buckets,
    Differing,
    Digest,
    Entries,
    Listed,
    Listing,
    Want,
    decode_exchange,
    decode_offers,
    encode_buckets,
    encode_differing,
    encode_digest,
    encode_entries,
    encode_exchange,
    encode_listing,
    encode_want,
)

ENTRY = entry_of("a-000001", 2, "models/0", 7, 0, b"\x00\xffvalue")


def test_what_is_encoded_is_decoded() -> None:
    listed = Listed("a-000001", 2, "models/0", 7, True)
    assert [decode_offers(body) for body in encode_entries([ENTRY])] == [Entries((ENTRY,))]
    assert [decode_offers(body) for body in encode_listing([listed])] == [Listing((listed,))]
    assert [decode_offers(body) for body in encode_want([("a-000001", "models/0")])] == [Want((("a-000001", "models/0"),))]
    assert decode_offers(encode_digest(b"r" * 24)) == Digest(b"r" * 24)
    assert decode_offers(encode_digest(b"r" * 24, mask=b"12345678")) == Digest(b"r" * 24, b"12345678")
    assert decode_offers(encode_buckets(b"h" * 512)) == Buckets(b"h" * 512)
    assert decode_offers(encode_differing(b"12345678")) == Differing(b"12345678")
    assert decode_exchange(encode_exchange(b"r" * 12, [ENTRY])) == (b"r" * 12, [ENTRY])


def test_the_largest_entry_for_a_packet_fits_one() -> None:
    largest = entry_of("n" * 63, 2**53, "k" * 64, 2**53, 1, b"v" * UDP_VALUE_BYTES_MAX)
    (body,) = encode_entries([largest])
    assert len(encode(User(body))) <= PACKET_BYTES_MAX


def test_many_entries_take_as_few_packets_as_hold_them() -> None:
    entries = [entry_of(f"node-{number:06}", 1, "models/0", 1, 0, b"v" * 150) for number in range(40)]
    bodies = encode_entries(entries)
    read = [decode_offers(body) for body in bodies]
    assert [entry for message in read if isinstance(message, Entries) for entry in message.entries] == entries
    assert all(len(encode(User(body))) <= PACKET_BYTES_MAX for body in bodies)
    assert len(bodies) == 10  # four a packet, each of another node and so with its own key


def test_a_public_key_is_said_once_in_a_message_and_every_message_can_be_read_by_itself() -> None:
    entries = [entry_of(node, 1, f"models/{number}", 1, 0, b"v" * 150) for node in ("one-000001", "two-000002") for number in range(5)]
    bodies = encode_entries(entries)
    assert len(bodies) == 3
    for body in bodies:
        message = decode_offers(body)
        assert isinstance(message, Entries)
        for signer in {entry.signer for entry in message.entries}:
            assert body.count(signer) == 1
    encoded = encode_exchange(b"", entries)
    assert decode_exchange(encoded) == (b"", entries)
    assert [encoded.count(entry.signer) for entry in entries] == [1] * 10


PROOF = bytes(PUBLIC_KEY_BYTES + SIGNATURE_BYTES)


def packed(*items: object) -> bytes:
    return bytes(msgpack.packb(items, use_bin_type=False))


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "empty"),
        (b"\x99", "unknown-offers"),
        (b"\x81odd", "bad-digest"),
        (b"\x84" + bytes(511), "bad-digest"),
        (b"\x85" + bytes(9), "bad-digest"),
        (b"\x86" + bytes(7), "bad-digest"),
        (b"\x86" + bytes(8 + 13), "bad-digest"),
        (b"\x80" + msgpack.packb({"a": 1}), "bad-offers"),
        (b"\x80\xc1", "bad-offers"),
        (b"\x80\x91\x93\x01\x02", "bad-msgpack"),
        (b"\x80" + packed(["a", 1, "k", 1, 0, b""]), "bad-entry"),
        (b"\x80" + packed(["a", 1, "k", 1, 256, b"", PROOF]), "bad-entry"),
        (b"\x80" + packed(["a", 1, "k", 1, 0, b"v" * (VALUE_BYTES_MAX + 1), PROOF]), "bad-entry"),
        (b"\x80" + packed(["a", -1, "k", 1, 0, b"", PROOF]), "bad-number"),
        (b"\x80" + packed(["a", 1, "", 1, 0, b"", PROOF]), "bad-name"),
        (b"\x80" + packed(["a", 1, "k" * 65, 1, 0, b"", PROOF]), "bad-name"),
        (b"\x80" + packed(["a", 1, "k", 1, 0, b"", b""]), "unsigned"),
        (b"\x80" + packed(["a", 1, "k", 1, 0, b"", PROOF[:-1]]), "unsigned"),
        (b"\x80" + packed(["a", 1, "k", 1, 0, b"", PROOF + b"x"]), "unsigned"),
        (b"\x80" + packed(["a", 1, "k", 1, 0, b"", bytes(SIGNATURE_BYTES)]), "unsigned"),
        (b"\x80" + packed(["a", 1, "k", 1, 0, b"", PROOF], ["a", 1, "k", 2, 0, b"", b"short"]), "unsigned"),
        (b"\x82" + packed(["a", 1, "k", 1]), "bad-listing"),
        (b"\x83" + packed(["a"]), "bad-want"),
    ],
)
def test_what_is_no_message_about_offers_is_refused_by_its_reason(body: bytes, reason: str) -> None:
    with pytest.raises(DatagramRejected) as refusal:
        decode_offers(body)
    assert refusal.value.reason == reason
