"""Packets: memberlist's messages in the old msgpack that go-msgpack 0.5 reads, alone or in a compound, with or without a checksum.

A packet is one message, or a compound of up to 255, perhaps compressed, perhaps behind a checksum. A malformed part of a compound is left
out and named in `Packet.rejected`: one poisoned rumour must not silence those that travel with it. Anything else malformed rejects the
whole.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, Final, assert_never

import msgpack

from maia.config import INCARNATION_MAX, LOAD_BYTES_MAX, Address
from maia.errors import DatagramRejected, MisuseError
from maia.wire.compress import expand
from maia.wire.messages import PRIVATE_FROM, Ack, Alive, Dead, IndirectPing, Message, Nack, Ping, Suspect, User
from maia.wire.seal import LABEL, SEAL_OVERHEAD

PING: Final = 0
INDIRECT_PING: Final = 1
ACK: Final = 2
SUSPECT: Final = 3
ALIVE: Final = 4
DEAD: Final = 5
PUSH_PULL: Final = 6
COMPOUND: Final = 7
USER: Final = 8
COMPRESS: Final = 9
NACK: Final = 11
HAS_CRC: Final = 12
ERROR: Final = 13

KINDS: Final = {
    PING: "ping",
    INDIRECT_PING: "indirect-ping",
    ACK: "ack",
    SUSPECT: "suspect",
    ALIVE: "alive",
    DEAD: "dead",
    USER: "offers",
    NACK: "nack",
}

_KIND_OF: Final = {
    Ping: "ping",
    IndirectPing: "indirect-ping",
    Ack: "ack",
    Suspect: "suspect",
    Alive: "alive",
    Dead: "dead",
    User: "offers",
    Nack: "nack",
}

_PRIVATE: Final = bytes((PRIVATE_FROM,))

LZW: Final = 0  # the only compression that memberlist knows

# 1200 and not memberlist's 1400: it also fits where a tunnel takes its share of a 1280-byte path (RFC 8200's minimum, QUIC's choice).
PACKET_BYTES_MAX: Final = 1200
CRC_OVERHEAD: Final = 5
CHECKSUM_PROTOCOL: Final = 5  # of memberlist: the first that reads a checksum; to somebody unknown it sends none
COMPOUND_OVERHEAD: Final = 2
PART_OVERHEAD: Final = 2
# What one message may measure so that it travels even as the only part of a sealed compound with a checksum.
MESSAGE_BYTES_MAX: Final = PACKET_BYTES_MAX - SEAL_OVERHEAD - CRC_OVERHEAD - COMPOUND_OVERHEAD - PART_OVERHEAD

# memberlist fills 1400 bytes, and Serf knows no event of more than 9 KiB: what is longer was sent by nobody who belongs here. To unpack so
# much takes five milliseconds, and that is what one datagram may cost.
DATAGRAM_BYTES_MAX: Final = 16_384
PARTS_MAX: Final = 255
NESTING_MAX: Final = 2  # a compound in a compound is legal and pointless; nothing deeper was ever seen
NAME_BYTES_MAX: Final = 128  # Serf's own limit; ours are shorter
META_BYTES_MAX: Final = 512
PAYLOAD_BYTES_MAX: Final = 1024
ROOT_BYTES: Final = 8
RELAY_TIMEOUT_MS_MAX: Final = 10_000  # three times that of the slowest profile; a relay is kept for so long
VSN_BYTES: Final = 6
UINT32_MAX: Final = 2**32 - 1
BROADCAST: Final = IPv4Address("255.255.255.255")
# Who is accused at INCARNATION_MAX must still be able to answer with a higher one that everybody accepts; see `config.INCARNATION_MAX`.
ALIVE_INCARNATION_MAX: Final = INCARNATION_MAX + 2**20

_packer = msgpack.Packer(use_bin_type=False, autoreset=True)


@dataclass(frozen=True, slots=True)
class Packet:
    messages: list[Message]
    rejected: tuple[str, ...] = ()  # reasons of the parts that were left out


def kind_of(message: Message) -> str:
    """The message's kind, for counting: as in `KINDS`, and "serf" for a user message that is not ours."""
    if type(message) is User and message.body[:1] < _PRIVATE:
        return "serf"
    return _KIND_OF[type(message)]


def kind_in(encoded: bytes) -> str:
    """The same of an encoded message."""
    return "serf" if encoded[0] == USER and encoded[1:2] < _PRIVATE else KINDS[encoded[0]]


