"""What the runtime asks of a memory, and the values that cross it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

from astromesh.dialogue import Transcript

TURNS_KEPT_MAX = 1000  # of one conversation, the newest: what a document's max_turns may ask for at most
TURN_BYTES_MAX = 1024 * 1024  # of one turn as it is stored: 250,000 tokens, more than models on a LAN can read
HISTORY_BYTES_MAX = 16 * 1024 * 1024  # of what one reading returns, the newest turns first: it is parsed on the loop that serves


class Conversation(NamedTuple):
    """Whose history: two agents that are given the same session id share nothing."""

    agent: str
    session_id: str
    namespace: str = "default"


@dataclass(frozen=True, slots=True)
class Turn:
    """All that was said in one run, from its question to its answer. `id` is made by the run's home, `at` in seconds since the epoch."""

    id: str
    at: float
    said: Transcript


@dataclass(frozen=True, slots=True)
class Summary:
    """What stands in a prompt for the turns up to and including the one whose id is `through`."""

    text: str
    through: str


@dataclass(frozen=True, slots=True)
class History:
    """Turns oldest first. Those that a summary stands for are among them as long as they are kept."""

    turns: tuple[Turn, ...] = ()
    summary: Summary | None = None

    @property
    def unfolded(self) -> tuple[Turn, ...]:
        """The turns that no summary stands for. Where the last one that it does was not read, or is not kept any more, that is all."""
        through = self.summary.through if self.summary is not None else None
        last = next((place for place in reversed(range(len(self.turns))) if self.turns[place].id == through), -1)
        return self.turns[last + 1 :]


class ConversationMemory(Protocol):
    """Raises `MemoryUnavailable` where it cannot be read or written."""

    async def recall(self, conversation: Conversation, *, now: float, turns_max: int = TURNS_KEPT_MAX) -> History:
        """The newest turns that are kept and not expired `now`; none for a conversation that nobody had."""
        ...

    async def remember(self, conversation: Conversation, turn: Turn, *, expires_at: float | None = None) -> None:
        """Keeps a turn, whole or not at all, and only once however often it is told of the same id. When it returns, the turn is kept.

        The conversation as a whole expires at `expires_at` unless another turn says otherwise. Raises `TurnTooLarge`.
        """
        ...

    async def summarise(self, conversation: Conversation, summary: Summary) -> None:
        """Keeps a summary beside the turns; nothing where the turn that it ends with is gone: what was deleted does not come back."""
        ...

    async def forget(self, conversation: Conversation) -> int:
        """Deletes it all; how many turns that were."""
        ...

    async def close(self) -> None:
        """Whatever `remember` was told is kept then."""
        ...


@runtime_checkable
class Openable(Protocol):
    """A memory of something that may be missing, full or damaged."""

    async def open(self) -> tuple[str, ...]:
        """Opens it now instead of at its first use; what somebody should know of that. Raises `MemoryUnavailable`."""
        ...
