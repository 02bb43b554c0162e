"""Calls of tools inside of what a model writes, found while it writes. Pure.

Text before a call passes through; of a call the name is told as soon as it is there, and its arguments as they grow, in the model's own
characters. What only looked like a call is text again, marks and all; once its name was told, a call stays one, and whether its arguments
are JSON is for the tool room to say.
"""

from __future__ import annotations

import hashlib
import json
from base64 import b32encode
from collections.abc import Callable, Collection, Sequence
from typing import Final, Literal

from astromesh.dialogue import ToolCallDelta
from astromesh.inference.assembly import overlap
from astromesh.inference.dialects import Dialect

CALLS_MAX: Final = 128  # in one answer
UNTOLD_CHARACTERS_MAX: Final = 16_384  # of what may be a call and has no name yet; its name comes first in every dialect

Heard = str | ToolCallDelta
_Told = Literal["nothing", "name", "all"]


def call_ids(prompt: Sequence[int], seed: int) -> Callable[[int], str]:
    """The id of the call with an index: nine letters and digits, as some templates want them, and the same where an answer is resumed."""
    beginning = hashlib.blake2b(f"{seed} {list(prompt)}".encode()).digest()

    def identifier(index: int) -> str:
        return b32encode(hashlib.blake2b(b"%d" % index, key=beginning, digest_size=6).digest()).decode().rstrip("=")[:9].lower()

    return identifier


class CallReader:
    """Feed it the text of one answer; what comes out is text to show and pieces of calls."""

    def __init__(self, dialect: Dialect, names: Collection[str], *, forced: bool, identifier: Callable[[int], str]) -> None:
        """`forced`: the answer is a call from its first character on, its opening being in the prompt."""
        self._dialect = dialect
        self._names = names
        self._identifier = identifier
        self._held = ""
        self._forced = forced
        self._began = False  # something that is no white space was said
        self._call: _Call | None = None
        self._after_call = False
        self._skipping = False  # what is left of a call that broke after its name was told
        self.calls = 0
        if forced:
            self._open()

    @property
    def inside(self) -> bool:
        """A call is being written."""
        return self._call is not None

    @property
    def untouched(self) -> bool:
        """The opening was the last thing written, but for white space: a grammar may begin here."""
        return self._call is not None and not self._call.raw.strip() and not self._call.number

    def feed(self, text: str) -> list[Heard]:
        heard: list[Heard] = []
        while text:
            if self._skipping:
                text = self._skip(text)
            else:
                text = self._in_call(text, heard) if self._call is not None else self._in_text(text, heard)
        return heard

    def finish(self, *, truncated: bool) -> list[Heard]:
        """What was held back. Where the answer was cut off, the beginning of a call without a name is nobody's text."""
        call, self._call = self._call, None
        if self._skipping:
            return []
        if call is None:
            held, self._held = self._held, ""
            return [held] if held and not (self._after_call and held.isspace()) else []
        if call.told == "nothing":
            return [] if truncated or self._forced or call.number else self._as_text(call)
        return call.rest()

    def _as_text(self, call: _Call) -> list[Heard]:
        said = call.before + call.raw
        return [said] if said else []

    def _open(self, before: str = "") -> None:
        self._began = True
        self._call = _Call(self._dialect, before)

    def _in_text(self, text: str, heard: list[Heard]) -> str:
        """Passes text on up to the next call; what is left of it."""
        opening, text = self._dialect.opening, self._held + text
        self._held = ""
        if self._after_call:
            stripped = text.lstrip(" \t\r\n;" if not opening else " \t\r\n")
            closing = self._dialect.closing
            if not stripped or (closing and stripped != closing and closing.startswith(stripped)):
                self._held = text
                return ""
            if closing and stripped.startswith(closing):
                return stripped[len(closing) :]
            text = stripped if not opening and stripped.startswith("{") else text
        if not opening:
            if (not self._began or self._after_call) and text.lstrip().startswith("{") and self.calls < CALLS_MAX:
                self._open(text[: text.index("{")])
                return text.lstrip()
            if not self._began and not text.strip():
                self._held = text
                return ""
            return self._say(text, heard)
        position = text.find(opening) if self.calls < CALLS_MAX else -1
        if position >= 0:
            self._say(text[:position], heard)
            self._open(opening)
            return text[position + len(opening) :]
        keep = overlap(text, opening)
        self._say(text[: len(text) - keep], heard)
        self._held = text[len(text) - keep :]
        return ""

    def _skip(self, text: str) -> str:
        text, closing = self._held + text, self._dialect.closing
        position = text.find(closing) if closing else -1
        self._skipping = position < 0
        self._held = text[len(text) - overlap(text, closing) :] if self._skipping and closing else ""
        self._after_call = True
        return "" if self._skipping else text[position + len(closing) :]

    def _say(self, text: str, heard: list[Heard]) -> str:
        if text and not (self._after_call and text.isspace()):
            heard.append(text)
            self._began, self._after_call = True, False
        return ""

    def _in_call(self, text: str, heard: list[Heard]) -> str:
        assert self._call is not None
        call = self._call
        for position, character in enumerate(text):
            went_on = call.take(character)
            if call.told == "nothing" and call.name is not None:
                if not self._dialect.opening and not self._forced and call.name not in self._names:
                    went_on = False
                else:
                    call.index = self.calls
                    self.calls += 1
                    heard.append(ToolCallDelta(call.index, self._identifier(call.index), call.name))
                    call.told = "name"
            if call.complete:
                if call.told == "nothing":  # an object without a name
                    went_on = False
                else:
                    heard += call.rest()
                    self._after_call = True
                    self._call = call.next()
                    return text[position + 1 :]
            if call.over:
                self._call, self._after_call = None, True
                return text[position + 1 :]
            if not went_on or (call.told == "nothing" and len(call.raw) > UNTOLD_CHARACTERS_MAX):
                self._call = None
                if call.told == "nothing":
                    heard += self._as_text(call) if not call.number else []
                    self._after_call = False
                else:
                    heard += call.rest()
                    self._skipping = True
                return text[position + 1 :]
        heard += call.fresh()
        return ""