@lru_cache(maxsize=4096)
def packed_host(host: str) -> bytes:
    """The four or sixteen bytes of an IP literal. Raises `MisuseError` for anything else."""
    try:
        return ip_address(host).packed
    except ValueError as error:
        raise MisuseError(f"{host!r} is not an IP address; resolve names before they reach the mesh") from error


@lru_cache(maxsize=4096)
def host_of(packed: bytes) -> str:
    """The IP literal of four or sixteen bytes; a mapped IPv4 address is an IPv4 address.

    Raises `DatagramRejected`, also for what is nobody's address: unspecified, multicast, broadcast.
    """
    if len(packed) not in (4, 16):
        raise DatagramRejected("bad-address", f"{len(packed)} bytes")
    address: IPv4Address | IPv6Address = ip_address(packed)
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    # What we are told to send there would go to ourselves, or to everybody.
    if address.is_unspecified or address.is_multicast or address == BROADCAST:
        raise DatagramRejected("bad-address", str(address))
    return str(address)


# --- out --------------------------------------------------------------------------------------------------------------------------------


def encode(message: Message) -> bytes:
    """One message with its type byte. Raises `MisuseError` when a compound could not carry it."""
    encoded: bytes
    match message:
        case Ping():
            fields: dict[str, object] = {"SeqNo": message.sequence, "Node": message.node}
            _add_source(fields, message.source, message.source_node)
            encoded = b"\x00" + _packer.pack(fields)
        case Ack():
            fields = {"SeqNo": message.sequence, "Payload": message.payload or None}
            if message.root:
                fields["MaiaRoot"] = message.root
            if message.load:
                fields["MaiaLoad"] = message.load
            encoded = b"\x02" + _packer.pack(fields)
        case Alive():
            encoded = b"\x04" + _packer.pack(
                {
                    "Incarnation": message.incarnation,
                    "Node": message.node,
                    "Addr": packed_host(message.address.host),
                    "Port": message.address.port,
                    "Meta": message.meta or None,
                    "Vsn": message.vsn,
                }
            )
        case Suspect():
            encoded = b"\x03" + _packer.pack({"Incarnation": message.incarnation, "Node": message.node, "From": message.accuser})
        case Dead():
            encoded = b"\x05" + _packer.pack({"Incarnation": message.incarnation, "Node": message.node, "From": message.accuser})
        case User():
            encoded = b"\x08" + message.body
        case IndirectPing():
            fields = {
                "SeqNo": message.sequence,
                "Target": packed_host(message.target.host),
                "Port": message.target.port,
                "Node": message.node,
                "Nack": message.wants_nack,
            }
            _add_source(fields, message.source, message.source_node)
            if message.timeout_ms:
                fields["MaiaTimeout"] = message.timeout_ms
            encoded = b"\x01" + _packer.pack(fields)
        case Nack():
            encoded = b"\x0b" + _packer.pack({"SeqNo": message.sequence})
        case _:
            assert_never(message)
    if len(encoded) > MESSAGE_BYTES_MAX:
        raise MisuseError(f"a {KINDS[encoded[0]]} message of {len(encoded)} bytes exceeds the {MESSAGE_BYTES_MAX} that a packet carries")
    return encoded


def _add_source(fields: dict[str, object], source: Address | None, source_node: str) -> None:
    if source is not None:
        fields["SourceAddr"] = packed_host(source.host)
        fields["SourcePort"] = source.port
        fields["SourceNode"] = source_node


def pack(parts: Sequence[bytes], *, checksum: bool = True) -> bytes:
    """Encoded messages as one packet. A single one goes bare; several carry a checksum, since they change what the receiver believes.

    Without `checksum` for who may not be able to read one. Their size is the caller's affair: `packed_size` says what it will be.
    """
    if len(parts) == 1:
        return parts[0]
    body = b"".join((bytes((COMPOUND, len(parts))), *(len(part).to_bytes(2, "big") for part in parts), *parts))
    if not checksum:
        return body
    return b"\x0c" + zlib.crc32(body).to_bytes(4, "big") + body


def packed_size(parts: Sequence[bytes]) -> int:
    """What `pack` makes of them, in bytes."""
    size = sum(map(len, parts))
    return size if len(parts) == 1 else size + CRC_OVERHEAD + COMPOUND_OVERHEAD + PART_OVERHEAD * len(parts)


# --- in ---------------------------------------------------------------------------------------------------------------------------------


