"""Packets as a stock agent sends them: compressed, which we read and never write."""

from __future__ import annotations

import zlib
from typing import Final

import msgpack

from maia.wire.codec import COMPRESS, CRC_OVERHEAD, HAS_CRC, LZW
from maia.wire.compress import CLEAR, END, WIDTH_MIN

# Every code past the roots makes an entry, and twice as many bytes make no more codes than that: a packet never fills the table.
_PACKET_BYTES_MAX: Final = 2048


def squeezed(packet: bytes) -> bytes:
    """The same packet, compressed below its checksum where it has one; unchanged where that would not make it smaller."""
    if packet[0] == HAS_CRC:
        inner = _squeezed(packet[CRC_OVERHEAD:])
        return bytes((HAS_CRC,)) + zlib.crc32(inner).to_bytes(4, "big") + inner
    return _squeezed(packet)


def _squeezed(message: bytes) -> bytes:
    if len(message) > _PACKET_BYTES_MAX:
        return message
    body: bytes = msgpack.packb({"Algo": LZW, "Buf": compressed(message)}, use_bin_type=False)
    return bytes((COMPRESS,)) + body if len(body) < len(message) else message


def compressed(message: bytes) -> bytes:
    """At most 2 KiB by LZW, least significant bit first, as Go's `compress/lzw` writes it."""
    codes = {bytes((value,)): value for value in range(256)}
    highest, width = END, WIDTH_MIN
    held, bits = CLEAR, WIDTH_MIN
    begun = b""
    for value in message:
        longer = begun + bytes((value,))
        if longer in codes:
            begun = longer
            continue
        held |= codes[begun] << bits
        bits += width
        highest += 1
        codes[longer] = highest
        width = max(width, highest.bit_length())
        begun = longer[-1:]
    if begun:
        held |= codes[begun] << bits
        bits += width
        highest += 1
        width = max(width, highest.bit_length())
    held |= END << bits
    bits += width
    return held.to_bytes((bits + 7) // 8, "little")
