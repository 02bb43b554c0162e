"""Serf's messages, in memberlist's user messages whose first byte is below 0x80, and its state in every push/pull.

Events, queries and intents are broadcast: who hears one the first time tells the very same bytes on. So only what decides about that is
read here, and what a member has to answer; the rest of an event stays opaque.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgpack

from maia.config import Address
from maia.errors import DatagramRejected
from maia.keyring import KEYS_MAX
from maia.wire.codec import NAME_BYTES_MAX, address, blob, name, packed_host, read_map, text, whole

LEAVE: Final = 0
JOIN: Final = 1
STATE: Final = 2
EVENT: Final = 3
QUERY: Final = 4
RESPONSE: Final = 5
CONFLICT: Final = 6
KEY_REQUEST: Final = 7
KEY_RESPONSE: Final = 8
RELAY: Final = 9

# The clocks are u64 and pass over at the end; who names a time from the far half has not come there by counting.
TIME_MAX: Final = 2**62
STATE_BYTES_MAX: Final = 1024 * 1024  # sixteen thousand names are half of it; what Serf keeps of events is skipped unread
STATE_NAMES_MAX: Final = 16_384
QUERY_NAME_BYTES_MAX: Final = 512
PAYLOAD_BYTES_MAX: Final = 1024  # Serf's own limit for a whole query, and for an answer
FILTERS_MAX: Final = 64
KEY_TEXT_BYTES_MAX: Final = 64  # base64 of 32 bytes is 44
WORDS_BYTES_MAX: Final = 256  # of a member that says why not
ACK_FLAG: Final = 1
NO_BROADCAST_FLAG: Final = 2
_UINT64_MAX: Final = 2**64 - 1

_packer = msgpack.Packer(use_bin_type=False, autoreset=True)


@dataclass(frozen=True, slots=True)
class LeaveIntent:
    """`node` wants to leave, or somebody wants it to be counted as gone (`force-leave`)."""

    time: int
    node: str
    prune: bool = False


@dataclass(frozen=True, slots=True)
class JoinIntent:
    """`node` is here to stay: whatever older intent says that it leaves is void."""

    time: int
    node: str


@dataclass(frozen=True, slots=True)
class UserEvent:
    """Somebody told everybody something. What, is theirs."""

    time: int


@dataclass(frozen=True, slots=True)
class Query:
    """Somebody asks everybody something, to be answered straight to `asker`."""

    time: int
    number: int
    asker: Address
    title: bytes
    payload: bytes = field(default=b"", repr=False)  # may hold a key
    filtered: bool = False
    flags: int = 0
    relays: int = 0
    timeout_s: float = 0.0
    node: str = ""

    @property
    def wants_ack(self) -> bool:
        return bool(self.flags & ACK_FLAG)

    @property
    def told_on(self) -> bool:
        """Whether who hears it tells it on."""
        return not self.flags & NO_BROADCAST_FLAG


@dataclass(frozen=True, slots=True)
class Response:
    """What `node` answers to a query: or that it has heard it, where `ack`."""

    time: int
    number: int
    node: str
    ack: bool = False
    payload: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class Relay:
    """Hand this on, since the direct way may be lost."""

    target: Address
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class UserState:
    """What an exchange tells of Serf: three clocks, the time of the newest intent by node, and who left."""

    time: int = 0
    status_times: Mapping[str, int] = field(default_factory=dict)
    left: tuple[str, ...] = ()
    event_time: int = 0
    query_time: int = 0


@dataclass(frozen=True, slots=True)
class KeyAnswer:
    """What a member says to a query about keys."""

    ok: bool
    message: str = ""
    keys: tuple[str, ...] = field(default=(), repr=False)
    primary: str = field(default="", repr=False)


SerfMessage = LeaveIntent | JoinIntent | UserEvent | Query | Response | Relay


# --- out ---


def _packed(kind: int, fields: Mapping[str, object]) -> bytes:
    return bytes((kind,)) + bytes(_packer.pack(fields))


def encode_leave(intent: LeaveIntent) -> bytes:
    return _packed(LEAVE, {"LTime": intent.time, "Node": intent.node, "Prune": intent.prune})


def encode_join(intent: JoinIntent) -> bytes:
    return _packed(JOIN, {"LTime": intent.time, "Node": intent.node})


def encode_query(query: Query) -> bytes:
    """A query of ours, which has no filters."""
    return _packed(
        QUERY,
        {
            "LTime": query.time,
            "ID": query.number,
            "Addr": packed_host(query.asker.host),
            "Port": query.asker.port,
            "SourceNode": query.node,
            "Filters": None,
            "Flags": query.flags,
            "RelayFactor": query.relays,
            "Timeout": round(query.timeout_s * 1e9),
            "Name": query.title,
            "Payload": query.payload or None,
        },
    )


def encode_response(response: Response) -> bytes:
    return _packed(
        RESPONSE,
        {
            "LTime": response.time,
            "ID": response.number,
            "From": response.node,
            "Flags": ACK_FLAG if response.ack else 0,
            "Payload": response.payload or None,
        },
    )


def encode_relay(relay: Relay, *, node: str) -> bytes:
    """`node` is the name of whom it is for."""
    target = {"IP": packed_host(relay.target.host), "Port": relay.target.port, "Zone": ""}
    return _packed(RELAY, {"DestAddr": target, "DestName": node}) + relay.body


def encode_state(state: UserState) -> bytes:
    return _packed(
        STATE,
        {
            "LTime": state.time,
            "StatusLTimes": dict(state.status_times),
            "LeftMembers": state.left,
            "EventLTime": state.event_time,
            "Events": None,
            "QueryLTime": state.query_time,
        },
    )


def encode_key_request(key: bytes | None) -> bytes:
    return _packed(KEY_REQUEST, {"Key": key or b""})


def encode_key_answer(answer: KeyAnswer) -> bytes:
    return _packed(
        KEY_RESPONSE, {"Result": answer.ok, "Message": answer.message, "Keys": answer.keys or None, "PrimaryKey": answer.primary}
    )


def encode_conflict_answer(node: str, at: Address, *, tags: Mapping[Any, Any], vsn: bytes) -> bytes:
    """Whom we know by a name that is contested: Serf's whole record of an alive member."""
    record = {
        "Name": node,
        "Addr": packed_host(at.host),
        "Port": at.port,
        "Tags": dict(tags),
        "Status": 1,
        **dict(zip(("ProtocolMin", "ProtocolMax", "ProtocolCur", "DelegateMin", "DelegateMax", "DelegateCur"), vsn, strict=True)),
    }
    return _packed(CONFLICT, record)


