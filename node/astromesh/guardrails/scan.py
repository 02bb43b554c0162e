"""One rule's eye on a text that comes in pieces: what may be shown by now, and what was found. Pure.

Exact for every way of cutting: a match is decided once no further text can make it longer or begin before it, and everything from the
first place where that is still open is held back. So the pieces together are what a single piece would have become.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from astromesh.guardrails.folding import Fold, Folded


@dataclass(frozen=True, slots=True)
class Hit:
    """A match in folded text, `end` behind its last character. `found` says what it is, in words, without the text of it."""

    start: int
    end: int
    found: str


class Matcher(Protocol):
    """What one rule looks for."""

    @property
    def fold(self) -> Fold: ...

    @property
    def mark(self) -> str:
        """What stands in the place of a hit."""
        ...

    def find(self, text: str, start: int) -> Hit | None:
        """The leftmost match that begins at `start` or later, never an empty one. It may look at the character before `start`."""
        ...

    def open_from(self, text: str, start: int) -> int:
        """The first place from `start` on where a match might begin, or the one that begins there might end elsewhere, if text followed.

        May be too early; then more is held back than needed. `len(text)` if there is none.
        """
        ...


class Scan:
    """Replaces what its matcher finds. `hits` counts what was found."""

    def __init__(self, matcher: Matcher) -> None:
        self.hits: Counter[str] = Counter()
        self._matcher = matcher
        self._folded = Folded(matcher.fold)
        self._position = 0  # in the folded text: everything before it is decided

    def feed(self, piece: str) -> str:
        self._folded.add(piece)
        return self._advance(self._matcher.open_from(self._folded.text, self._position))

    def finish(self) -> str:
        return self._advance(len(self._folded.text))

    def _advance(self, open_from: int) -> str:
        folded, text, position = self._folded, self._folded.text, self._position
        shown: list[str] = []
        while (hit := self._matcher.find(text, position)) is not None and hit.start < open_from:
            shown += (folded.past(hit.start, hit.end), self._matcher.mark)
            position = hit.end
            self.hits[hit.found] += 1
        position = max(position, open_from)
        shown.append(folded.up_to(position))
        self._position = folded.forget(position)
        return "".join(shown)


class Chain:
    """Several matchers, one after the other: each reads what the one before it shows."""

    def __init__(self, matchers: Iterable[Matcher]) -> None:
        self._scans = [Scan(matcher) for matcher in matchers]

    def feed(self, piece: str) -> str:
        for scan in self._scans:
            piece = scan.feed(piece)
        return piece

    def finish(self) -> str:
        last = ""
        for scan in self._scans:
            last = scan.feed(last) + scan.finish()
        return last

    @property
    def hits(self) -> Counter[str]:
        return sum((scan.hits for scan in self._scans), Counter())
