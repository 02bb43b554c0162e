"""Maia's own messages about offers, in memberlist's user messages whose first byte is 0x80 or more.

They are sent to one Maia node at a time and never broadcast. One repair reads: `Digest` (what I have, one row per node), answered by
`Listing` (what I have of the nodes where we differ), answered by `Want` (those, please), answered by `Entries`. Between those who know many
nodes it begins with `Buckets` (what I have, one hash per 64th of the nodes), answered by `Differing`, answered by a `Digest` of those.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import msgpack

from maia.config import GENERATION_MAX
from maia.errors import DatagramRejected
from maia.identity import PUBLIC_KEY_BYTES, SIGNATURE_BYTES
from maia.wire.codec import MESSAGE_BYTES_MAX, NAME_BYTES_MAX

ENTRIES: Final = 0x80
DIGEST: Final = 0x81
LISTING: Final = 0x82
WANT: Final = 0x83
BUCKET_HASHES: Final = 0x84
DIFFERING: Final = 0x85
PARTIAL_DIGEST: Final = 0x86

KEY_BYTES_MAX: Final = 64
VALUE_BYTES_MAX: Final = 8 * 1024
UDP_VALUE_BYTES_MAX: Final = 900  # with its name, key and numbers it still fits a packet
KEYS_MAX: Final = 64
FIELDS_MAX: Final = 16  # of one item; an entry has seven
ENTRIES_MAX: Final = 32_768  # what the four megabytes of one answer may hold (`catalogue.courier`)
ROWS_MAX: Final = 8192  # of a digest in a stream: twice the members that a node keeps
VERSION_MAX: Final = 2**53
WITHDRAWN: Final = 1  # the flag of a slot that holds nothing any more
ROW_BYTES: Final = 12  # four of the name's hash, eight of the node's
BUCKETS: Final = 64  # into which nodes fall by the hash of their name
BUCKET_BYTES: Final = 8
MASK_BYTES: Final = BUCKETS // 8
# Beside key, name and value: headers of the array and of four strings, two numbers of nine bytes, the flags, and the proof.
ENTRY_OVERHEAD_BYTES: Final = 1 + 4 * 3 + 2 * 9 + 2 + PUBLIC_KEY_BYTES + SIGNATURE_BYTES
# The type byte of a user message, the one of ours and an array header; what is left carries items.
ITEMS_BYTES_MAX: Final = MESSAGE_BYTES_MAX - 1 - 1 - 3

_packer = msgpack.Packer(use_bin_type=False, autoreset=True)


class Entry(NamedTuple):
    """One slot of what a node offers. A newer (generation, version) wins; only the owner makes new ones.

    `signature` is over all that comes before it and the cluster (`catalogue.signature`), by the key whose public half is `signer`.
    """

    node: str
    generation: int
    key: str
    version: int
    flags: int
    value: bytes
    signer: bytes = b""
    signature: bytes = b""

    @property
    def big(self) -> bool:
        """Too big for a packet: it travels by stream."""
        return len(self.value) > UDP_VALUE_BYTES_MAX


@dataclass(frozen=True, slots=True)
class Entries:
    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class Digest:
    """Rows of twelve bytes: the name's hash, the node's hash. With a `mask`, of the nodes in those buckets alone."""

    rows: bytes
    mask: bytes = b""


@dataclass(frozen=True, slots=True)
class Buckets:
    """A hash of eight bytes for each of the 64 buckets."""

    hashes: bytes


@dataclass(frozen=True, slots=True)
class Differing:
    """Of whose buckets these differ from mine: one bit each."""

    mask: bytes


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


OfferMessage = Entries | Digest | Buckets | Differing | Listing | Want


def encode_entries(entries: Iterable[Entry], *, budget_bytes: int = ITEMS_BYTES_MAX) -> list[bytes]:
    """Bodies of user messages that carry `entries` between them, each filled up to the budget. None may be big.

    Each body can be read by itself: the public key comes with the first entry that it signed there.
    """
    bodies: list[bytes] = []
    held: list[bytes] = []
    size = 0
    signer = b""
    for entry in entries:
        item = _packed(entry, signer)
        if held and size + len(item) > budget_bytes:
            bodies.append(_body(ENTRIES, held))
            held, size = [], 0
            item = _packed(entry, b"")
        held.append(item)
        size += len(item)
        signer = entry.signer
    if held:
        bodies.append(_body(ENTRIES, held))
    return bodies


def _packed(entry: Entry, signer: bytes) -> bytes:
    """An entry after one that `signer` signed: the same key is not said again."""
    proof = entry.signature if entry.signer == signer else entry.signer + entry.signature
    return bytes(_packer.pack((*entry[:6], proof)))


def encode_listing(slots: Iterable[Listed]) -> list[bytes]:
    return _fill(LISTING, (bytes(_packer.pack(tuple(slot))) for slot in slots), ITEMS_BYTES_MAX)


def encode_want(slots: Iterable[tuple[str, str]]) -> list[bytes]:
    return _fill(WANT, (bytes(_packer.pack(slot)) for slot in slots), ITEMS_BYTES_MAX)


def encode_digest(rows: bytes, *, mask: bytes = b"") -> bytes:
    return bytes((PARTIAL_DIGEST if mask else DIGEST,)) + mask + rows


def encode_buckets(hashes: bytes) -> bytes:
    return bytes((BUCKET_HASHES,)) + hashes


def encode_differing(mask: bytes) -> bytes:
    return bytes((DIFFERING,)) + mask


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
    if kind in (DIGEST, PARTIAL_DIGEST):
        rows_from = 1 if kind == DIGEST else 1 + MASK_BYTES
        if len(body) < rows_from or (len(body) - rows_from) % ROW_BYTES:
            raise DatagramRejected("bad-digest")
        return Digest(body[rows_from:], body[1:rows_from])
    if kind == BUCKET_HASHES:
        if len(body) != 1 + BUCKETS * BUCKET_BYTES:
            raise DatagramRejected("bad-digest")
        return Buckets(body[1:])
    if kind == DIFFERING:
        if len(body) != 1 + MASK_BYTES:
            raise DatagramRejected("bad-digest")
        return Differing(body[1:])
    with _msgpack_or_rejected():
        if kind == ENTRIES:
            return Entries(tuple(_read_entries(_items(_unpacker(body[1:]), len(body) - 1))))
        if kind == LISTING:
            return Listing(tuple(map(_read_listed, _items(_unpacker(body[1:]), len(body) - 1))))
        if kind == WANT:
            return Want(tuple(map(_read_wanted, _items(_unpacker(body[1:]), len(body) - 1))))
    raise DatagramRejected("unknown-offers", str(kind))


def encode_exchange(rows: bytes, entries: Sequence[Entry]) -> bytes:
    """What a push/pull says of offers: the sender's digest, and entries for the receiver."""
    signers = [b"", *(entry.signer for entry in entries)]
    items = [_packed(entry, signer) for entry, signer in zip(entries, signers, strict=False)]
    return b"".join((b"\x92", _packer.pack(rows), _packer.pack_array_header(len(items)), *items))


