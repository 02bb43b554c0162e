"""The frames of a link, as bytes and as values.

On the wire a frame is four bytes of length (big-endian) and a msgpack list `[type, field, ...]`. Fields that a newer version appends are
ignored; types that this version does not know end the link, because versions are agreed in the hello. The frames are named tuples, not
dataclasses: they are made for every reply, and a frozen dataclass costs three times as much to build.

A body is a msgpack map, encoded on its own and carried as bytes, so that pieces of it can travel in several frames.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import msgpack

from maia.errors import ConversationBroken, MisuseError
from maia.links.limits import FRAME_BYTES_MAX, KIND_CHARACTERS_MAX

LENGTH_BYTES = 4
CALL_ID_MAX = 2**53


class Hello(NamedTuple):
    """The first frame of each side. `facts` is a map, so that it may grow; `greeting` knows what is in it."""

    facts: Mapping[str, Any]


class Open(NamedTuple):
    """A call begins: `total` bytes of body, of which `piece` is the first part."""

    call_id: int
    kind: str
    remaining_ms: int
    total: int
    piece: bytes


class Reply(NamedTuple):
    """A body of `total` bytes begins with `piece`."""

    call_id: int
    total: int
    piece: bytes


class More(NamedTuple):
    """The next piece of the body that this side is in the middle of."""

    call_id: int
    piece: bytes


class Done(NamedTuple):
    """Everything was said: `outcome` is "done", "cancelled" or "expired"."""

    call_id: int
    outcome: str


class Refused(NamedTuple):
    """The call was not begun."""

    call_id: int
    reason: str
    message: str


class Failed(NamedTuple):
    """The handler raised; `body` is what it had to say, encoded."""

    call_id: int
    definite: bool
    body: bytes


class Cancel(NamedTuple):
    """The caller has lost interest."""

    call_id: int


class Credit(NamedTuple):
    """The caller has read this much; so much more may be sent."""

    call_id: int
    amount: int


class Ping(NamedTuple):
    token: int


class Pong(NamedTuple):
    token: int


Frame = Hello | Open | Reply | More | Done | Refused | Failed | Cancel | Credit | Ping | Pong

_TYPES: dict[type[Any], int] = {
    Hello: 0,
    Open: 1,
    Reply: 2,
    More: 3,
    Done: 4,
    Refused: 5,
    Failed: 6,
    Cancel: 7,
    Credit: 8,
    Ping: 9,
    Pong: 10,
}


def encode(frame: Frame) -> bytes:
    packed: bytes = msgpack.packb((_TYPES[type(frame)], *frame))
    if len(packed) > FRAME_BYTES_MAX:
        raise MisuseError(f"a frame of {len(packed)} bytes: {FRAME_BYTES_MAX} are the limit")
    return len(packed).to_bytes(LENGTH_BYTES, "big") + packed


def encode_body(body: Mapping[str, Any]) -> bytes:
    """Raises `MisuseError` for what has no place on the wire: other types, integers beyond 64 bits, half of a surrogate pair."""
    try:
        packed: bytes = msgpack.packb(body if type(body) is dict else dict(body))
    except (TypeError, ValueError, OverflowError) as error:
        raise MisuseError(f"a body that cannot be sent: {error}") from error
    return packed


def decode_body(packed: bytes | bytearray) -> dict[str, Any]:
    try:
        body = msgpack.unpackb(packed)
    except (ValueError, OverflowError) as error:
        raise ConversationBroken("undecodable_body", str(error)) from error
    if not isinstance(body, dict):
        raise ConversationBroken("undecodable_body", f"a map was expected, not {type(body).__name__}")
    return body


def decode(packed: bytes | bytearray) -> Frame:
    """One frame, without its length. Raises `ConversationBroken` for anything that is not one."""
    try:
        fields = msgpack.unpackb(packed)
    except (ValueError, OverflowError) as error:
        raise ConversationBroken("undecodable_frame", str(error)) from error
    frame = _shape(fields)
    if frame is None:
        raise ConversationBroken("unknown_frame", repr(fields)[:80])
    return frame


def _shape(fields: object) -> Frame | None:
    # The two frames of a streamed token come first: patterns are tried in order.
    match fields:
        case [2, int(call_id), int(total), bytes(piece), *_] if _is_id(call_id) and len(piece) <= total:
            return Reply(call_id, total, piece)
        case [8, int(call_id), int(amount), *_] if _is_id(call_id) and amount > 0:
            return Credit(call_id, amount)
        case [1, int(call_id), str(kind), int(remaining_ms), int(total), bytes(piece), *_] if (
            _is_id(call_id) and len(kind) <= KIND_CHARACTERS_MAX and remaining_ms >= 0 and len(piece) <= total
        ):
            return Open(call_id, kind, remaining_ms, total, piece)
        case [4, int(call_id), str(outcome), *_] if _is_id(call_id):
            return Done(call_id, outcome)
        case [3, int(call_id), bytes(piece), *_] if _is_id(call_id) and piece:
            return More(call_id, piece)
        case [7, int(call_id), *_] if _is_id(call_id):
            return Cancel(call_id)
        case [5, int(call_id), str(reason), str(message), *_] if _is_id(call_id):
            return Refused(call_id, reason, message)
        case [6, int(call_id), bool(definite), bytes(body), *_] if _is_id(call_id):
            return Failed(call_id, definite, body)
        case [9, int(token), *_]:
            return Ping(token)
        case [10, int(token), *_]:
            return Pong(token)
        case [0, dict(facts), *_]:
            return Hello(facts)
        case _:
            return None


def _is_id(number: int) -> bool:
    return 0 < number <= CALL_ID_MAX


class FrameReader:
    """Bytes in, in any cut; whole frames out."""

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = bytearray()  # less than one frame

    def feed(self, data: bytes) -> Iterator[Frame]:
        """What `data` completes. Raises `ConversationBroken` where the stream stops making sense: nothing after it can be read."""
        whole: bytes | bytearray = data
        if self._rest:
            self._rest += data
            whole = self._rest
        at, end = 0, len(whole)
        while end - at >= LENGTH_BYTES:
            length = int.from_bytes(whole[at : at + LENGTH_BYTES], "big")
            if length > FRAME_BYTES_MAX:
                raise ConversationBroken("frame_too_large", f"{length} bytes announced, {FRAME_BYTES_MAX} are the limit")
            following = at + LENGTH_BYTES + length
            if following > end:
                break
            yield decode(whole[at + LENGTH_BYTES : following])
            at = following
        self._rest = bytearray(whole[at:])