def decode(datagram: bytes) -> Packet:
    """The messages of a packet. Raises `DatagramRejected`."""
    if len(datagram) > DATAGRAM_BYTES_MAX:
        raise DatagramRejected("too-long", f"{len(datagram)} bytes")
    if datagram and datagram[0] == LABEL:
        raise DatagramRejected("labelled")
    if datagram and datagram[0] == HAS_CRC:
        if len(datagram) <= CRC_OVERHEAD:
            raise DatagramRejected("truncated", "checksum without a message")
        body = datagram[CRC_OVERHEAD:]
        if zlib.crc32(body) != int.from_bytes(datagram[1:CRC_OVERHEAD], "big"):
            raise DatagramRejected("bad-checksum")
        datagram = body
    if datagram and datagram[0] == COMPRESS:
        datagram = expand(compressed(read_map(datagram[1:]), most=DATAGRAM_BYTES_MAX), bytes_max=DATAGRAM_BYTES_MAX)
    if not datagram:
        raise DatagramRejected("empty")
    if datagram[0] != COMPOUND:
        return Packet([_decode_one(datagram)])
    messages: list[Message] = []
    rejected: list[str] = []
    _open_compound(datagram, messages, rejected, depth=1)
    return Packet(messages, tuple(rejected))


def _open_compound(datagram: bytes, messages: list[Message], rejected: list[str], *, depth: int) -> None:
    if len(datagram) < COMPOUND_OVERHEAD:
        raise DatagramRejected("truncated", "compound without a count")
    count = datagram[1]
    at = COMPOUND_OVERHEAD + PART_OVERHEAD * count
    if len(datagram) < at:
        raise DatagramRejected("truncated", f"compound of {count} parts without their lengths")
    for index in range(count):
        start = COMPOUND_OVERHEAD + PART_OVERHEAD * index
        size = int.from_bytes(datagram[start : start + PART_OVERHEAD], "big")
        part = datagram[at : at + size]
        at += size
        if len(messages) + len(rejected) >= PARTS_MAX:
            raise DatagramRejected("too-many-parts")
        if len(part) < size or not part:
            rejected.append("truncated")
        elif part[0] != COMPOUND:
            try:
                messages.append(_decode_one(part))
            except DatagramRejected as error:
                rejected.append(error.reason)
        elif depth < NESTING_MAX:
            _open_compound(part, messages, rejected, depth=depth + 1)
        else:
            rejected.append("too-deep")


def _decode_one(encoded: bytes) -> Message:
    if encoded[0] == USER:
        return User(encoded[1:])
    if encoded[0] in (ALIVE, SUSPECT, DEAD):
        return _decode_rumour(encoded)
    return _decode_fields(encoded)


# A rumour comes from everybody who tells it, byte by byte the same: forty times in a mesh of ten.
@lru_cache(maxsize=512)
def _decode_rumour(encoded: bytes) -> Message:
    return _decode_fields(encoded)


def _decode_fields(encoded: bytes) -> Message:
    reader = _READERS.get(encoded[0])
    if reader is None:
        raise DatagramRejected("unknown-type", str(encoded[0]))
    return reader(read_map(encoded[1:]))


def read_ping(body: dict[Any, Any]) -> Ping:
    """Raises `DatagramRejected`, as all of these do."""
    return Ping(whole(body, b"SeqNo"), text(body, b"Node"), _source(body), text(body, b"SourceNode"))


def read_ack(body: dict[Any, Any]) -> Ack:
    root = blob(body, b"MaiaRoot", most=ROOT_BYTES)
    if root and len(root) != ROOT_BYTES:
        raise DatagramRejected("bad-bytes", "MaiaRoot")
    load = body.get(b"MaiaLoad", b"")
    if type(load) is not bytes or len(load) > LOAD_BYTES_MAX:
        load = None  # not worth the ack: that its sender lives is more than how busy it is
    return Ack(whole(body, b"SeqNo"), blob(body, b"Payload", most=PAYLOAD_BYTES_MAX), root, load)


def read_map(encoded: bytes) -> dict[Any, Any]:
    """The msgpack map at the start of `encoded`; what trails it is ignored, as memberlist does. Raises `DatagramRejected`."""
    try:
        body = msgpack.unpackb(encoded, raw=True)
    except msgpack.ExtraData as extra:
        body = extra.unpacked
    except (ValueError, TypeError, OverflowError, msgpack.UnpackException) as error:
        raise DatagramRejected("bad-msgpack", type(error).__name__) from error
    if type(body) is not dict:
        raise DatagramRejected("not-a-map")
    return body


def compressed(body: dict[Any, Any], *, most: int) -> bytes:
    """What is inside of the map of a compress message, for `compress` to expand. Raises `DatagramRejected`."""
    if whole(body, b"Algo") != LZW:
        raise DatagramRejected("unknown-compression")
    return blob(body, b"Buf", most=most)


