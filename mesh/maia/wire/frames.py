"""Streams: what two nodes say to each other over TCP, one request and one reply a connection: an exchange, or a ping and its ack.

A stream has no outer length, so `StreamDecoder` takes bytes as they come and says when the message is whole. It holds no socket.

Whoever can connect can send anything, so no part of a stream may cost more than its bytes: fields hold plain values and never lists or
maps (an extension travels as bytes, like `MaiaOffers`), and what takes long is cut in slices.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Final

import msgpack

from maia.errors import DatagramRejected
from maia.keyring import FINGERPRINT_BYTES, KEYS_MAX
from maia.wire.codec import ACK, COMPRESS, ERROR, PING, PUSH_PULL, blob, compressed, packed_host, read_ack, read_alive, read_ping, whole
from maia.wire.compress import expanding
from maia.wire.messages import STATE_LEFT, Ack, NodeState, Ping, PushPull
from maia.wire.seal import ENCRYPT, LABEL, STREAM_HEADER_BYTES, Sealer

STREAM_BYTES_MAX: Final = 8 * 1024 * 1024  # a thousand nodes are 165 kB, and their catalogues 1.7 MB
# What was compressed may hold: 4096 members of a stock agent are 700 kB, and its 512 last events, of 512 bytes each, 300 kB.
EXPANDED_BYTES_MAX: Final = 4 * 1024 * 1024
COMPRESSED_BYTES_MAX: Final = 1024 * 1024  # as such states come; unpacked in 128 slices
NODES_MAX: Final = 8192  # twice the members that a node keeps
NODE_BYTES: Final = 512  # what a record takes in memory, beside its own bytes
SLICE_RECORDS: Final = 256  # two milliseconds
OFFERS_BYTES_MAX: Final = 6 * 1024 * 1024
_MAP_FIELDS_MAX: Final = 64  # of one record; we know seven

StreamMessage = PushPull | Ping | Ack

_packer = msgpack.Packer(use_bin_type=False, autoreset=True)


def encode_push_pull(exchange: PushPull) -> bytes:
    """One side of an exchange, type byte first. Offers travel in a header key of ours, which stock agents ignore."""
    header: dict[str, object] = {"Nodes": len(exchange.nodes), "UserStateLen": len(exchange.user_state), "Join": exchange.join}
    if exchange.offers:
        header["MaiaOffers"] = exchange.offers
    if exchange.keys:
        header["MaiaKeys"] = exchange.keys
    parts = [bytes((PUSH_PULL,)), _packer.pack(header)]
    for node in exchange.nodes:
        alive = node.alive
        parts.append(
            _packer.pack(
                {
                    "Name": alive.node,
                    "Addr": packed_host(alive.address.host),
                    "Port": alive.address.port,
                    "Meta": alive.meta or None,
                    "Incarnation": alive.incarnation,
                    "State": node.state,
                    "Vsn": alive.vsn,
                }
            )
        )
    parts.append(exchange.user_state)
    return b"".join(parts)


class StreamDecoder:
    """Bytes in as they arrive, one message out. A record that is malformed is left out and named in `rejected`.

    With a `sealer` nothing is read that was not sealed, without one nothing that was.
    """

    def __init__(self, sealer: Sealer | None = None) -> None:
        self._sealer = sealer
        self.rejected: list[str] = []
        self.size = 0  # of what was fed
        self.busy = False  # stopped at the end of a slice: `feed_slice` goes on without more bytes
        self._source = _unpacker()
        self._available = 0
        self._unpacked = 0  # of a compressed layer
        self._records = 0
        self._wrapped = False  # inside of a layer that was whole when it was opened: what is missing there never comes
        self._steps = self._read()
        self._done = False

    @property
    def held_bytes(self) -> int:
        """About what it takes in memory now."""
        return self.size + self._unpacked + NODE_BYTES * self._records

    def close(self) -> None:
        """No more will come: let go of what is held at once. Left to itself it holds itself, until somebody collects garbage."""
        self._steps.close()

    def feed(self, chunk: bytes) -> StreamMessage | None:
        """The message once it is whole, None until then. Raises `DatagramRejected`, and is of no more use after that."""
        message = self.feed_slice(chunk)
        while self.busy:
            message = self.feed_slice(b"")
        return message

    def feed_slice(self, chunk: bytes) -> StreamMessage | None:
        """The same, but it returns after a few milliseconds at most, with `busy` where it has not done with what it was fed."""
        if self._done:
            raise DatagramRejected("stream-already-whole")
        self.busy = False
        self.size += len(chunk)
        if self.size > STREAM_BYTES_MAX:
            raise DatagramRejected("stream-too-long")
        try:
            self._source.feed(chunk)
            self._available += len(chunk)
            next(self._steps)
        except StopIteration as end:
            self._done = True
            message: StreamMessage = end.value
            return message
        except (ValueError, TypeError, OverflowError, msgpack.UnpackException) as error:
            raise DatagramRejected("bad-msgpack", type(error).__name__) from error
        return None

    def _read(self) -> Generator[None, None, StreamMessage]:
        kind = (yield from self._take(1))[0]
        if kind == LABEL:
            raise DatagramRejected("labelled")
        if kind == ENCRYPT:
            self._enter((yield from self._unsealed()))
            kind = (yield from self._take(1))[0]
        elif self._sealer is not None:
            raise DatagramRejected("plaintext")
        if kind == COMPRESS:
            self._enter((yield from self._expanded()))
            kind = (yield from self._take(1))[0]
        if kind == PUSH_PULL:
            return (yield from self._push_pull())
        if kind == PING:
            return read_ping((yield from self._map()))
        if kind == ACK:
            return read_ack((yield from self._map()))
        raise DatagramRejected("stream-refused" if kind == ERROR else "unknown-stream", str(kind))

    def _expanded(self) -> Generator[None, None, bytes]:
        steps = expanding(compressed((yield from self._map()), most=COMPRESSED_BYTES_MAX), bytes_max=EXPANDED_BYTES_MAX)
        while True:
            try:
                # In pieces until it is done, then once more as a whole.
                self._unpacked = 2 * next(steps)
            except StopIteration as end:
                expanded: bytes = end.value
                self._unpacked = len(expanded)
                return expanded
            yield from self._rest()

    def _unsealed(self) -> Generator[None, None, bytes]:
        if self._sealer is None:
            raise DatagramRejected("sealed")
        length = yield from self._take(STREAM_HEADER_BYTES - 1)
        size = int.from_bytes(length, "big")
        if size > STREAM_BYTES_MAX:  # memberlist waits for 20 MiB, from anybody who connects
            raise DatagramRejected("stream-too-long")
        sealed = yield from self._take(size)
        return self._sealer.open(sealed, vouched=bytes((ENCRYPT,)) + length)

    def _push_pull(self) -> Generator[None, None, PushPull]:
        header = yield from self._map()
        count = whole(header, b"Nodes", most=NODES_MAX)
        state_size = whole(header, b"UserStateLen", most=STREAM_BYTES_MAX)
        join = header.get(b"Join", False)
        if type(join) is not bool:
            raise DatagramRejected("bad-boolean", "Join")
        offers = blob(header, b"MaiaOffers", most=OFFERS_BYTES_MAX)
        keys = blob(header, b"MaiaKeys", most=KEYS_MAX * FINGERPRINT_BYTES)
        if len(keys) % FINGERPRINT_BYTES:
            raise DatagramRejected("bad-bytes", "MaiaKeys")
        nodes: list[NodeState] = []
        for number in range(1, count + 1):
            record = yield from self._map()
            self._records = number
            if not number % SLICE_RECORDS:
                yield from self._rest()
            try:
                nodes.append(NodeState(read_alive(record, key=b"Name"), whole(record, b"State", most=STATE_LEFT)))
            except DatagramRejected as error:
                self.rejected.append(error.reason)
        user_state = yield from self._take(state_size)
        return PushPull(tuple(nodes), join, user_state, offers, keys)

    def _enter(self, inner: bytes) -> None:
        """Go on with what a layer held; what follows that layer is ignored."""
        self._source = _unpacker()
        self._source.feed(inner)
        self._available = len(inner)
        self._wrapped = True

    def _take(self, size: int) -> Generator[None, None, bytes]:
        while self._available - self._source.tell() < size:
            yield from self._wait()
        return bytes(self._source.read_bytes(size))

    def _map(self) -> Generator[None, None, dict[Any, Any]]:
        header = (yield from self._take(1))[0]
        if header & 0xF0 == 0x80:
            fields = header & 0x0F
        elif header in (0xDE, 0xDF):
            fields = int.from_bytes((yield from self._take(2 if header == 0xDE else 4)), "big")
        else:
            raise DatagramRejected("bad-msgpack" if header == 0xC1 else "not-a-map")
        if fields > _MAP_FIELDS_MAX:
            raise DatagramRejected("bad-msgpack", f"{fields} fields")
        body: dict[Any, Any] = {}
        for _ in range(fields):
            key = yield from self._plain()
            body[key] = yield from self._plain()
        return body

    def _plain(self) -> Generator[None, None, Any]:
        while True:
            try:
                return self._source.unpack()
            except msgpack.OutOfData:
                yield from self._wait()

    def _rest(self) -> Generator[None, None, None]:
        self.busy = True
        yield

    def _wait(self) -> Generator[None, None, None]:
        if self._wrapped:
            raise DatagramRejected("truncated")
        yield


def _unpacker() -> msgpack.Unpacker:
    return msgpack.Unpacker(
        raw=True,
        max_buffer_size=STREAM_BYTES_MAX,
        max_bin_len=OFFERS_BYTES_MAX,
        max_str_len=OFFERS_BYTES_MAX,
        max_map_len=0,
        max_array_len=0,
        max_ext_len=0,
    )
