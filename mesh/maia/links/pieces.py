"""Bodies in several frames: cutting, and putting together again."""

from __future__ import annotations

from collections.abc import Iterator

from maia.errors import ConversationBroken
from maia.links.limits import PIECE_BYTES_MAX


def cut(packed: bytes) -> Iterator[bytes]:
    """`packed` in order, in pieces that fit a frame; at least one, however short."""
    if len(packed) <= PIECE_BYTES_MAX:
        yield packed
        return
    for at in range(0, len(packed), PIECE_BYTES_MAX):
        yield packed[at : at + PIECE_BYTES_MAX]


class Assembly:
    """A body that is still arriving."""

    __slots__ = ("_received", "total")

    def __init__(self, total: int, first: bytes) -> None:
        self.total = total
        self._received = bytearray(first)

    def add(self, piece: bytes) -> bool:
        """Whether the body is now whole. Raises `ConversationBroken` for more than was announced."""
        if len(self._received) + len(piece) > self.total:
            raise ConversationBroken("body_overrun", f"{self.total} bytes were announced, and more came")
        self._received += piece
        return len(self._received) == self.total

    @property
    def packed(self) -> bytearray:
        return self._received
