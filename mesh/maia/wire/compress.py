"""What stock agents compress, unpacked: LZW as in Go's `compress/lzw`, least significant bit first, literals of eight bits.

Only the way in. Compressing is optional, costs more here than it saves on a LAN, and a packet of ours must fit uncompressed anyway.
The format (Welch, 1984): codes of 9 to 12 bits; 256 clears the table, 257 ends the stream; the width grows late, once the table needs it.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Final

from maia.errors import DatagramRejected

CLEAR: Final = 256
END: Final = 257
WIDTH_MIN: Final = 9
WIDTH_MAX: Final = 12
TABLE_MAX: Final = 2**WIDTH_MAX
SLICE_BYTES: Final = 8192  # two to four milliseconds in pure Python, between which a mesh does everything else

# Clear and end are codes without bytes; their places keep every later entry at the index of its code.
_ROOTS: Final = (*(bytes((value,)) for value in range(256)), b"", b"")


def expand(compressed: bytes, *, bytes_max: int) -> bytes:
    """The bytes that were compressed, at most `bytes_max`; what trails the end code is ignored, as in Go. Raises `DatagramRejected`.

    A few kilobytes can stand for gigabytes, so the limit holds while it unpacks.
    """
    steps = expanding(compressed, bytes_max=bytes_max)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            expanded: bytes = end.value
            return expanded


def expanding(compressed: bytes, *, bytes_max: int) -> Generator[int, None, bytes]:
    """The same with a pause after every `SLICE_BYTES` of `compressed`, in which it says how much it unpacked so far."""
    for_this_slice = SLICE_BYTES
    table = list(_ROOTS)
    width = WIDTH_MIN
    held = bits = 0
    previous = b""  # what the last code stood for; empty where there is none to continue
    pieces: list[bytes] = []
    size = 0
    for byte in compressed:
        for_this_slice -= 1
        if not for_this_slice:
            yield size
            for_this_slice = SLICE_BYTES
        # A code is wider than a byte, so a byte completes at most one.
        held |= byte << bits
        bits += 8
        if bits < width:
            continue
        code = held & ((1 << width) - 1)
        held >>= width
        bits -= width
        if code == CLEAR:
            table = list(_ROOTS)
            width = WIDTH_MIN
            previous = b""
            continue
        if code == END:
            return b"".join(pieces)
        if code < len(table):
            entry = table[code]
        elif code == len(table) and previous:
            entry = previous + previous[:1]  # the one code that may be used before it is complete: it begins as it ends
        else:
            raise DatagramRejected("bad-compression", f"code {code} before its time")
        size += len(entry)
        if size > bytes_max:
            raise DatagramRejected("too-long", f"more than {bytes_max} bytes unpacked")
        pieces.append(entry)
        # A sender need not clear a full table: then it stays as it is.
        if previous and len(table) < TABLE_MAX:
            table.append(previous + entry[:1])
            if len(table) == 1 << width and width < WIDTH_MAX:
                width += 1
        previous = entry
    raise DatagramRejected("bad-compression", "no end")
