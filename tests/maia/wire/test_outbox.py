"""Packets are filled to their budget and never over it."""

from __future__ import annotations

from random import Random

import pytest

from maia.config import Address
from maia.keyring import Keyring
from maia.view import Counters
from maia.wire.codec import MESSAGE_BYTES_MAX, PACKET_BYTES_MAX, PART_OVERHEAD, decode, encode
from maia.wire.messages import Nack, User
from maia.wire.outbox import Outbox
from maia.wire.seal import Sealer

A, B = Address("10.0.0.1", 1), Address("10.0.0.2", 1)


def test_what_is_said_to_one_address_travels_together() -> None:
    outbox = Outbox(Counters())
    outbox.say(A, Nack(1))
    outbox.say(B, Nack(2))
    outbox.say(A, Nack(3))
    packets = outbox.drain(None)
    assert [(packet.target, decode(packet.payload).messages) for packet in packets] == [(A, [Nack(1), Nack(3)]), (B, [Nack(2)])]
    assert outbox.drain(None) == []


def test_what_does_not_fit_one_packet_takes_more_and_none_is_over_the_budget() -> None:
    outbox = Outbox(Counters())
    said = [User(b"\x80" + bytes([number]) * 390) for number in range(10)]
    for message in said:
        outbox.say(A, message)
    packets = outbox.drain(None)
    assert [message for packet in packets for message in decode(packet.payload).messages] == said
    assert max(len(packet.payload) for packet in packets) <= PACKET_BYTES_MAX
    assert len(packets) == 4  # three to a packet


SEALER = Sealer(Keyring((b"k" * 16,)), random=Random(1))


@pytest.mark.parametrize("sealer", [None, SEALER])
def test_rumours_fill_what_is_left_to_the_byte_sealed_or_not(sealer: Sealer | None) -> None:
    outbox = Outbox(Counters(), sealer=sealer)
    outbox.say(A, Nack(1))

    def fill(budget_bytes: int, most: int) -> list[bytes]:
        assert most == 254
        half = (budget_bytes - 2 * PART_OVERHEAD) // 2
        return [encode(User(b"\x80" * (size - 1))) for size in (half, budget_bytes - 2 * PART_OVERHEAD - half)]

    (packet,) = outbox.drain(fill)
    assert len(packet.payload) == PACKET_BYTES_MAX


def test_the_biggest_message_that_may_be_said_fits_a_sealed_packet_with_a_rumour_s_share() -> None:
    counters = Counters()
    outbox = Outbox(counters, sealer=SEALER)
    biggest = User(b"\x80" * (MESSAGE_BYTES_MAX - 1))
    outbox.say(A, biggest)
    outbox.say(A, Nack(1))
    packets = outbox.drain(None)
    assert [decode(SEALER.open(packet.payload)).messages for packet in packets] == [[biggest], [Nack(1)]]
    assert max(len(packet.payload) for packet in packets) <= PACKET_BYTES_MAX
    assert sum(counters.bytes_out.values()) == sum(len(packet.payload) for packet in packets)


def test_a_nudge_is_a_packet_only_if_there_is_something_to_tell() -> None:
    outbox = Outbox(Counters())
    outbox.nudge(A)
    assert outbox.drain(lambda budget_bytes, most: []) == []
    outbox.nudge(A)
    assert len(outbox.drain(lambda budget_bytes, most: [encode(Nack(1))])) == 1


def test_a_rumour_that_was_said_anyway_is_not_told_twice_in_one_packet() -> None:
    outbox = Outbox(Counters())
    outbox.say(A, Nack(1))
    (packet,) = outbox.drain(lambda budget_bytes, most: [encode(Nack(1))])
    assert decode(packet.payload).messages == [Nack(1)]


def test_bytes_are_counted_by_the_kind_of_the_first_message() -> None:
    counters = Counters()
    outbox = Outbox(counters)
    outbox.say(A, Nack(1))
    (packet,) = outbox.drain(None)
    assert (counters.datagrams_out, counters.bytes_out) == ({"nack": 1}, {"nack": len(packet.payload)})
