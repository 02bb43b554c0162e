"""Rules of a grammar in GBNF, llama.cpp's notation, in the making: what each part may cost is counted while it is made. Pure.

A grammar costs time with every token: each reading that is still open is tried on each token of the vocabulary. Alternatives that begin
alike inside of others that do multiply the readings. And repetitions cost memory, since llama.cpp writes them out one by one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final, NoReturn

from astromesh.errors import InvalidRequest

READINGS_MAX: Final = 256  # each takes a millisecond a token with 50,000 tokens, in the worst case
REPETITIONS_MAX: Final = 1000  # llama.cpp takes 2,000 in one place
REPETITIONS_TOGETHER_MAX: Final = 4000

# Each with the rules that it names. A control character inside of a string would be no JSON.
_PRIMITIVES: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "space": ('" "?', ()),
    "char": (r'[^"\\\x00-\x1F\x7F] | "\\" (["\\/bfnrt] | "u" [0-9a-fA-F]{4})', ()),
    "string": (r'"\"" char* "\""', ("char",)),
    "integer": ('"-"? ("0" | [1-9] [0-9]{0,17})', ()),
    "natural": ('"0" | [1-9] [0-9]{0,17}', ()),
    "positive": ("[1-9] [0-9]{0,17}", ()),
    "number": ('"-"? ("0" | [1-9] [0-9]{0,15}) ("." [0-9]{1,16})? ([eE] [-+]? [0-9]{1,2})?', ()),
    "boolean": ('"true" | "false"', ()),
    "null": ('"null"', ()),
    "value": ("object | array | string | number | boolean | null", ("object", "array", "string", "number", "boolean", "null")),
    "object": (
        '"{" space (string space ":" space value (space "," space string space ":" space value)*)? space "}"',
        ("string", "value", "space"),
    ),
    "array": ('"[" space (value (space "," space value)*)? space "]"', ("value", "space")),
    "full-date": ('[0-9]{4} "-" ("0" [1-9] | "1" [0-2]) "-" ("0" [1-9] | [12] [0-9] | "3" [01])', ()),
    "full-time": (
        '([01] [0-9] | "2" [0-3]) ":" [0-5] [0-9] ":" [0-5] [0-9] ("." [0-9]{1,6})? ("Z" | [+-] ([01] [0-9] | "2" [0-3]) ":" [0-5] [0-9])',
        (),
    ),
}


class Rules:
    """What adds a rule returns what stands for it in others."""

    def __init__(self, *, param: str) -> None:
        """`param` is where the grammar was asked for."""
        self._param = param
        self._rules: dict[str, str] = {}
        self._repetitions = 0
        self._readings = 1  # of what was written so far, at the place where the rules are being made
        self._readings_seen = 1  # the most since the last reference began

    def text(self, root: str) -> str:
        return "\n".join(f"{name} ::= {rule}" for name, rule in [("root", root), *self._rules.items()])

    def literal(self, text: str) -> str:
        escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\r")
        return f'"{escaped}"'

    def primitive(self, name: str) -> str:
        if name not in self._rules:
            body, named = _PRIMITIVES[name]
            self._rules[name] = body
            for other in named:
                self.primitive(other)
        return name

    def union(self, parts: Sequence[str]) -> str:
        self.note(self._readings * len(parts))
        return parts[0] if len(parts) == 1 else self.rule(" | ".join(parts))

    def note(self, readings: int) -> None:
        self._readings_seen = max(self._readings_seen, readings)
        if readings > READINGS_MAX:
            self.refuse(
                f"leaves more than {READINGS_MAX} readings open at once",
                hint="fewer enum values, optional properties or tools, and alternatives that differ in their first property",
            )

    @contextmanager
    def among(self, alike: int) -> Iterator[None]:
        """Inside of one of so many alternatives that begin alike."""
        self._readings *= alike
        self.note(self._readings)
        try:
            yield
        finally:
            self._readings //= alike

    def rule(self, body: str) -> str:
        name = f"r{len(self._rules)}"
        self._rules[name] = body
        return name

    def times(self, low: int, high: int | None) -> str:
        """So many of what stands before it; no `high`: any number."""
        if (low, high) == (0, None):
            return "*"
        return f"{{{low},}}" if high is None else f"{{{low},{high}}}"

    def repeat(self, times: int) -> None:
        self._repetitions += times
        if self._repetitions > REPETITIONS_TOGETHER_MAX:
            self.refuse(f"asks for more than {REPETITIONS_TOGETHER_MAX} repetitions together")

    def refuse(self, what: str, *, hint: str = "change the schema") -> NoReturn:
        raise self.refusal(what, hint=hint)

    def refusal(self, what: str, *, hint: str = "change the schema") -> InvalidRequest:
        return InvalidRequest(f"the schema in {self._param} {what}", hint=hint, param=self._param)
