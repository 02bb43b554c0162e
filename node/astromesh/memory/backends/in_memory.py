"""Turns in this process: gone with it, and never more than a bounded number of them."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from astromesh.memory.port import HISTORY_BYTES_MAX, TURNS_KEPT_MAX, Conversation, History, Summary, Turn
from astromesh.memory.stored import pack, unpack

CONVERSATIONS_MAX = 10_000  # with short turns some 50 MB; the one that was silent longest goes first


@dataclass(slots=True)
class _Kept:
    turns: OrderedDict[str, tuple[float, bytes]] = field(default_factory=OrderedDict)  # by id: when, and what was said
    summary: Summary | None = None
    expires_at: float | None = None

    def expired(self, now: float) -> bool:
        return self.expires_at is not None and self.expires_at <= now


class InMemory:
    def __init__(self) -> None:
        self._kept: OrderedDict[Conversation, _Kept] = OrderedDict()

    async def recall(self, conversation: Conversation, *, now: float, turns_max: int = TURNS_KEPT_MAX) -> History:
        kept = self._kept.get(conversation)
        if kept is None or kept.expired(now):
            return History()
        turns: list[Turn] = []
        room = HISTORY_BYTES_MAX
        for turn_id, (at, said) in reversed(kept.turns.items()):
            room -= len(said)
            if room < 0 or len(turns) == turns_max:
                break
            turns.append(Turn(turn_id, at, unpack(said)))
        return History(tuple(reversed(turns)), kept.summary)

    async def remember(self, conversation: Conversation, turn: Turn, *, expires_at: float | None = None) -> None:
        said = pack(turn.said)
        if conversation in self._kept and self._kept[conversation].expired(turn.at):
            del self._kept[conversation]
        kept = self._kept.setdefault(conversation, _Kept())
        kept.turns.setdefault(turn.id, (turn.at, said))
        kept.expires_at = expires_at
        while len(kept.turns) > TURNS_KEPT_MAX:
            kept.turns.popitem(last=False)
        self._kept.move_to_end(conversation)
        while len(self._kept) > CONVERSATIONS_MAX:
            self._kept.popitem(last=False)

    async def summarise(self, conversation: Conversation, summary: Summary) -> None:
        kept = self._kept.get(conversation)
        if kept is not None and summary.through in kept.turns:
            kept.summary = summary

    async def forget(self, conversation: Conversation) -> int:
        kept = self._kept.pop(conversation, None)
        return len(kept.turns) if kept is not None else 0

    async def close(self) -> None:
        """Nothing outlives the process anyhow."""
