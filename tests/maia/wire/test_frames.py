"""The push/pull stream, in pieces of every size."""

from __future__ import annotations

import msgpack
import pytest

from maia.config import Address
from maia.errors import DatagramRejected
from maia.wire.codec import encode
from maia.wire.frames import NODE_BYTES, NODES_MAX, SLICE_RECORDS, STREAM_BYTES_MAX, StreamDecoder, encode_push_pull
from maia.wire.messages import STATE_LEFT, Ack, Alive, NodeState, Ping, PushPull

STATE = PushPull(
    tuple(
        NodeState(Alive(number, f"node-{number}", Address("10.0.0.1", 7000 + number), b"\xff\x80"), number % 4) for number in range(1, 20)
    ),
    join=True,
    user_state=b"serf's own",
    offers=b"maia's own",
)


@pytest.mark.parametrize("size", [1, 2, 7, 64, 10_000])
def test_a_push_pull_is_whole_with_its_last_byte_and_not_before(size: int) -> None:
    encoded = encode_push_pull(STATE)
    decoder = StreamDecoder()
    pieces = [encoded[at : at + size] for at in range(0, len(encoded), size)]
    assert [decoder.feed(piece) for piece in pieces] == [None] * (len(pieces) - 1) + [STATE]


def test_a_stock_agent_s_push_pull_has_no_offers_and_nil_meta() -> None:
    record = {
        "Name": "stock",
        "Addr": b"\x0a\x00\x00\x02",
        "Port": 7946,
        "Meta": None,
        "Incarnation": 3,
        "State": 3,
        "Vsn": b"\1\5\2\2\5\5",
    }
    stream = b"\x06" + b"".join(
        msgpack.packb(part, use_bin_type=False) for part in ({"Nodes": 1, "UserStateLen": 0, "Join": False}, record)
    )
    alive = Alive(3, "stock", Address("10.0.0.2", 7946), b"", b"\1\5\2\2\5\5")
    assert StreamDecoder().feed(stream) == PushPull((NodeState(alive, STATE_LEFT),), join=False)


def test_a_malformed_record_is_left_out_and_named() -> None:
    good, bad = (
        {"Name": name, "Addr": b"\x0a\x00\x00\x02", "Port": 1, "Vsn": vsn} for name, vsn in (("good", b"\1\5\2\2\5\5"), ("bad", b"\1"))
    )
    stream = b"\x06" + b"".join(msgpack.packb(part, use_bin_type=False) for part in ({"Nodes": 2}, bad, good))
    decoder = StreamDecoder()
    whole = decoder.feed(stream)
    assert whole is not None
    assert [node.alive.node for node in whole.nodes] == ["good"]
    assert decoder.rejected == ["bad-versions"]


@pytest.mark.parametrize(
    ("stream", "reason"),
    [
        (b"\x08\x80", "unknown-stream"),
        (b"\x0d\x81\xa5Error\xa4full", "stream-refused"),
        (b"\x06\xc1", "bad-msgpack"),
        (b"\x06\x05", "not-a-map"),
        (b"\x06" + msgpack.packb({"Nodes": NODES_MAX + 1}), "bad-number"),
        (b"\x06" + msgpack.packb({"UserStateLen": STREAM_BYTES_MAX + 1}), "bad-number"),
        (b"\x06" + msgpack.packb({"Join": 1}), "bad-boolean"),
        (b"\x06\xdf\x00\x10\x00\x00", "bad-msgpack"),
        (b"\x06" + b"\x81" * 3000, "bad-msgpack"),
    ],
)
def test_what_is_no_push_pull_is_refused_with_its_reason(stream: bytes, reason: str) -> None:
    with pytest.raises(DatagramRejected) as refusal:
        StreamDecoder().feed(stream)
    assert refusal.value.reason == reason


def test_a_stream_without_end_is_refused_at_its_limit() -> None:
    decoder = StreamDecoder()
    decoder.feed(b"\x06" + msgpack.packb({"UserStateLen": STREAM_BYTES_MAX}))
    chunk = b"x" * 65_536
    for _ in range(STREAM_BYTES_MAX // len(chunk) - 1):
        assert decoder.feed(chunk) is None
    decoder.feed(chunk[:-64])
    with pytest.raises(DatagramRejected, match="stream-too-long"):
        decoder.feed(chunk)


@pytest.mark.parametrize("message", [Ping(7, "node", Address("10.0.0.1", 1), "me"), Ack(7)])
def test_a_ping_and_its_ack_travel_by_stream_too(message: Ping | Ack) -> None:
    encoded = encode(message)
    decoder = StreamDecoder()
    found = [decoder.feed(encoded[at : at + 1]) for at in range(len(encoded))]
    assert found == [None] * (len(found) - 1) + [message]


def test_a_long_stream_is_read_in_slices_and_says_what_it_holds() -> None:
    """Between two of them the mesh does everything else; nobody who calls `feed` notices."""
    records = tuple(NodeState(Alive(1, f"node-{number}", Address("10.0.0.1", 7000)), 0) for number in range(1000))
    encoded = encode_push_pull(PushPull(records, join=False))
    decoder = StreamDecoder()
    message, slices = decoder.feed_slice(encoded), 1
    held = [decoder.held_bytes]
    while decoder.busy:
        message, slices = decoder.feed_slice(b""), slices + 1
        held.append(decoder.held_bytes)
    assert isinstance(message, PushPull)
    assert slices == 1 + len(records) // SLICE_RECORDS
    assert held == sorted(held)
    assert held[-1] >= len(encoded) + NODE_BYTES * len(records)
    assert StreamDecoder().feed(encoded) == message
