"""Queries about keys: what a member answers, in Serf's words, and the questions of ours that are under way."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final, assert_never

from maia.errors import MisuseError
from maia.keyring import Keyring, text_of
from maia.view import KeyOperation, KeyQueryEnded, KeyReply
from maia.wire.serf import KeyAnswer

TITLES: Final[dict[KeyOperation, bytes]] = {
    "list": b"_serf_list-keys",
    "install": b"_serf_install-key",
    "use": b"_serf_use-key",
    "remove": b"_serf_remove-key",
}
OPERATIONS: Final = {title: operation for operation, title in TITLES.items()}
QUESTIONS_MAX: Final = 8  # under way at once; a person asks one


def carried_out(keyring: Keyring | None, operation: KeyOperation, key: bytes) -> tuple[KeyAnswer, Keyring | None]:
    """What a member answers, and its keyring afterwards. A refusal leaves it as it was."""
    if keyring is None:
        return KeyAnswer(
            ok=False, message=f"{'Keyring is empty' if operation == 'list' else 'No keyring to modify'} (encryption not enabled)"
        ), None
    try:
        match operation:
            case "list":
                return KeyAnswer(ok=True, keys=tuple(map(text_of, keyring.keys)), primary=text_of(keyring.primary)), keyring
            case "install":
                return KeyAnswer(ok=True), keyring.install(key)
            case "use":
                if key not in keyring.keys:
                    return KeyAnswer(ok=False, message="Requested key is not in the keyring"), keyring
                return KeyAnswer(ok=True), keyring.use(key)
            case "remove":
                if key == keyring.primary:
                    return KeyAnswer(ok=False, message="Removing the primary key is not allowed"), keyring
                return KeyAnswer(ok=True), keyring.remove(key)
            case _:
                assert_never(operation)
    except MisuseError as mistake:
        return KeyAnswer(ok=False, message=str(mistake)), keyring


@dataclass(slots=True)
class Question:
    """One query of ours, until everybody asked has replied."""

    number: int  # Serf's random one, which answers repeat
    time: int
    operation: KeyOperation
    key: bytes = field(repr=False)
    asked: tuple[str, ...]
    ends_s: float
    replies: dict[str, KeyReply] = field(default_factory=dict)


class Questions:
    """Those that are under way, in the order in which they were asked."""

    def __init__(self, me: str) -> None:
        self._me = me
        self._by_number: dict[int, Question] = {}
        self.due_s = math.inf  # when the first of them ends at the latest

    def ask(self, question: Question) -> None:
        """Raises `MisuseError` where too many are under way."""
        if len(self._by_number) >= QUESTIONS_MAX:
            raise MisuseError(f"{QUESTIONS_MAX} queries about keys are under way: wait for their answers")
        self._by_number[question.number] = question
        self.due_s = min(self.due_s, question.ends_s)

    def reply(self, number: int, time: int, *, node: str, answer: KeyAnswer) -> bool:
        """Somebody answers; False for what nobody asked it, or what it said before."""
        question = self._by_number.get(number)
        if question is None or question.time != time or node not in question.asked or node in question.replies:
            return False
        question.replies[node] = KeyReply(node, answer.ok, answer.message, answer.keys, answer.primary)
        return True

    def awaited(self, number: int) -> bool:
        return number in self._by_number

    def complete(self, now: float) -> list[Question]:
        """Those that only this node has not answered, or whose time is up: they are over with that."""
        over = [
            question
            for question in self._by_number.values()
            if question.ends_s <= now or all(node in question.replies or node == self._me for node in question.asked)
        ]
        for question in over:
            del self._by_number[question.number]
        self.due_s = min((question.ends_s for question in self._by_number.values()), default=math.inf)
        return over


def ended(question: Question) -> KeyQueryEnded:
    return KeyQueryEnded(question.number, question.operation, tuple(question.replies.values()), question.asked)
