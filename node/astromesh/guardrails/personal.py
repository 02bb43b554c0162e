"""Personal data in text: mail addresses, payment cards, social security numbers, phone numbers. Pure.

Shapes and check digits, not meaning: names and addresses of streets are not found. Where a number could be two things, the order of
`KINDS` decides. More is taken than a validator of phone numbers would accept, on purpose: one that knows today's area codes lets
yesterday's and tomorrow's through, and what is wrongly redacted does less harm than what is wrongly shown.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from astromesh.guardrails.folding import Fold, plain
from astromesh.guardrails.scan import Hit

# Between two digits of one number. Folding has made one of several spaces, and of all dashes "-".
_GAP = r"[ .\-/()]{0,3}"
_LOCAL = r"[a-z0-9._%+\-]"  # before the @
_AT = r" ?(?:@|\(at\)|\[at\]) ?"
_DOT = r"(?:\.| \. | ?\(dot\) ?| ?\[dot\] ?)"
_LABEL = r"[a-z0-9\-]{1,63}"

EMAIL_CHARACTERS_MAX = 64 + 6 + 5 * (63 + 7) + 24
NUMBER_CHARACTERS_MAX = 3 + 4 * 20
DIGITS_MIN, DIGITS_MAX = 13, 19  # of a card: ISO/IEC 7812


@dataclass(frozen=True, slots=True)
class Kind:
    """`shape` finds candidates, of which `end` tells how far the match goes (0: it is none). `opens` is what may still become one."""

    found: str
    mark: str
    shape: re.Pattern[str]
    end: Callable[[re.Match[str]], int]
    opens: re.Pattern[str]
    characters_max: int

    @property
    def fold(self) -> Fold:
        return plain

    def find(self, text: str, start: int) -> Hit | None:
        while (candidate := self.shape.search(text, start)) is not None:
            if (end := self.end(candidate)) > candidate.start():
                return Hit(candidate.start(), end, self.found)
            start = candidate.start() + 1
        return None

    def open_from(self, text: str, start: int) -> int:
        found = self.opens.search(text, max(start, len(text) - self.characters_max))
        return found.start() if found is not None else len(text)


def _whole(candidate: re.Match[str]) -> int:
    return candidate.end()


def _digits(text: str) -> str:
    return "".join(sign for sign in text if "0" <= sign <= "9")


def passes_luhn(digits: str) -> bool:
    """ISO/IEC 7812-1: from the right, every second digit doubled, and the sum of all digits divisible by ten."""
    doubled = (sum(divmod(2 * int(digit), 10)) for digit in digits[-2::-2])
    return (sum(map(int, digits[::-2])) + sum(doubled)) % 10 == 0


def _card(candidate: re.Match[str]) -> int:
    """The longest beginning that a card can be and after which another digit does not follow at once."""
    text, ends = candidate.group(), [place.end() for place in re.finditer("[0-9]", candidate.group())]
    for count in range(min(len(ends), DIGITS_MAX), DIGITS_MIN - 1, -1):
        end = ends[count - 1]
        if text[end : end + 1].isdigit():
            continue
        if passes_luhn(_digits(text[:end])):
            return candidate.start() + end
    return 0


def _social_security(candidate: re.Match[str]) -> int:
    digits = _digits(candidate.group())
    area, group, serial = digits[:3], digits[3:5], digits[5:]
    # What the Social Security Administration never gave to anybody.
    never = area in ("000", "666") or area[0] == "9" or group == "00" or serial == "0000"
    return 0 if never else candidate.end()


def _phone(candidate: re.Match[str]) -> int:
    return 0 if _NO_PHONE.fullmatch(candidate.group()) else candidate.end()


# What has as many digits and is something else: a date, a time behind it or not, and an address of the Internet.
_NO_PHONE = re.compile(r"\d{1,2}[ ./-]\d{1,2}[ ./-](?:19|20)\d\d(?!\d).*|(?:19|20)\d\d([ ./-])\d\d\1\d\d(?!\d).*|\d{1,3}(?:\.\d{1,3}){3}")
_OPEN_NUMBER = re.compile(rf"(?:\+ ?\(?|\( ?)?(?:[0-9]{_GAP}){{1,{DIGITS_MAX + 1}}}\Z|(?:\+ ?\(?|\( ?)\Z")

EMAIL = Kind(
    "a mail address",
    "[REDACTED_EMAIL]",
    # A domain ends in letters, so that the full stop of a sentence is left alone. The second form has a space after every character.
    re.compile(
        rf"{_LOCAL}{{1,64}}{_AT}(?:{_LABEL}{_DOT}){{1,5}}[a-z]{{2,24}}(?![a-z0-9])"
        rf"|(?<![a-z0-9])(?:{_LOCAL} ){{1,32}}@(?: [a-z0-9\-]){{1,32}} \.(?: [a-z0-9.\-]){{1,32}} [a-z](?![a-z0-9])"
    ),
    _whole,
    re.compile(
        rf"{_LOCAL}{{1,64}}(?: ?(?:[(\[](?:at?)?)?|{_AT}(?:{_LABEL}{_DOT}){{0,5}}[a-z0-9\-]{{0,63}}(?: \.?| ?[(\[](?:d(?:ot?)?)?)?)\Z"
        rf"|(?<![a-z0-9])(?:{_LOCAL} ){{1,32}}(?:{_LOCAL}|@(?: [a-z0-9.\-])* ?)?\Z"
    ),
    EMAIL_CHARACTERS_MAX,
)
CARD = Kind(
    "a card number",
    "[REDACTED_CC]",
    re.compile(rf"(?<![0-9])[2-6](?:{_GAP}[0-9]){{12,18}}[0-9]?"),
    _card,
    _OPEN_NUMBER,
    NUMBER_CHARACTERS_MAX,
)
SOCIAL_SECURITY = Kind(
    "a social security number",
    "[REDACTED_SSN]",
    # The second form has a space between all digits, and so says where its parts end.
    re.compile(
        r"(?<![0-9])[0-9]{3}[ .\-]{1,3}[0-9]{2}[ .\-]{1,3}[0-9]{4}(?![0-9])"
        r"|(?<![0-9])[0-9] [0-9] [0-9] ?[.\-] ?[0-9] [0-9] ?[.\-] ?[0-9] [0-9] [0-9] [0-9](?![0-9])"
    ),
    _social_security,
    _OPEN_NUMBER,
    NUMBER_CHARACTERS_MAX,
)
PHONE = Kind(
    "a phone number",
    "[REDACTED_PHONE]",
    re.compile(
        rf"\+ ?\(?[0-9](?:{_GAP}[0-9]){{6,14}}(?![0-9])"  # with the country
        rf"|(?<![0-9.])00[1-9](?:{_GAP}[0-9]){{6,13}}(?![0-9])"
        rf"|(?<![0-9.])(?:1{_GAP})?\(?[0-9](?:{_GAP}[0-9]){{9}}(?![0-9])"  # ten digits, as in North America
        r"|(?<![0-9.])\(?0[1-9][0-9]{0,4}\)?[ ./\-]{1,3}[0-9](?:[ .\-/]{0,3}[0-9]){5,9}(?![0-9])"  # with the area, as in Europe
    ),
    _phone,
    _OPEN_NUMBER,
    NUMBER_CHARACTERS_MAX,
)
KINDS = (EMAIL, CARD, SOCIAL_SECURITY, PHONE)
