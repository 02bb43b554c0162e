"""A text on its way through all rules of one direction: tokens in, what may be shown now out. Pure.

Each rule reads what the one before it shows, in the order of the document. No more is held back than the longest match that is still
possible; a rule that blocks, and a pattern without a longest match, hold everything. What was shown, put together, is the guarded whole,
wherever the text was cut.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from astromesh.guardrails.rules import Blocking, Rule

BLOCKED = "[REDACTED]"  # in the place of what would be blocked, where it is only looked at on the way


@dataclass(frozen=True, slots=True)
class Finding:
    """A rule that found something: its type, and what, in words that hold nothing of the text."""

    rule: str
    reason: str


@dataclass(frozen=True, slots=True)
class Block:
    """The rule that blocked a text, and what is said instead."""

    rule: str
    reason: str
    message: str


class Release:
    """One text. `feed` its pieces, then `finish` it."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        self.block: Block | None = None  # known at the end
        self.redacted: Counter[str] = Counter()  # of each kind how many, known at the end
        self.warnings: tuple[Finding, ...] = ()  # known at the end
        self._guards = [(rule, rule.guard()) for rule in rules]

    def feed(self, piece: str) -> str:
        """What may be shown by now and was not shown before."""
        for _, guard in self._guards:
            if not piece:
                break
            piece = guard.feed(piece)
        return piece

    def finish(self, *, remark: bool = False) -> str:
        """The rest; nothing if it is blocked. A `remark` is no answer: rules of answers do not block it."""
        last, warnings = "", []
        for rule, guard in self._guards:
            if isinstance(guard, Blocking):
                guard.excused = remark and rule.of_answers
            last = guard.feed(last) + guard.finish()
            reason = ", ".join(guard.found)
            if not reason:
                continue
            match rule.action:
                case "block":
                    self.block = Block(rule.type, reason, rule.message)
                    last = ""
                    break
                case "redact":
                    self.redacted += guard.found
                case "warn" if not (remark and rule.of_answers):
                    warnings.append(Finding(rule.type, reason))
        self.warnings = tuple(warnings)
        return last
