"""Words and patterns that a document names. Pure.

Words are whole ones, in any case, with or without accents; a pattern is RE2's and is compared as it was written.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from astromesh.guardrails.folding import Fold, Folded, plain, visible
from astromesh.guardrails.scan import Hit
from astromesh.specs.patterns import compiled, width

_MARK = "[REDACTED]"


class Words:
    """Any of a list of words or phrases."""

    def __init__(self, words: Sequence[str], *, found: str) -> None:
        """Each of them has a character that is seen."""
        self.mark = _MARK
        self._found = found
        folded = sorted({_folded(word) for word in words}, key=lambda word: (-len(word), word))
        self._pattern = re.compile("|".join(_alternatives(folded)))
        self._beginnings = frozenset(word[:length] for word in folded for length in range(1, len(word) + 1))
        self._characters_max = len(folded[0])

    @property
    def fold(self) -> Fold:
        return plain

    def find(self, text: str, start: int) -> Hit | None:
        found = self._pattern.search(text, start)
        return Hit(found.start(), found.end(), self._found) if found is not None else None

    def open_from(self, text: str, start: int) -> int:
        for length in range(min(self._characters_max, len(text) - start), 0, -1):
            if text[-length:] in self._beginnings:
                return len(text) - length
        return len(text)


def _folded(word: str) -> str:
    folded = Folded(plain)
    folded.add(word.strip())
    return folded.text


_WORD = "[a-z0-9]"  # what folding leaves of scripts that put spaces between words; others have no borders


def _alternatives(words: Sequence[str]) -> Iterator[str]:
    """Patterns of all the words, each looked for once: beginnings that words share are one branch, and of two words the longer wins."""
    for bordered in (True, False):
        trie: dict[str, Any] = {}
        for word in words:
            if bool(re.match(_WORD, word)) == bordered:
                node = trie
                for sign in word:
                    node = node.setdefault(sign, {})
                node[""] = f"(?!{_WORD})" if re.match(_WORD, word[-1]) else ""
        if trie:
            yield (f"(?<!{_WORD})" if bordered else "") + _branches(trie)


def _branches(node: Mapping[str, Any]) -> str:
    longer = [re.escape(sign) + _branches(node[sign]) for sign in sorted(node) if sign]
    ends = [node[""]] if "" in node else []
    return longer[0] if len(longer) == 1 and not ends else ends[0] if not longer else f"(?:{'|'.join([*longer, *ends])})"


class Patterns:
    """All of `blocked_patterns`, side by side: of two that match in one place the first wins."""

    def __init__(self, patterns: Sequence[str]) -> None:
        self.mark = _MARK
        self._patterns = [compiled(pattern) for pattern in patterns]
        widths = [width(pattern) for pattern in patterns]
        self._widest = None if None in widths else max(longest for longest in widths if longest is not None)

    @property
    def fold(self) -> Fold:
        return visible

    def find(self, text: str, start: int) -> Hit | None:
        first: Hit | None = None
        for number, pattern in enumerate(self._patterns):
            found = _not_empty(pattern, text, start)
            if found is not None and (first is None or found.start() < first.start):
                first = Hit(found.start(), found.end(), f"blocked_patterns[{number}]")
        return first

    def open_from(self, text: str, start: int) -> int:
        # One character more than the longest match: `\b` and `$` look at what follows it.
        return start if self._widest is None else max(start, len(text) - self._widest)


def _not_empty(pattern: Any, text: str, start: int) -> Any:
    while (found := pattern.search(text, start)) is not None and found.end() == found.start():
        start = found.end() + 1
        if start > len(text):
            return None
    return found
