"""Bodies in several frames: cutting, and putting together again."""

from __future__ import annotations

from maia.errors import ConversationBroken
from maia.links.limits import PIECE_BYTES_MAX


def cut(packed: bytes) -> list[bytes]:
    """`packed` in order, in pieces that fit a frame; at least one, however short."""
    if len(packed) <= PIECE_BYTES_MAX:
        return [packed]
    return [packed[at : at + PIECE_BYTES_MAX] for at in range(0, len(packed), PIECE_BYTES_MAX)]


class Assembly:
    """A body that is still arriving. Raises `ConversationBroken` for more than was announced."""

    __slots__ = ("_received", "total")

    def __init__(self, total: int, first: bytes) -> None:
        self.total = total
        self._received = bytearray()
        self.add(first)

    def add(self, piece: bytes) -> bool:
        """Whether the body is now whole."""
        if len(self._received) + len(piece) > self.total:
            raise ConversationBroken("body_overrun", f"{self.total} bytes were announced, and more came")
        self._received += piece
        return len(self._received) == self.total

    @property
    def packed(self) -> bytearray:
        return self._received
