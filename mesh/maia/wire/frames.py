"""Streams: the push/pull that two nodes exchange over TCP, one request and one reply a connection.

A stream has no outer length, so `StreamDecoder` takes bytes as they come and says when the message is whole. It holds no socket.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import msgpack

from maia.errors import DatagramRejected
from maia.wire.codec import ERROR, PUSH_PULL, blob, packed_host, read_alive, whole
from maia.wire.messages import STATE_LEFT, NodeState, PushPull

STREAM_BYTES_MAX: Final = 8 * 1024 * 1024  # a thousand nodes are 165 kB, and their catalogues 1.7 MB
NODES_MAX: Final = 16_384
OFFERS_BYTES_MAX: Final = 6 * 1024 * 1024
_MAP_FIELDS_MAX: Final = 64  # of one record; we know seven

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
    """Bytes in as they arrive, one `PushPull` out. A record that is malformed is left out and named in `rejected`."""

    def __init__(self) -> None:
        self.rejected: list[str] = []
        self._size = 0
        self._head = b""
        self._unpacker = msgpack.Unpacker(
            raw=True,
            max_buffer_size=STREAM_BYTES_MAX,
            max_bin_len=OFFERS_BYTES_MAX,
            max_str_len=OFFERS_BYTES_MAX,
            max_map_len=_MAP_FIELDS_MAX,
            max_array_len=_MAP_FIELDS_MAX,
            max_ext_len=0,
        )
        self._steps = self._read()

    def feed(self, chunk: bytes) -> PushPull | None:
        """The message once it is whole, None until then. Raises `DatagramRejected`, and is of no more use after that."""
        self._size += len(chunk)
        if self._size > STREAM_BYTES_MAX:
            raise DatagramRejected("stream-too-long")
        if not self._head:
            if not chunk:
                return None
            self._head, chunk = chunk[:1], chunk[1:]
            if self._head[0] != PUSH_PULL:
                raise DatagramRejected("stream-refused" if self._head[0] == ERROR else "unknown-stream", str(self._head[0]))
        try:
            self._unpacker.feed(chunk)
            return next(self._steps)
        except StopIteration as error:
            raise DatagramRejected("stream-already-whole") from error
        except (ValueError, TypeError, OverflowError, msgpack.UnpackException) as error:
            raise DatagramRejected("bad-msgpack", type(error).__name__) from error

    def _read(self) -> Iterator[PushPull | None]:
        header: dict[Any, Any] | None
        while (header := self._map()) is None:
            yield None
        count = whole(header, b"Nodes", most=NODES_MAX)
        state_size = whole(header, b"UserStateLen", most=STREAM_BYTES_MAX)
        join = header.get(b"Join", False)
        if type(join) is not bool:
            raise DatagramRejected("bad-boolean", "Join")
        offers = blob(header, b"MaiaOffers", most=OFFERS_BYTES_MAX)
        nodes: list[NodeState] = []
        for _ in range(count):
            record: dict[Any, Any] | None
            while (record := self._map()) is None:
                yield None
            try:
                nodes.append(NodeState(read_alive(record, key=b"Name"), whole(record, b"State", most=STATE_LEFT)))
            except DatagramRejected as error:
                self.rejected.append(error.reason)
        # The unpacker counts what it consumed; the type byte never reached it.
        while self._size - 1 - self._unpacker.tell() < state_size:
            yield None
        yield PushPull(tuple(nodes), join, bytes(self._unpacker.read_bytes(state_size)), offers)

    def _map(self) -> dict[Any, Any] | None:
        try:
            value = self._unpacker.unpack()
        except msgpack.OutOfData:
            return None
        if type(value) is not dict:
            raise DatagramRejected("not-a-map")
        return value