def decode_exchange(encoded: bytes, *, entries_max: int = ENTRIES_MAX) -> tuple[bytes, list[Entry]]:
    """The reverse of `encode_exchange`. Raises `DatagramRejected`."""
    with _msgpack_or_rejected():
        unpacker = _unpacker(encoded)
        if _list_header(unpacker) != 2:
            raise DatagramRejected("bad-offers")
        rows = unpacker.unpack()
        if type(rows) is not bytes or len(rows) % ROW_BYTES or len(rows) > ROW_BYTES * ROWS_MAX:
            raise DatagramRejected("bad-offers")
        return rows, _read_entries(_items(unpacker, len(encoded), most=entries_max))


@contextmanager
def _msgpack_or_rejected() -> Iterator[None]:
    try:
        yield
    except (ValueError, TypeError, OverflowError, msgpack.UnpackException) as error:
        raise DatagramRejected("bad-msgpack", type(error).__name__) from error


def _unpacker(encoded: bytes) -> msgpack.Unpacker:
    # Only plain values: a list in a list takes a byte on the wire and fifty in memory, and a stream has room for millions of them.
    unpacker = msgpack.Unpacker(
        raw=True,
        max_buffer_size=max(1, len(encoded)),
        max_str_len=len(encoded),
        max_bin_len=0,
        max_array_len=0,
        max_map_len=0,
        max_ext_len=0,
    )
    unpacker.feed(encoded)
    return unpacker


def _items(unpacker: msgpack.Unpacker, size: int, *, most: int = ENTRIES_MAX) -> Iterator[list[Any]]:
    """The items of a list of lists of plain values, which ends with the `size` bytes that were fed."""
    count = _list_header(unpacker)
    if count > most:
        raise DatagramRejected("bad-offers", f"{count} items")
    for _ in range(count):
        fields = _list_header(unpacker)
        if fields > FIELDS_MAX:
            raise DatagramRejected("bad-offers")
        yield [unpacker.unpack() for _ in range(fields)]
    if unpacker.tell() != size:
        raise DatagramRejected("bad-offers", "bytes after the last item")


def _list_header(unpacker: msgpack.Unpacker) -> int:
    try:
        return int(unpacker.read_array_header())
    except ValueError as error:
        raise DatagramRejected("bad-offers", "no list") from error


def _read_entries(items: Iterable[list[Any]]) -> list[Entry]:
    entries: list[Entry] = []
    signer = b""
    for item in items:
        entry = _read_entry(item, signer)
        signer = entry.signer
        entries.append(entry)
    return entries


def _read_entry(item: Any, signer: bytes) -> Entry:
    match item:
        case [node, generation, key, version, int() as flags, bytes() as value, bytes() as proof] if (
            0 <= flags < 256 and len(value) <= VALUE_BYTES_MAX
        ):
            signer = proof[:-SIGNATURE_BYTES] or signer
            signature = proof[-SIGNATURE_BYTES:]
            if len(signer) != PUBLIC_KEY_BYTES or len(signature) != SIGNATURE_BYTES:
                raise DatagramRejected("unsigned")
            return Entry(
                _name(node),
                _number(generation, GENERATION_MAX),
                _key(key),
                _number(version, VERSION_MAX),
                int(flags),
                value,
                signer,
                signature,
            )
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
