"""Words and patterns that a document names. Pure.

Words are whole ones, in any case, with or without accents; a pattern is RE2's and is compared as it was written.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from astromesh.guardrails.folding import Fold, Folded, plain, visible
from astromesh.guardrails.scan import Hit
from astromesh.specs.patterns import compiled, width

_MARK = "[REDACTED]"


class Words:
    """Any of a list of words or phrases."""

    def __init__(self, words: Sequence[str], *, found: str) -> None:
        """Each of them has a character that is seen."""
        self.found, self.mark = found, _MARK
        folded = sorted({_folded(word) for word in words}, key=lambda word: (-len(word), word))
        self._pattern = re.compile("|".join(map(_bordered, folded)))
        self._beginnings = frozenset(word[:length] for word in folded for length in range(1, len(word) + 1))
        self._characters_max = len(folded[0])

    @property
    def fold(self) -> Fold:
        return plain

    def find(self, text: str, start: int) -> Hit | None:
        found = self._pattern.search(text, start)
        return Hit(found.start(), found.end()) if found is not None else None

    def open_from(self, text: str, start: int) -> int:
        for length in range(min(self._characters_max, len(text) - start), 0, -1):
            if text[-length:] in self._beginnings:
                return len(text) - length
        return len(text)


def _folded(word: str) -> str:
    folded = Folded(plain)
    folded.add(word.strip())
    return folded.text


def _bordered(word: str) -> str:
    """A whole word, where the script puts spaces between words: letters and digits of ASCII are what is left of those after folding."""
    before = "(?<![a-z0-9])" if word[0].isascii() and word[0].isalnum() else ""
    after = "(?![a-z0-9])" if word[-1].isascii() and word[-1].isalnum() else ""
    return before + re.escape(word) + after


class Pattern:
    """One pattern of `blocked_patterns`."""

    def __init__(self, pattern: str, *, found: str) -> None:
        self.found, self.mark = found, _MARK
        self._pattern = compiled(pattern)
        self._width = width(pattern)

    @property
    def fold(self) -> Fold:
        return visible

    def find(self, text: str, start: int) -> Hit | None:
        while (found := self._pattern.search(text, start)) is not None:
            if found.end() > found.start():
                return Hit(found.start(), found.end())
            start = found.end() + 1
            if start > len(text):
                return None
        return None

    def open_from(self, text: str, start: int) -> int:
        # One character more than the longest match: `\b` and `$` look at what follows it.
        return start if self._width is None else max(start, len(text) - self._width)
