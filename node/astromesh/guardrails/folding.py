"""Text as rules compare it, with the way back to the text as it was written. Pure.

Whoever wants to get a word past a rule writes it so that people read the same and machines do not: with letters of other scripts,
full-width digits, characters that nobody sees. Folding undoes that, character by character: it does not matter where a stream is cut.

`plain` is for what has few letters of its own (digits, mail addresses, single words): compatibility forms (NFKD), without accents, case or
look-alikes, dashes and spaces of all kinds alike, and of several spaces one. `visible` leaves the text as its author of a pattern would
expect it, but for compatibility forms and characters that nobody sees.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from functools import lru_cache

INVISIBLE_RUN_MAX = 16  # a flag of tags has six, stacked accents of real languages fewer; what goes on longer is dropped from the text
SPACES_RUN_MAX = 8  # so many spaces count as one; what is further apart does not belong together
GAP = "\n"  # stands for a wider gap; no rule matches across it
_FOLDS_KEPT_MAX = 4096
_AT_ONCE = 128  # characters: one that is special slows down no more than these
_ASCII = {sign: chr(sign).lower() for sign in range(128)} | {ord(sign): " " for sign in "\t\n\v\f\r\x1c\x1d\x1e\x1f"}

Fold = Callable[[str], str]
"""One character as a rule compares it: none, one or several."""

# Letters of Cyrillic, Greek and Armenian that look like Latin ones, after case and accents are gone. The rest of the look-alikes are
# compatibility forms, which Unicode itself maps.
_LOOK_ALIKES = dict(
    zip(
        "авеёкмнорстухіїјѕԛԝһԁѵӏґьαβεικνορτυχϲϳηգհոսօզց",
        "abeekmhopctyxiijsqwhdvlrbaβeikvoptuxcjnghnuoqg",
        strict=True,
    )
)
_INVISIBLE = frozenset("\u00ad\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0\u180b\u180c\u180d\u180f")


def is_invisible(sign: str) -> bool:
    """Nothing is drawn for it, or it only changes the character before it."""
    return sign in _INVISIBLE or "\ufe00" <= sign <= "\ufe0f" or unicodedata.category(sign) in ("Cf", "Mn", "Me")


@lru_cache(_FOLDS_KEPT_MAX)
def plain(sign: str) -> str:
    folded = ""
    for part in unicodedata.normalize("NFKD", sign).casefold():
        if part.isspace():
            folded += " "
        elif part.isdecimal():
            folded += str(unicodedata.decimal(part))
        elif unicodedata.category(part) == "Pd" or part == "\u2212":
            folded += "-"
        elif not is_invisible(part) and (part.isprintable() or part == GAP):
            folded += _LOOK_ALIKES.get(part, part)
    return folded


@lru_cache(_FOLDS_KEPT_MAX)
def visible(sign: str) -> str:
    if unicodedata.category(sign) in ("Mn", "Me") and not "\ufe00" <= sign <= "\ufe0f":
        return sign  # an accent is a character that a pattern may ask for
    return "" if is_invisible(sign) else unicodedata.normalize("NFKC", sign)


class Folded:
    """What of a text is not yet released, as it was written and as it is compared.

    `text` begins with up to one character that is released already: rules look at the character before a match.
    """

    def __init__(self, fold: Fold) -> None:
        self.text = ""
        self._fold = fold
        self._origins: list[int] = []  # of each character of `text`, counted from the beginning of all that was ever added
        self._raw = ""  # from `_released` on
        self._added = 0
        self._released = 0
        self._invisible = 0
        self._spaces = 0

    def add(self, piece: str) -> None:
        for start in range(0, len(piece), _AT_ONCE):
            part = piece[start : start + _AT_ONCE]
            if not self._added_quickly(part):
                self._add(part)

    def _added_quickly(self, piece: str) -> bool:
        """Most text is ASCII with single spaces, of which each character stays one: ten times as fast as looking at each."""
        if not piece.isascii():
            return False
        text = piece
        if self._fold is plain:
            text = piece.translate(_ASCII)
            if "  " in text or (self._spaces and text[0] == " ") or not text.isprintable():
                return False
            self._spaces = 1 if text[-1] == " " else 0
        self._invisible = 0
        self._origins.extend(range(self._added, self._added + len(piece)))
        self._added += len(piece)
        self._raw += piece
        self.text += text
        return True

    def _add(self, piece: str) -> None:
        kept, folded = [], []
        for sign in piece:
            if is_invisible(sign):
                self._invisible += 1
                if self._invisible > INVISIBLE_RUN_MAX:
                    continue
            else:
                self._invisible = 0
            kept.append(sign)
            parts = self._single_spaced(self._fold(sign)) if self._fold is plain else self._fold(sign)
            folded.append(parts)
            self._origins.extend([self._added] * len(parts))
            self._added += 1
        self._raw += "".join(kept)
        self.text += "".join(folded)

    def _single_spaced(self, parts: str) -> str:
        out = ""
        for part in parts:
            self._spaces = self._spaces + 1 if part == " " else 0
            if self._spaces <= 1:
                out += part
            elif self._spaces == SPACES_RUN_MAX + 1:
                out += GAP
        return out

    def up_to(self, position: int) -> str:
        """Releases what was written before that character of `text`."""
        end = self._origins[position] if position < len(self._origins) else self._added
        return self._release(end)

    def past(self, start: int, end: int) -> str:
        """Releases what was written before the match, and throws away the match."""
        before = self._release(self._origins[start])
        self._release(self._origins[end - 1] + 1)
        return before

    def forget(self, position: int) -> int:
        """Everything before it is decided: kept is the one character before it. The position of the same character from now on."""
        cut = max(0, position - 1)
        self.text = self.text[cut:]
        del self._origins[:cut]
        return position - cut

    def _release(self, end: int) -> str:
        count = max(0, end - self._released)  # a character that folds to several may belong to two matches: it went with the first
        released, self._raw = self._raw[:count], self._raw[count:]
        self._released += count
        return released
