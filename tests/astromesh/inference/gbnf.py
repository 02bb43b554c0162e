"""Whether a text is in the language of a grammar, for grammars as small as those of tests: tried out, reading by reading."""

from __future__ import annotations

import re
from functools import cache

_TOKENS = re.compile(r'\s*(?:("(?:[^"\\]|\\.)*")|(\[(?:[^\]\\]|\\.)*\])|(\{\d+(?:,\d*)?\})|([a-z][a-z0-9-]*)|([()|?*+]))')


class _Rules:
    def __init__(self, grammar: str) -> None:
        self.bodies = dict(line.split(" ::= ", 1) for line in grammar.split("\n"))

    def pattern(self, name: str) -> list[tuple[str, str]]:
        body, position, found = self.bodies[name].rstrip(), 0, []
        while position < len(body):
            token = _TOKENS.match(body, position)
            assert token, f"no grammar at {body[position:]!r} in {name}"
            found.append((("literal", "set", "times", "name", "sign")[token.lastindex - 1], token.group(token.lastindex)))  # type: ignore[operator,index]
            position = token.end()
        return found


def matches(grammar: str, text: str) -> bool:
    rules = _Rules(grammar)

    @cache
    def parsed(name: str) -> object:
        tokens = rules.pattern(name)
        position = 0

        def alternatives() -> object:
            nonlocal position
            found = [sequence()]
            while position < len(tokens) and tokens[position] == ("sign", "|"):
                position += 1
                found.append(sequence())
            return ("or", tuple(found))

        def sequence() -> object:
            nonlocal position
            found: list[object] = []
            while position < len(tokens) and tokens[position] not in (("sign", "|"), ("sign", ")")):
                kind, said = tokens[position]
                position += 1
                match kind:
                    case "literal":
                        found.append(("text", re.sub(r"\\(.)", lambda m: {"n": "\n", "r": "\r"}.get(m[1], m[1]), said[1:-1])))
                    case "set":
                        found.append(("set", re.compile(said)))
                    case "name":
                        found.append(("rule", said))
                    case "times":
                        low, _, high = said[1:-1].partition(",")
                        found[-1] = ("times", found[-1], int(low), (int(high) if high else 10**9) if "," in said else int(low))
                    case _ if said == "(":
                        found.append(alternatives())
                        position += 1
                    case _:
                        low, high = {"?": (0, 1), "*": (0, 10**9), "+": (1, 10**9)}[said]  # type: ignore[assignment]
                        found[-1] = ("times", found[-1], low, high)
            return ("all", tuple(found))

        return alternatives()

    @cache
    def ends(node: object, start: int) -> frozenset[int]:
        match node:
            case ("text", str(said)):
                return frozenset({start + len(said)} if text.startswith(said, start) else ())
            case ("set", re.Pattern() as one):
                return frozenset({start + 1} if start < len(text) and one.fullmatch(text[start]) else ())
            case ("rule", str(name)):
                return ends(parsed(name), start)
            case ("or", tuple(parts)):
                return frozenset().union(*(ends(part, start) for part in parts))
            case ("all", tuple(parts)):
                here = frozenset({start})
                for part in parts:
                    here = frozenset().union(*(ends(part, at) for at in here))
                return here
            case ("times", part, int(low), int(high)):
                reached = here = frozenset({start})
                found = set(reached) if low == 0 else set()
                for count in range(1, min(high, len(text) + 1) + 1):
                    here = frozenset().union(*(ends(part, at) for at in here)) - (found if count > low else frozenset())
                    if not here:
                        break
                    if count >= low:
                        found |= here
                return frozenset(found)
        raise AssertionError(node)

    return len(text) in ends(("rule", "root"), 0)
