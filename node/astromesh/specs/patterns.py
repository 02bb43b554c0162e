"""Patterns that people write into documents: RE2's syntax, and how much text a match can span. Pure.

RE2 matches in time linear in the text, so no pattern can hang a node; it has neither backreferences nor look-around, which is the price.
It is imported when a document holds a pattern (2 ms and 3 MB, measured), not before.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

PATTERN_CHARACTERS_MAX = 1000  # a longer one is a list of words that was meant for forbidden_keywords
PROGRAM_BYTES_MAX = 1 << 20  # of one compiled pattern: RE2 refuses what would need more
COMPILED_KEPT_MAX = 256


class BadPattern(ValueError):
    """RE2 does not take it. The text says why."""


@lru_cache(COMPILED_KEPT_MAX)
def compiled(pattern: str) -> Any:
    """RE2's own object, with `search(text, position)`. Raises `BadPattern`."""
    import re2

    if len(pattern) > PATTERN_CHARACTERS_MAX:
        raise BadPattern(f"it is longer than {PATTERN_CHARACTERS_MAX} characters")
    options = re2.Options()
    options.log_errors = False
    options.max_mem = PROGRAM_BYTES_MAX
    try:
        return re2.compile(pattern, options)
    except re2.error as mistake:
        said = mistake.args[0] if mistake.args else ""
        raise BadPattern(said.decode(errors="replace") if isinstance(said, bytes) else str(said)) from None


def width(pattern: str) -> int | None:
    """The most characters that a match can span; None where there is no such number. For what `compiled` takes."""
    return _Reader(pattern).alternatives()


class _Reader:
    """Walks over a pattern that RE2 has taken, so it need not look for mistakes."""

    def __init__(self, pattern: str) -> None:
        self._rest = pattern

    def alternatives(self) -> int | None:
        """Up to the end, or to the parenthesis that closes this group."""
        widest: int | None = 0
        sum_: int | None = 0
        while self._rest and self._rest[0] != ")":
            if self._taken("|"):
                widest, sum_ = _larger(widest, sum_), 0
                continue
            one = self._repeated(self._atom())
            sum_ = None if sum_ is None or one is None else sum_ + one
        return _larger(widest, sum_)

    def _taken(self, start: str) -> bool:
        taken = self._rest.startswith(start)
        if taken:
            self._rest = self._rest[len(start) :]
        return taken

    def _until(self, end: str) -> str:
        text, _, self._rest = self._rest.partition(end)
        return text

    def _atom(self) -> int | None:
        sign, self._rest = self._rest[0], self._rest[1:]
        match sign:
            case "(":
                return self._group()
            case "[":
                self._class()
                return 1
            case "\\":
                return self._escape()
            case "^" | "$":
                return 0
            case _:
                return 1

    def _group(self) -> int | None:
        if self._taken("?"):
            if self._taken("P<") or self._taken("<"):
                self._until(">")
            else:
                while self._rest[0] not in ":)":
                    self._rest = self._rest[1:]
                self._taken(":")
        inside = self.alternatives()
        self._taken(")")
        return inside

    def _class(self) -> None:
        self._taken("^")
        self._taken("]")  # in the first place it stands for itself
        while not self._taken("]"):
            if self._rest.startswith("[:") and ":]" in self._rest:
                self._until(":]")
            elif self._taken("\\"):
                self._escape()
            else:
                self._rest = self._rest[1:]

    def _escape(self) -> int:
        sign, self._rest = self._rest[0], self._rest[1:]
        if sign == "Q":
            return len(self._until("\\E"))
        if sign in "pPx":
            if self._taken("{"):
                self._until("}")
            else:
                self._rest = self._rest[2 if sign == "x" else 1 :]
        elif sign in "01234567":
            while self._rest[:1] and self._rest[0] in "01234567":
                self._rest = self._rest[1:]
        return 0 if sign in "bBAz" else 1

    def _repeated(self, atom: int | None) -> int | None:
        while self._rest:
            most: int | None
            if self._taken("*") or self._taken("+"):
                most = None
            elif self._taken("?"):
                most = 1
            elif (end := self._rest.find("}")) > 0 and self._rest[0] == "{" and _counts(self._rest[1:end]):
                least, comma, last = self._rest[1:end].partition(",")
                most = int(last) if last else None if comma else int(least)
                self._rest = self._rest[end + 1 :]
            else:
                break
            self._taken("?")
            atom = 0 if atom == 0 else None if atom is None or most is None else atom * most
        return atom


def _counts(text: str) -> bool:
    least, _, last = text.partition(",")
    return least.isascii() and least.isdigit() and (not last or (last.isascii() and last.isdigit()))


def _larger(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else max(one, other)
