"""Streams: what two nodes say to each other over TCP, one request and one reply a connection: an exchange, or a ping and its ack.

A stream has no outer length, so `StreamDecoder` takes bytes as they come and says when the message is whole. It holds no socket.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Final

import msgpack

from maia.errors import DatagramRejected
from maia.wire.codec import ACK, COMPRESS, ERROR, PING, PUSH_PULL, blob, expanded, packed_host, read_ack, read_alive, read_ping, whole
from maia.wire.messages import STATE_LEFT, Ack, NodeState, Ping, PushPull
from maia.wire.seal import ENCRYPT, STREAM_HEADER_BYTES, Sealer

STREAM_BYTES_MAX: Final = 8 * 1024 * 1024  # a thousand nodes are 165 kB, and their catalogues 1.7 MB
NODES_MAX: Final = 16_384
OFFERS_BYTES_MAX: Final = 6 * 1024 * 1024
_MAP_FIELDS_MAX: Final = 64  # of one record; we know seven

StreamMessage = PushPull | Ping | Ack

_packer = msgpack.Packer(use_bin_type=False, autoreset=True)


def encode_push_pull(exchange: PushPull) -> bytes:
    """One side of an exchange, type byte first. Offers travel in a header key of ours, which stock agents ignore."""
    header: dict[str, object] = {"Nodes": len(exchange.nodes), "UserStateLen": len(exchange.user_state), "Join": exchange.join}
    if exchange.offers:
        header["MaiaOffers"] = exchange.offers
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
        self._source = _unpacker()
        self._available = 0
        self._wrapped = False  # inside of a layer that was whole when it was opened: what is missing there never comes
        self._steps = self._read()
        self._done = False

    def feed(self, chunk: bytes) -> StreamMessage | None:
        """The message once it is whole, None until then. Raises `DatagramRejected`, and is of no more use after that."""
        if self._done:
            raise DatagramRejected("stream-already-whole")
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
        if kind == ENCRYPT:
            self._enter((yield from self._unsealed()))
            kind = (yield from self._take(1))[0]
        elif self._sealer is not None:
            raise DatagramRejected("plaintext")
        if kind == COMPRESS:
            self._enter(expanded((yield from self._map()), bytes_max=STREAM_BYTES_MAX))
            kind = (yield from self._take(1))[0]
        if kind == PUSH_PULL:
            return (yield from self._push_pull())
        if kind == PING:
            return read_ping((yield from self._map()))
        if kind == ACK:
            return read_ack((yield from self._map()))
        raise DatagramRejected("stream-refused" if kind == ERROR else "unknown-stream", str(kind))

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
        nodes: list[NodeState] = []
        for _ in range(count):
            record = yield from self._map()
            try:
                nodes.append(NodeState(read_alive(record, key=b"Name"), whole(record, b"State", most=STATE_LEFT)))
            except DatagramRejected as error:
                self.rejected.append(error.reason)
        user_state = yield from self._take(state_size)
        return PushPull(tuple(nodes), join, user_state, offers)

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
        while True:
            try:
                value = self._source.unpack()
            except msgpack.OutOfData:
                yield from self._wait()
                continue
            if type(value) is not dict:
                raise DatagramRejected("not-a-map")
            return value

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
        max_map_len=_MAP_FIELDS_MAX,
        max_array_len=_MAP_FIELDS_MAX,
        max_ext_len=0,
    )
