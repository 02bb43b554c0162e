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

from maia.config import LOAD_BYTES_MAX
from maia.errors import ConversationBroken, MisuseError
from maia.links.limits import FRAME_BYTES_MAX

LENGTH_BYTES = 4
# What an error shows of bytes that made no sense.
DETAIL_CHARACTERS_MAX = 120


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
    """Everything was said: `outcome` is "done", "cancelled" or "expired".

    Like every last word on a call it says how busy its sender is: nothing where it is empty, and None what cannot be read.
    """

    call_id: int
    outcome: str
    load: bytes | None = b""


class Refused(NamedTuple):
    """The call was not begun."""

    call_id: int
    reason: str
    message: str
    load: bytes | None = b""


class Failed(NamedTuple):
    """The handler raised; `body` is what it had to say, encoded."""

    call_id: int
    definite: bool
    body: bytes
    load: bytes | None = b""


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

# For each type its frame and the exact types of its fields (True is no number here).
_SHAPES: dict[int, tuple[type[Frame], list[type]]] = {
    0: (Hello, [dict]),
    1: (Open, [int, str, int, int, bytes]),
    2: (Reply, [int, int, bytes]),
    3: (More, [int, bytes]),
    4: (Done, [int, str]),
    5: (Refused, [int, str, str]),
    6: (Failed, [int, bool, bytes]),
    7: (Cancel, [int]),
    8: (Credit, [int, int]),
    9: (Ping, [int]),
    10: (Pong, [int]),
}
_LAST_WORDS: tuple[type[Frame], ...] = (Done, Refused, Failed)
_NUMBERS: dict[type[Frame], int] = {frame: number for number, (frame, _) in _SHAPES.items()}


def encode(frame: Frame) -> bytes:
    packed: bytes = msgpack.packb((_NUMBERS[type(frame)], *frame))
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
    """One frame, without its length: the right fields of the right types, whatever their values. Raises `ConversationBroken` otherwise."""
    try:
        fields = msgpack.unpackb(packed)
        frame, types = _SHAPES[fields[0]]
    except (ValueError, OverflowError, TypeError, LookupError) as error:
        raise ConversationBroken("undecodable_frame", f"{type(error).__name__}: {error}"[:DETAIL_CHARACTERS_MAX]) from error
    values = fields[1 : len(types) + 1]
    if [type(value) for value in values] != types:
        raise ConversationBroken("undecodable_frame", f"fields for {frame.__name__}: {values!r}"[:DETAIL_CHARACTERS_MAX])
    if frame in _LAST_WORDS:
        values.append(_load(fields[len(types) + 1 :]))
    return frame(*values)


def _load(rest: list[Any]) -> bytes | None:
    """What follows the fields of a last word. Not worth the link: what cannot be read is None."""
    load = rest[0] if rest else b""
    return load if type(load) is bytes and len(load) <= LOAD_BYTES_MAX else None


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
        if at < end or self._rest:
            self._rest = bytearray(whole[at:])
