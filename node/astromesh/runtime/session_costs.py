"""What sessions have cost so far, in tokens: kept in this process, of a bounded number of sessions."""

from __future__ import annotations

from collections import OrderedDict

from astromesh.memory.port import Conversation

SESSIONS_MAX = 10_000  # 3 MB; the one that was silent longest is forgotten first


class SessionCosts:
    def __init__(self) -> None:
        self._tokens: OrderedDict[Conversation, int] = OrderedDict()

    def spent(self, conversation: Conversation) -> int:
        return self._tokens.get(conversation, 0)

    def add(self, conversation: Conversation, tokens: int) -> None:
        self._tokens[conversation] = self.spent(conversation) + tokens
        self._tokens.move_to_end(conversation)
        while len(self._tokens) > SESSIONS_MAX:
            self._tokens.popitem(last=False)
