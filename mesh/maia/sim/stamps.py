"""Values that say how new they are, so that an observer of catalogues sees one go back."""

from __future__ import annotations

import re
from typing import Final

_STAMP: Final = re.compile(rb"stamp (\d+)\.")


def stamped(number: int, *, bytes_long: int = 0) -> bytes:
    """A value that is newer than any with a lower number, filled up to `bytes_long`."""
    return (b"stamp %d." % number).ljust(bytes_long, b".")


def stamp_of(value: bytes) -> int | None:
    """The number in a stamped value."""
    found = _STAMP.match(value)
    return int(found[1]) if found else None