def whole(body: dict[Any, Any], key: bytes, *, most: int = UINT32_MAX) -> int:
    """A number from 0 to `most`; absent is 0. Raises `DatagramRejected`."""
    value = body.get(key, 0)
    if type(value) is not int or not 0 <= value <= most:
        raise DatagramRejected("bad-number", key.decode())
    return value


def text(body: dict[Any, Any], key: bytes) -> str:
    """A printable name, or "" where it is absent. Raises `DatagramRejected`."""
    value = body.get(key, b"")
    if type(value) is not bytes or len(value) > NAME_BYTES_MAX:
        raise DatagramRejected("bad-name", key.decode())
    try:
        name = value.decode()
    except UnicodeDecodeError as error:
        raise DatagramRejected("bad-name", key.decode()) from error
    if not name.isprintable():
        raise DatagramRejected("bad-name", key.decode())
    return name


def name(body: dict[Any, Any], key: bytes = b"Node") -> str:
    """A name that must be there. Raises `DatagramRejected`."""
    value = text(body, key)
    if not value:
        raise DatagramRejected("bad-name", key.decode())
    return value


def blob(body: dict[Any, Any], key: bytes, *, most: int) -> bytes:
    """Bytes, at most `most` of them; nil and absent are empty. Raises `DatagramRejected`."""
    value = body.get(key)
    if value is None:
        return b""
    if type(value) is not bytes or len(value) > most:
        raise DatagramRejected("bad-bytes", key.decode())
    return value


def address(body: dict[Any, Any], host: bytes, port: bytes) -> Address:
    """An address that must be there. Raises `DatagramRejected`."""
    packed = body.get(host)
    if type(packed) is not bytes:
        raise DatagramRejected("bad-address", host.decode())
    number = whole(body, port, most=65_535)
    if number == 0:
        raise DatagramRejected("bad-address", port.decode())
    return Address(host_of(packed), number)


def _source(body: dict[Any, Any]) -> Address | None:
    return address(body, b"SourceAddr", b"SourcePort") if body.get(b"SourceAddr") else None


def _read_indirect_ping(body: dict[Any, Any]) -> IndirectPing:
    wants_nack = body.get(b"Nack", False)
    if type(wants_nack) is not bool:
        raise DatagramRejected("bad-boolean", "Nack")
    return IndirectPing(
        whole(body, b"SeqNo"),
        address(body, b"Target", b"Port"),
        text(body, b"Node"),
        wants_nack,
        _source(body),
        text(body, b"SourceNode"),
        whole(body, b"MaiaTimeout", most=RELAY_TIMEOUT_MS_MAX),
    )


def _read_nack(body: dict[Any, Any]) -> Nack:
    return Nack(whole(body, b"SeqNo"))


def incarnation(body: dict[Any, Any], *, most: int) -> int:
    """A believable incarnation. Raises `DatagramRejected("hostile-incarnation")` near the end of u32: nobody lives that long."""
    value = whole(body, b"Incarnation")
    if value > most:
        raise DatagramRejected("hostile-incarnation", str(value))
    return value


def _read_suspect(body: dict[Any, Any]) -> Suspect:
    return Suspect(incarnation(body, most=INCARNATION_MAX), name(body), text(body, b"From"))


def _read_dead(body: dict[Any, Any]) -> Dead:
    return Dead(incarnation(body, most=INCARNATION_MAX), name(body), text(body, b"From"))


def read_alive(body: dict[Any, Any], *, key: bytes = b"Node") -> Alive:
    """An alive message, or with `Name` as its key the same fields of a push/pull record. Raises `DatagramRejected`."""
    vsn = blob(body, b"Vsn", most=VSN_BYTES)
    # Three (min, max, current) twice. A short one panics stock agents, so it must never be passed on.
    if len(vsn) != VSN_BYTES or not (vsn[0] <= vsn[2] <= vsn[1] and vsn[3] <= vsn[5] <= vsn[4]):
        raise DatagramRejected("bad-versions", vsn.hex())
    return Alive(
        incarnation(body, most=ALIVE_INCARNATION_MAX),
        name(body, key),
        address(body, b"Addr", b"Port"),
        blob(body, b"Meta", most=META_BYTES_MAX),
        vsn,
    )


_READERS: Final[dict[int, Callable[[dict[Any, Any]], Message]]] = {
    PING: read_ping,
    INDIRECT_PING: _read_indirect_ping,
    ACK: read_ack,
    NACK: _read_nack,
    SUSPECT: _read_suspect,
    ALIVE: read_alive,
    DEAD: _read_dead,
}
