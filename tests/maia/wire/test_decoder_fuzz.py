"""Whatever the bytes are, a decoder raises `DatagramRejected` and nothing else."""

from __future__ import annotations

import contextlib

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.maia.keys import entry_of
from tests.maia.wire.test_codec import ONE_OF_EACH
from tests.maia.wire.test_serf import MESSAGES, STATES
from tests.maia.wire.test_tags import CONFIG, encode_tags

from maia.config import Address
from maia.errors import DatagramRejected
from maia.wire.codec import decode, encode, pack
from maia.wire.frames import StreamDecoder, encode_push_pull
from maia.wire.messages import NodeState, PushPull
from maia.wire.offers import Entries, Listed, decode_exchange, decode_offers, encode_entries, encode_exchange, encode_listing, encode_want
from maia.wire.serf import decode_key_answer, decode_key_request, decode_serf, decode_state
from maia.wire.tags import decode_tags

HERE = Address("10.0.0.1", 7946)
ALIVE = next(message for message in ONE_OF_EACH if type(message).__name__ == "Alive")
ENTRY = entry_of("a-000001", 1, "models/0", 3, 0, b"value")
REAL = [
    *(encode(message) for message in ONE_OF_EACH),
    pack([encode(message) for message in ONE_OF_EACH])[5:],  # without the checksum, so that mutations get past it
    pack([encode(message) for message in ONE_OF_EACH]),
]
REAL_OFFERS = [
    *encode_entries([ENTRY, ENTRY]),
    encode_exchange(b"r" * 12, [ENTRY, ENTRY]),
    *encode_listing([Listed("a-000001", 1, "models/0", 3, False)]),
    *encode_want([("a-000001", "models/0")]),
    b"\x81" + b"r" * 24,
]
STREAM = encode_push_pull(PushPull((NodeState(ALIVE, 0), NodeState(ALIVE, 2)), True, b"state", encode_exchange(b"r" * 12, [ENTRY])))


@st.composite
def mutated(draw: st.DrawFn, originals: list[bytes]) -> bytes:
    """A real one, cut short, with bytes changed, inserted or doubled."""
    data = bytearray(draw(st.sampled_from(originals)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        match draw(st.integers(0, 3)):
            case 0:
                del data[at:]
            case 1:
                data[at:at] = draw(st.binary(max_size=6))
            case 2:
                data[at : at + 1] = draw(st.binary(min_size=1, max_size=1))
            case 3:
                data[at:at] = data[: draw(st.integers(0, len(data)))]
    return bytes(data)


def anything(originals: list[bytes]) -> st.SearchStrategy[bytes]:
    return st.one_of(st.binary(max_size=1500), mutated(originals))


@given(anything(REAL))
@settings(max_examples=1500, deadline=None)
def test_a_datagram_of_any_bytes_is_read_or_rejected(data: bytes) -> None:
    with contextlib.suppress(DatagramRejected):
        for message in decode(data).messages:
            encode(message)  # and what was read could be told on


@given(anything(REAL_OFFERS))
@settings(max_examples=800, deadline=None)
def test_offers_of_any_bytes_are_read_or_rejected(data: bytes) -> None:
    with contextlib.suppress(DatagramRejected):
        message = decode_offers(data)
        if isinstance(message, Entries):  # what was read could be told on, and is the same then
            told_on = [decode_offers(body) for body in encode_entries(message.entries)]
            assert tuple(entry for again in told_on if isinstance(again, Entries) for entry in again.entries) == message.entries
    with contextlib.suppress(DatagramRejected):
        rows, entries = decode_exchange(data)
        assert decode_exchange(encode_exchange(rows, entries)) == (rows, entries)


@given(anything([*MESSAGES.values(), *STATES]))
@settings(max_examples=800, deadline=None)
def test_serf_s_messages_of_any_bytes_are_read_or_rejected(data: bytes) -> None:
    for decode_any in (decode_serf, decode_state, decode_key_request, decode_key_answer):
        with contextlib.suppress(DatagramRejected):
            decode_any(data)


@given(anything([encode_tags(CONFIG)]))
@settings(max_examples=500, deadline=None)
def test_tags_of_any_bytes_are_read_or_rejected(data: bytes) -> None:
    with contextlib.suppress(DatagramRejected):
        decode_tags(data, name="a-000001", gossip=HERE)


@given(anything([STREAM]), st.integers(1, 64))
@settings(max_examples=800, deadline=None)
def test_a_stream_of_any_bytes_in_any_pieces_is_read_or_rejected(data: bytes, size: int) -> None:
    decoder = StreamDecoder()
    with contextlib.suppress(DatagramRejected):
        for at in range(0, len(data), size):
            if decoder.feed(data[at : at + size]) is not None:
                break
