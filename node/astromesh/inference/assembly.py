"""From the bytes of tokens to text that may be shown. Pure.

A token is a run of bytes: it may end inside a character, and a stop string may begin in one token and end three later. So text is held
back exactly as long as it could still turn out to be the beginning of a stop string, and a character until all of its bytes are there.
"""

from __future__ import annotations

import codecs


class TextAssembler:
    """Feed it the pieces of one stream; what comes out can be shown and is never taken back."""

    __slots__ = ("_decoder", "_held", "_stops", "stopped_by")

    def __init__(self, stops: tuple[str, ...] = ()) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""
        self._stops = stops
        self.stopped_by: str | None = None

    def feed(self, piece: bytes) -> str:
        """The text that this piece sets free, possibly none. Sets `stopped_by` when a stop string is complete; the rest is dropped."""
        if self.stopped_by is not None:
            return ""
        text = self._held + self._decoder.decode(piece)
        # The earliest match wins, and of two that begin together the longer one, whatever the order in which they were given.
        found = sorted((text.find(stop), -len(stop), stop) for stop in self._stops if stop in text)
        if found:
            position, _, self.stopped_by = found[0]
            self._held = ""
            return text[:position]
        keep = max((overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def finish(self) -> str:
        """What was held back, once no more will come. The bytes of half a character are no text and are dropped."""
        rest, self._held = self._held, ""
        return rest if self.stopped_by is None else ""


def overlap(text: str, stop: str) -> int:
    """The length of the longest end of `text` that is a beginning of `stop`, but not the whole of it."""
    for length in range(min(len(stop) - 1, len(text)), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0