# --- in ---


def decode_serf(body: bytes) -> SerfMessage:
    """One of Serf's user messages. Raises `DatagramRejected`."""
    if not body:
        raise DatagramRejected("empty", "user message")
    reader = _READERS.get(body[0])
    if reader is None:
        raise DatagramRejected("unknown-serf", str(body[0]))
    return reader(body)


def decode_state(encoded: bytes) -> UserState:
    """What an exchange tells of Serf. Raises `DatagramRejected`."""
    if len(encoded) > STATE_BYTES_MAX:
        raise DatagramRejected("state-too-long", f"{len(encoded)} bytes")
    if not encoded or encoded[0] != STATE:
        raise DatagramRejected("unknown-serf", "state")
    body = _without_events(encoded)
    times = body.get(b"StatusLTimes") or {}
    left = body.get(b"LeftMembers") or []
    if type(times) is not dict or type(left) is not list:
        raise DatagramRejected("bad-state")
    return UserState(
        _time(body),
        {_name_of(node): _checked_time(time) for node, time in times.items()},
        tuple(map(_name_of, left)),
        _time(body, b"EventLTime"),
        _time(body, b"QueryLTime"),
    )


def _without_events(encoded: bytes) -> dict[Any, Any]:
    """The fields of a state; the 512 slots of old events, which are most of it, are passed over."""
    unpacker = msgpack.Unpacker(
        raw=True, max_map_len=STATE_NAMES_MAX, max_array_len=STATE_NAMES_MAX, max_str_len=STATE_BYTES_MAX, max_bin_len=0, max_ext_len=0
    )
    body: dict[Any, Any] = {}
    try:
        unpacker.feed(memoryview(encoded)[1:])
        for _ in range(unpacker.read_map_header()):
            key = unpacker.unpack()
            if key == b"Events":
                unpacker.skip()
            else:
                body[key] = unpacker.unpack()
    except (ValueError, TypeError, OverflowError, msgpack.UnpackException) as error:
        raise DatagramRejected("bad-msgpack", type(error).__name__) from error
    return body


