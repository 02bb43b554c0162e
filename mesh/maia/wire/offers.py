"""Maia's own messages about offers, in memberlist's user messages whose first byte is 0x80 or more.

They are sent to one Maia node at a time and never broadcast. One repair reads: `Digest` (what I have, one row per node), answered by
`Listing` (what I have of the nodes where we differ), answered by `Want` (those, please), answered by `Entries`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import msgpack

from maia.config import GENERATION_MAX
from maia.errors import DatagramRejected
from maia.wire.codec import MESSAGE_BYTES_MAX, NAME_BYTES_MAX

ENTRIES: Final = 0x80
DIGEST: Final = 0x81
LISTING: Final = 0x82
WANT: Final = 0x83
PRIVATE_FROM: Final = 0x80

KEY_BYTES_MAX: Final = 64
VALUE_BYTES_MAX: Final = 8 * 1024
UDP_VALUE_BYTES_MAX: Final = 900  # with its name, key and numbers it still fits a packet
KEYS_MAX: Final = 64
VERSION_MAX: Final = 2**53
WITHDRAWN: Final = 1  # the flag of a slot that holds nothing any more
ROW_BYTES: Final = 12  # four of the name's hash, eight of the node's
# The type byte of a user message, the one of ours and an array header; what is left carries items.
ITEMS_BYTES_MAX: Final = MESSAGE_BYTES_MAX - 1 - 1 - 3

_packer = msgpack.Packer(use_bin_type=False, autoreset=True)


class Entry(NamedTuple):
    """One slot of what a node offers. A newer (generation, version) wins; only the owner makes new ones."""

    node: str
    generation: int
    key: str
    version: int
    flags: int
    value: bytes

    @property
    def big(self) -> bool:
        """Too big for a packet: it travels by stream."""
        return len(self.value) > UDP_VALUE_BYTES_MAX


@dataclass(frozen=True, slots=True)
class Entries:
    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class Digest:
    """Rows of twelve bytes: the name's hash, the node's hash."""

    rows: bytes


class Listed(NamedTuple):
    """What the sender has in one slot of a node."""

    node: str
    generation: int
    key: str
    version: int
    big: bool


@dataclass(frozen=True, slots=True)
class Listing:
    slots: tuple[Listed, ...]


@dataclass(frozen=True, slots=True)
class Want:
    slots: tuple[tuple[str, str], ...]  # (node, key)


OfferMessage = Entries | Digest | Listing | Want


def encode_entries(entries: Iterable[Entry], *, budget_bytes: int = ITEMS_BYTES_MAX) -> list[bytes]:
    """Bodies of user messages that carry `entries` between them, each filled up to the budget. None may be big."""
    return _fill(ENTRIES, (bytes(_packer.pack(tuple(entry))) for entry in entries), budget_bytes)


def encode_listing(slots: Iterable[Listed]) -> list[bytes]:
    return _fill(LISTING, (bytes(_packer.pack(tuple(slot))) for slot in slots), ITEMS_BYTES_MAX)


def encode_want(slots: Iterable[tuple[str, str]]) -> list[bytes]:
    return _fill(WANT, (bytes(_packer.pack(slot)) for slot in slots), ITEMS_BYTES_MAX)


def encode_digest(rows: bytes) -> bytes:
    return bytes((DIGEST,)) + rows


def _fill(kind: int, items: Iterable[bytes], budget_bytes: int) -> list[bytes]:
    bodies: list[bytes] = []
    held: list[bytes] = []
    size = 0
    for item in items:
        if held and size + len(item) > budget_bytes:
            bodies.append(_body(kind, held))
            held, size = [], 0
        held.append(item)
        size += len(item)
    if held:
        bodies.append(_body(kind, held))
    return bodies


def _body(kind: int, items: Sequence[bytes]) -> bytes:
    return b"".join((bytes((kind,)), _packer.pack_array_header(len(items)), *items))


def decode_offers(body: bytes) -> OfferMessage:
    """One of Maia's user messages. Raises `DatagramRejected`."""
    if not body:
        raise DatagramRejected("empty", "user message")
    kind = body[0]
    if kind == DIGEST:
        if (len(body) - 1) % ROW_BYTES:
            raise DatagramRejected("bad-digest")
        return Digest(body[1:])
    if kind == ENTRIES:
        return Entries(tuple(_items(body[1:], _read_entry)))
    if kind == LISTING:
        return Listing(tuple(_items(body[1:], _read_listed)))
    if kind == WANT:
        return Want(tuple(_items(body[1:], _read_wanted)))
    raise DatagramRejected("unknown-offers", str(kind))


def encode_exchange(rows: bytes, entries: Iterable[Entry]) -> bytes:
    """What a push/pull says of offers: the sender's digest, and entries for the receiver."""
    return bytes(_packer.pack((rows, [tuple(entry) for entry in entries])))


def decode_exchange(encoded: bytes) -> tuple[bytes, list[Entry]]:
    """The reverse of `encode_exchange`. Raises `DatagramRejected`."""
    match _unpack(encoded):
        case [bytes() as rows, list() as entries] if len(rows) % ROW_BYTES == 0:
            return rows, [_read_entry(entry) for entry in entries]
        case _:
            raise DatagramRejected("bad-offers")


def _unpack(encoded: bytes) -> Any:
    try:
        return msgpack.unpackb(encoded, raw=True)
    except (ValueError, TypeError, OverflowError, msgpack.UnpackException) as error:
        raise DatagramRejected("bad-msgpack", type(error).__name__) from error


def _items(encoded: bytes, read: Callable[[Any], Any]) -> list[Any]:
    items = _unpack(encoded)
    if type(items) is not list:
        raise DatagramRejected("bad-offers")
    return [read(item) for item in items]


def _read_entry(item: Any) -> Entry:
    match item:
        case [node, generation, key, version, int() as flags, bytes() as value] if 0 <= flags < 256 and len(value) <= VALUE_BYTES_MAX:
            return Entry(_name(node), _number(generation, GENERATION_MAX), _key(key), _number(version, VERSION_MAX), flags, value)
        case _:
            raise DatagramRejected("bad-entry")


def _read_listed(item: Any) -> Listed:
    match item:
        case [node, generation, key, version, bool() as big]:
            return Listed(_name(node), _number(generation, GENERATION_MAX), _key(key), _number(version, VERSION_MAX), big)
        case _:
            raise DatagramRejected("bad-listing")


def _read_wanted(item: Any) -> tuple[str, str]:
    match item:
        case [node, key]:
            return _name(node), _key(key)
        case _:
            raise DatagramRejected("bad-want")


def _name(value: Any) -> str:
    return _text(value, NAME_BYTES_MAX)


def _key(value: Any) -> str:
    return _text(value, KEY_BYTES_MAX)


def _text(value: Any, most: int) -> str:
    if type(value) is not bytes or not 0 < len(value) <= most:
        raise DatagramRejected("bad-name")
    try:
        decoded = value.decode()
    except UnicodeDecodeError as error:
        raise DatagramRejected("bad-name") from error
    if not decoded.isprintable():
        raise DatagramRejected("bad-name")
    return decoded


def _number(value: Any, most: int) -> int:
    if type(value) is not int or not 0 <= value <= most:
        raise DatagramRejected("bad-number")
    return value
