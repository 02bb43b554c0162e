"""Frames between the node and a worker process: four bytes of length, then one msgpack map. Pure.

Both sides run the same program on the same machine, so a frame that does not decode means that something else wrote into the pipe. That
is never repaired: the stream is over.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgpack

# A transcript is at most a request's body (10 MiB), and msgpack is not longer than JSON; twice that is never reached by an honest frame.
FRAME_BYTES_MAX = 20 * 1024 * 1024

_LENGTH_BYTES = 4


class FrameError(Exception):
    """Bytes that are no frame. The stream cannot be read on."""


def pack(frame: Mapping[str, Any]) -> bytes:
    body: bytes = msgpack.packb(frame, use_bin_type=True)
    if len(body) > FRAME_BYTES_MAX:
        raise FrameError(f"a frame of {len(body)} bytes; at most {FRAME_BYTES_MAX} are possible")
    return len(body).to_bytes(_LENGTH_BYTES, "big") + body


class FrameDecoder:
    """Feed it bytes as they come, in any cuts; frames come out whole and in order."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[dict[str, Any]]:
        self._buffer += data
        frames: list[dict[str, Any]] = []
        start = 0
        while len(self._buffer) - start >= _LENGTH_BYTES:
            length = int.from_bytes(self._buffer[start : start + _LENGTH_BYTES], "big")
            if length > FRAME_BYTES_MAX:
                raise FrameError(f"a frame claims {length} bytes; at most {FRAME_BYTES_MAX} are possible")
            end = start + _LENGTH_BYTES + length
            if end > len(self._buffer):
                break
            frames.append(_unpack(bytes(self._buffer[start + _LENGTH_BYTES : end])))
            start = end
        del self._buffer[:start]
        return frames


def _unpack(body: bytes) -> dict[str, Any]:
    try:
        frame = msgpack.unpackb(body, raw=False, strict_map_key=False)
    except (ValueError, msgpack.UnpackException) as error:
        raise FrameError(f"a frame of {len(body)} bytes does not decode: {type(error).__name__}") from error
    if not isinstance(frame, dict) or not isinstance(frame.get("kind"), str):
        raise FrameError("a frame is not a map with a kind")
    return frame
