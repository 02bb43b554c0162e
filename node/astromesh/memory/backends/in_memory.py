"""Turns in this process: gone with it, and never more than a bounded number of them."""

from __future__ import annotations

from collections import OrderedDict, deque

from astromesh.dialogue import Transcript
from astromesh.memory.port import Conversation

CONVERSATIONS_MAX = 10_000  # with short turns some 50 MB; the one that was silent longest goes first
TURNS_KEPT_MAX = 1000  # what a document's max_turns may ask for at most


class InMemory:
    def __init__(self) -> None:
        self._turns: OrderedDict[Conversation, deque[Transcript]] = OrderedDict()

    async def turns(self, conversation: Conversation) -> tuple[Transcript, ...]:
        return tuple(self._turns.get(conversation, ()))

    async def remember(self, conversation: Conversation, turn: Transcript) -> None:
        self._turns.setdefault(conversation, deque(maxlen=TURNS_KEPT_MAX)).append(turn)
        self._turns.move_to_end(conversation)
        while len(self._turns) > CONVERSATIONS_MAX:
            self._turns.popitem(last=False)
