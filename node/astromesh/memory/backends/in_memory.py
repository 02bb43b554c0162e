"""Turns in this process: gone with it, and never more than a bounded number and size of them."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from astromesh.memory.port import HISTORY_BYTES_MAX, TURNS_KEPT_MAX, Conversation, History, Summary, Turn
from astromesh.memory.stored import pack, unpack

CONVERSATIONS_MAX = 10_000  # with short turns some 50 MB; the one that was silent longest goes first
BYTES_MAX = 256 * 2**20  # of all of them, as they are stored: a node of 1 GB keeps three quarters for its models


@dataclass(slots=True)
class _Kept:
    turns: OrderedDict[str, tuple[float, bytes]] = field(default_factory=OrderedDict)  # by id: when, and what was said
    summary: Summary | None = None
    expires_at: float | None = None

    @property
    def summary_bytes(self) -> int:
        return len(self.summary.text.encode()) if self.summary is not None else 0

    def expired(self, now: float) -> bool:
        return self.expires_at is not None and self.expires_at <= now


class InMemory:
    def __init__(self, *, bytes_max: int = BYTES_MAX) -> None:
        self._kept: OrderedDict[Conversation, _Kept] = OrderedDict()  # the one that was silent longest first
        self._bytes_max = bytes_max
        self._bytes = 0

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
            self._drop(conversation)
        kept = self._kept.setdefault(conversation, _Kept())
        if turn.id not in kept.turns:
            kept.turns[turn.id] = (turn.at, said)
            self._bytes += len(said)
        kept.expires_at = expires_at
        self._kept.move_to_end(conversation)
        while len(self._kept) > CONVERSATIONS_MAX or (self._bytes > self._bytes_max and len(self._kept) > 1):
            self._drop(next(iter(self._kept)))
        while len(kept.turns) > TURNS_KEPT_MAX or (self._bytes > self._bytes_max and len(kept.turns) > 1):
            _, (_, gone) = kept.turns.popitem(last=False)
            self._bytes -= len(gone)

    async def summarise(self, conversation: Conversation, summary: Summary) -> None:
        kept = self._kept.get(conversation)
        if kept is not None and summary.through in kept.turns:
            self._bytes -= kept.summary_bytes
            kept.summary = summary
            self._bytes += kept.summary_bytes

    async def forget(self, conversation: Conversation) -> int:
        return self._drop(conversation)

    def _drop(self, conversation: Conversation) -> int:
        """How many turns went with it."""
        kept = self._kept.pop(conversation, None)
        if kept is None:
            return 0
        self._bytes -= kept.summary_bytes + sum(len(said) for _, said in kept.turns.values())
        return len(kept.turns)

    async def close(self) -> None:
        """Nothing outlives the process anyhow."""
