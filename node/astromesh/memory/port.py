"""What the runtime asks of a memory."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from astromesh.dialogue import Transcript


class Conversation(NamedTuple):
    """Whose history: two agents that are given the same session id share nothing."""

    agent: str
    session_id: str


class ConversationMemory(Protocol):
    async def turns(self, conversation: Conversation) -> tuple[Transcript, ...]:
        """All turns that are kept, oldest first; none for a conversation that nobody had."""
        ...

    async def remember(self, conversation: Conversation, turn: Transcript) -> None:
        """Keeps a turn, whole or not at all."""
        ...