class _Call:
    """One object as its characters come: where its name and its arguments begin and end."""

    def __init__(self, dialect: Dialect, before: str, *, number: int = 0) -> None:
        self.before = before  # the mark that made it a call
        self.number = number  # of the call in its list
        self.raw = ""
        self.name: str | None = None
        self.index = -1
        self.told: _Told = "nothing"
        self.complete = self.over = False
        self._dialect = dialect
        self._depth = 0  # of brackets, inside of the object
        self._quoted = self._escaped = False
        self._part: Literal["list", "object", "key", "colon", "value", "comma"] = "list" if dialect.listed else "object"
        self._key = ""
        self._value = ""
        self._arguments: str | None = None
        self._sent = 0

    def next(self) -> _Call | None:
        """In a list another one may follow."""
        return _Call(self._dialect, "", number=self.number + 1) if self._dialect.listed else None

    def fresh(self) -> list[Heard]:
        """The arguments that came since the last time, if the name is known. Where they are a text, its content comes at the end."""
        growing = self._value if self._part == "value" and self._key == self._dialect.arguments_key else self._arguments
        if self.told != "name" or growing is None or growing.startswith('"'):
            return []
        piece, self._sent = growing[self._sent :], len(growing)
        return [ToolCallDelta(self.index, arguments=piece)] if piece else []

    def rest(self) -> list[Heard]:
        """The same, and what was waited with; a call without arguments has none to give."""
        if self.told != "name":
            return []
        heard = self.fresh()
        if self._arguments is None and self.complete:
            heard.append(ToolCallDelta(self.index, arguments="{}"))
        elif self._arguments is not None and self._arguments.startswith('"'):
            heard.append(ToolCallDelta(self.index, arguments=_unquoted(self._arguments)))
        self.told = "all"
        return heard

    def take(self, character: str) -> bool:
        """False where this is no call any more."""
        self.raw += character
        if self._part == "value":
            return self._take_value(character)
        if self._part == "key":
            self._key += character
            if self._quoting(character):
                self._part = "colon"
            return True
        if character in " \t\r\n":
            return True
        match self._part, character:
            case "list", "[" if not self.number:
                self._part = "object"
            case "list", "," if self.number:
                self._part = "object"
            case "list", "]" if self.number:
                self.over = True
            case "object", "{":
                self._part = "comma"
            case "comma", '"':
                self._part, self._key, self._quoted = "key", character, True
            case "comma", "," if self._key:
                pass
            case "comma", "}":
                self.complete = True
            case "colon", ":":
                self._key = _unquoted(self._key)
                self._part, self._value = "value", ""
            case _:
                return False
        return True

    def _quoting(self, character: str) -> bool:
        """Inside of a text: True when this character ends it."""
        if self._escaped:
            self._escaped = False
        elif character == "\\":
            self._escaped = True
        elif character == '"':
            self._quoted = False
            return True
        return False

    def _take_value(self, character: str) -> bool:
        if self._quoted:
            self._value += character
            self._quoting(character)
            return True
        if character in ",}" and not self._depth:
            if not self._value.strip():
                return False
            self._end_value()
            self.complete = character == "}"
            return True
        if character in "]}":
            self._depth -= 1
            if self._depth < 0:
                return False
        elif character in "[{":
            self._depth += 1
        elif character == '"':
            self._quoted = True
        if self._value or character not in " \t\r\n":
            self._value += character
        return True

    def _end_value(self) -> None:
        self._part = "comma"
        value = self._value.rstrip()
        if self._key == "name" and value.startswith('"') and self.name is None:
            self.name = _unquoted(value)
        elif self._key == self._dialect.arguments_key and self._arguments is None:
            self._arguments = value


def _unquoted(text: str) -> str:
    try:
        said = json.loads(text)
    except ValueError:
        return text.strip('"')
    return said if isinstance(said, str) else text