def decode_key_request(payload: bytes) -> bytes:
    """The key of a query about keys; empty where there is none. Raises `DatagramRejected`, which does not repeat it."""
    if not payload or payload[0] != KEY_REQUEST:
        raise DatagramRejected("bad-key-request")
    return blob(read_map(payload[1:]), b"Key", most=KEY_TEXT_BYTES_MAX)


def decode_key_answer(payload: bytes) -> KeyAnswer:
    """Raises `DatagramRejected`."""
    if not payload or payload[0] != KEY_RESPONSE:
        raise DatagramRejected("bad-key-response")
    body = read_map(payload[1:])
    keys = body.get(b"Keys") or []
    if type(keys) is not list or len(keys) > KEYS_MAX:
        raise DatagramRejected("bad-key-response")
    return KeyAnswer(
        body.get(b"Result") is True,
        _words(body.get(b"Message", b""), WORDS_BYTES_MAX),
        tuple(_words(key, KEY_TEXT_BYTES_MAX) for key in keys),
        _words(body.get(b"PrimaryKey", b""), KEY_TEXT_BYTES_MAX),
    )


def _read_leave(body: bytes) -> LeaveIntent:
    fields = read_map(body[1:])
    return LeaveIntent(_time(fields), name(fields), fields.get(b"Prune") is True)


def _read_join(body: bytes) -> JoinIntent:
    fields = read_map(body[1:])
    return JoinIntent(_time(fields), name(fields))


def _read_event(body: bytes) -> UserEvent:
    return UserEvent(_time(read_map(body[1:])))


def _read_query(body: bytes) -> Query:
    fields = read_map(body[1:])
    filters = fields.get(b"Filters") or []
    if type(filters) is not list or len(filters) > FILTERS_MAX:
        raise DatagramRejected("bad-query", "Filters")
    return Query(
        _time(fields),
        whole(fields, b"ID"),
        address(fields, b"Addr", b"Port"),
        blob(fields, b"Name", most=QUERY_NAME_BYTES_MAX),
        blob(fields, b"Payload", most=PAYLOAD_BYTES_MAX),
        bool(filters),
        whole(fields, b"Flags"),
        whole(fields, b"RelayFactor", most=255),
        whole(fields, b"Timeout", most=_UINT64_MAX) / 1e9,
        text(fields, b"SourceNode"),
    )


def _read_response(body: bytes) -> Response:
    fields = read_map(body[1:])
    return Response(
        _time(fields),
        whole(fields, b"ID"),
        name(fields, b"From"),
        bool(whole(fields, b"Flags") & ACK_FLAG),
        blob(fields, b"Payload", most=PAYLOAD_BYTES_MAX),
    )


def _read_relay(body: bytes) -> Relay:
    unpacker = msgpack.Unpacker(raw=True, max_map_len=16, max_array_len=16, max_ext_len=0)
    try:
        unpacker.feed(body[1:])
        header = unpacker.unpack()
    except (ValueError, TypeError, OverflowError, msgpack.UnpackException) as error:
        raise DatagramRejected("bad-msgpack", type(error).__name__) from error
    target = header.get(b"DestAddr") if type(header) is dict else None
    if type(target) is not dict:
        raise DatagramRejected("bad-relay")
    return Relay(address(target, b"IP", b"Port"), body[1 + unpacker.tell() :])


def _time(fields: dict[Any, Any], key: bytes = b"LTime") -> int:
    return _checked_time(fields.get(key, 0))


def _checked_time(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise DatagramRejected("bad-number")
    if value > TIME_MAX:
        raise DatagramRejected("hostile-clock", str(value))
    return value


def _name_of(value: Any) -> str:
    if type(value) is not bytes or not 0 < len(value) <= NAME_BYTES_MAX:
        raise DatagramRejected("bad-name")
    return name({b"Node": value})


def _words(value: Any, most: int) -> str:
    """What another node says, fit to be shown: cut where it is too long."""
    if type(value) is not bytes:
        raise DatagramRejected("bad-bytes")
    said = value[:most].decode(errors="replace")
    return "".join(character if character.isprintable() else " " for character in said)


_READERS: Final[dict[int, Callable[[bytes], SerfMessage]]] = {
    LEAVE: _read_leave,
    JOIN: _read_join,
    EVENT: _read_event,
    QUERY: _read_query,
    RESPONSE: _read_response,
    RELAY: _read_relay,
}
