"""The state of a conversation on its way to another worker: a header, then the cells of its tokens. Pure.

Cells mean something only to the very model that made them, so the header names it, and the bytes carry a digest: half a state, or one of
another model, would be believed and answer nonsense.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any, Final

import msgpack

from astromesh.errors import InvalidRequest
from astromesh.inference.prefixes import Part, State

FORMAT: Final = "astromesh-session-1"
PIECE_BYTES: Final = 1 << 20  # in one frame, and on a link; a worker answers others between two of them
STATE_BYTES_MAX: Final = 512 << 20  # what a cache keeps where nobody says: 4,000 tokens of an 8B model
TOKENS_MAX: Final = 1 << 20
_HEADER_BYTES_MAX: Final = 8 << 20
_LENGTH_BYTES: Final = 4
_DIGEST_BYTES: Final = 32
_CELL_BYTES_MAX: Final = STATE_BYTES_MAX - _HEADER_BYTES_MAX - _LENGTH_BYTES - _DIGEST_BYTES


def encode(identity: str, tokens: Sequence[int], parts: Sequence[Part]) -> Iterator[bytes]:
    """In pieces of at most `PIECE_BYTES`, `STATE_BYTES_MAX` together: what would be more stays behind, from the end of the path.

    Whole states travel, so that nothing has to be cut: what a path does not need is little.
    """
    sizes = accumulate(len(part.state.data) for part in parts)
    parts = [part for part, size in zip(parts, sizes, strict=True) if size <= _CELL_BYTES_MAX]
    header = {
        "format": FORMAT,
        "identity": identity,
        "tokens": list(tokens[: parts[-1].end if parts else 0]),
        "parts": [[part.state.start, part.start, part.end, len(part.state.data)] for part in parts],
    }
    packed: bytes = msgpack.packb(header)
    digest = hashlib.sha256()
    for data in (len(packed).to_bytes(_LENGTH_BYTES, "big") + packed, *(part.state.data for part in parts)):
        digest.update(data)
        yield from _pieces(data)
    yield digest.digest()


def _pieces(data: bytes) -> Iterator[bytes]:
    for start in range(0, len(data), PIECE_BYTES):
        yield data[start : start + PIECE_BYTES]


def decode(data: bytes, *, identity: str) -> tuple[list[int], list[tuple[State, int]]]:
    """The tokens, and for each part its state and where it ends. Raises `InvalidRequest` for what is not the whole state of this model."""
    view = memoryview(data)  # of half a gigabyte nothing is copied but what is kept
    whole, digest = view[:-_DIGEST_BYTES], view[-_DIGEST_BYTES:]
    if hashlib.sha256(whole).digest() != digest:
        raise _broken("its bytes were changed or cut")
    header, body = _header(whole)
    if header["identity"] != identity:
        raise InvalidRequest(
            f"this session was made by the model with sha256 {header['identity'][:12]}…, and the model here has {identity[:12]}…",
            hint="take it to a node that has the very same file",
            param="session",
        )
    parts: list[tuple[State, int]] = []
    came, at = 0, 0
    for start, begin, end, size in header["parts"]:
        if not (0 <= start <= begin == came < end <= len(header["tokens"]) and 0 < size <= len(body) - at):
            raise _broken("its parts do not fit together")
        parts.append((State(start, end, bytes(body[at : at + size])), end))
        came, at = end, at + size
    if came != len(header["tokens"]) or at != len(body):
        raise _broken("its parts do not fit together")
    return header["tokens"], parts


def _header(data: memoryview) -> tuple[dict[str, Any], memoryview]:
    length = int.from_bytes(data[:_LENGTH_BYTES], "big")
    if not 0 < length <= min(_HEADER_BYTES_MAX, len(data) - _LENGTH_BYTES):
        raise _broken("it has no header")
    try:
        header = msgpack.unpackb(data[_LENGTH_BYTES : _LENGTH_BYTES + length], raw=False, max_array_len=TOKENS_MAX)
    except (ValueError, msgpack.UnpackException) as error:
        raise _broken("its header does not decode") from error
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise _broken(f"it is not of the format {FORMAT}")
    tokens, parts = header.get("tokens"), header.get("parts")
    numbers = isinstance(tokens, list) and all(type(token) is int for token in tokens)
    rows = isinstance(parts, list) and all(isinstance(row, list) and len(row) == 4 and all(type(n) is int for n in row) for row in parts)
    if not numbers or not rows or not isinstance(header.get("identity"), str):
        raise _broken("its header does not decode")
    return header, data[_LENGTH_BYTES + length :]


def _broken(why: str) -> InvalidRequest:
    return InvalidRequest(f"this is no whole session state: {why}", hint="export it again", param="session")
