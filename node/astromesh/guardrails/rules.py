"""The rules of a document as guards of one text, each with its action. Pure.

A guard reads one text, piece by piece, and is used once. What it shows is final; what it found it can tell at the end.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import assert_never

from astromesh.guardrails.personal import KINDS
from astromesh.guardrails.scan import Chain, Matcher
from astromesh.guardrails.words import Patterns, Words
from astromesh.specs.agent import Guardrail, GuardrailAction

MESSAGE_DEFAULT = "I cannot help with that."


class Guard(ABC):
    """One rule and one text."""

    @abstractmethod
    def feed(self, piece: str) -> str:
        """What may be shown of the text so far and was not shown before."""

    @abstractmethod
    def finish(self) -> str:
        """The rest. Nothing is shown of a text that is blocked."""

    @property
    @abstractmethod
    def found(self) -> Counter[str]:
        """What it found so far, in words that hold nothing of the text."""


class Redacting(Guard):
    """Puts marks in the place of what it finds."""

    def __init__(self, matchers: Sequence[Matcher]) -> None:
        self._chain = Chain(matchers)

    def feed(self, piece: str) -> str:
        return self._chain.feed(piece)

    def finish(self) -> str:
        return self._chain.finish()

    @property
    def found(self) -> Counter[str]:
        return self._chain.hits


class Watching(Guard):
    """Lets everything pass at once, and looks at it."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard

    def feed(self, piece: str) -> str:
        self._guard.feed(piece)
        return piece

    def finish(self) -> str:
        self._guard.finish()
        return ""

    @property
    def found(self) -> Counter[str]:
        return self._guard.found


class Blocking(Guard):
    """Holds everything back until its end, for what was shown cannot be taken back; then shows all or nothing."""

    def __init__(self, guard: Guard) -> None:
        self.excused = False  # what it finds does not count
        self._guard = guard
        self._held: list[str] = []

    def feed(self, piece: str) -> str:
        self._guard.feed(piece)
        self._held.append(piece)
        return ""

    def finish(self) -> str:
        self._guard.finish()
        return "" if self.found else "".join(self._held)

    @property
    def found(self) -> Counter[str]:
        return Counter() if self.excused else self._guard.found


class Cutting(Guard):
    """Shows no more than so many characters."""

    def __init__(self, characters_max: int) -> None:
        self._left = characters_max
        self._found = f"more than {characters_max} characters"
        self._cut = False

    def feed(self, piece: str) -> str:
        shown = piece[: self._left]
        self._left -= len(shown)
        self._cut = self._cut or len(shown) < len(piece)
        return shown

    def finish(self) -> str:
        return ""

    @property
    def found(self) -> Counter[str]:
        return Counter({self._found: 1} if self._cut else ())


class Missing(Guard):
    """Finds a text that mentions none of the words; one without any text is no such text."""

    def __init__(self, words: Words) -> None:
        self._looking = Redacting((words,))
        self._said = False

    def feed(self, piece: str) -> str:
        self._said = self._said or bool(piece.strip())
        return self._looking.feed(piece)

    def finish(self) -> str:
        return self._looking.finish()

    @property
    def found(self) -> Counter[str]:
        return Counter({"none of the allowed topics": 1} if self._said and not self._looking.found else ())


@dataclass(frozen=True, slots=True)
class Rule:
    """One item of `guardrails.input` or `guardrails.output`, ready to guard any number of texts."""

    type: str
    action: GuardrailAction
    message: str  # what is answered instead of what it blocks
    looking: Callable[[], Guard]  # for one text; how it looks when it redacts
    of_answers: bool = False  # it asks of a question or an answer what a remark on the way, or an earlier turn, cannot give

    def guard(self) -> Guard:
        match self.action:
            case "redact":
                return self.looking()
            case "warn":
                return Watching(self.looking())
            case "block":
                return Blocking(self.looking())
            case _:
                assert_never(self.action)


def rules(rails: Iterable[Guardrail]) -> tuple[Rule, ...]:
    """In the order of the document. A limit of costs is none of them, since no text shows it: see `budget`."""
    return tuple(rule for rail in rails for rule in _rules(rail))


def _rules(rail: Guardrail) -> Iterator[Rule]:
    action, message = rail.does, rail.message or MESSAGE_DEFAULT
    match rail.type:
        case "pii_detection":
            yield Rule(rail.type, action, message, lambda: Redacting(KINDS))
        case "topic_filter":
            if rail.blocked_topics:
                blocked = Words(rail.blocked_topics, found="a blocked topic")
                yield Rule(rail.type, action, message, lambda: Redacting((blocked,)))
            if rail.allowed_topics:
                allowed = Words(rail.allowed_topics, found="an allowed topic")
                yield Rule(rail.type, action, message, lambda: Missing(allowed), of_answers=True)
        case "max_length":
            most = rail.max_chars or 0
            yield Rule(rail.type, action, message, lambda: Cutting(most), of_answers=True)
        case "content_filter":
            matchers: list[Matcher] = []
            if rail.forbidden_keywords:
                matchers.append(Words(rail.forbidden_keywords, found="a forbidden keyword"))
            if rail.blocked_patterns:
                matchers.append(Patterns(rail.blocked_patterns))
            yield Rule(rail.type, action, message, lambda: Redacting(matchers))
        case "cost_limit":
            return
        case _:
            assert_never(rail.type)
