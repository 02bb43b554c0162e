"""One side of a link, as a value: what both sides have in common.

Bytes and `now` go in (`receive`, `tick`), bytes and events come out (`outgoing`, `events`). Each side says hello first and waits for the
other's. The asking side pings; whoever hears nothing for `silence_max_s` gives up. Anything that the other side may not say raises
`ConversationBroken`, and the conversation is over: the bytes after it mean nothing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, NamedTuple

from maia.errors import ConversationBroken
from maia.links.frames import Frame, FrameReader, Hello, encode
from maia.links.greeting import VERSION_MAX, VERSION_MIN, Greeting, Introduction, hello, understand
from maia.links.limits import BATCH_BYTES, LinkLimits
from maia.links.outbox import Outbox


@dataclass(frozen=True, slots=True)
class Greeted:
    """The other side has said who it is; calls may begin."""

    introduction: Introduction


class Progress(NamedTuple):
    """A call has a reply to take, or has ended."""

    call_id: int


class LoadTold(NamedTuple):
    """The other side says how busy it is; None where that cannot be read."""

    load: bytes | None


class CallArrived(NamedTuple):
    """A call to answer, in full. `deadline` is on this node's clock."""

    call_id: int
    kind: str
    body: dict[str, Any]
    deadline: float


class CallWithdrawn(NamedTuple):
    """Nobody waits for this call any more ("cancelled", "expired"): stop its handler."""

    call_id: int
    outcome: str


class MayReply(NamedTuple):
    """A handler that was held, because the other side reads more slowly than it speaks, may go on."""

    call_id: int


Event = Greeted | Progress | LoadTold | CallArrived | CallWithdrawn | MayReply


class Conversation(ABC):
    """Common to the asking and the answering side. `due`: call `tick` no later than this."""

    def __init__(self, me: Greeting, limits: LinkLimits, *, now: float, versions: tuple[int, int] = (VERSION_MIN, VERSION_MAX)) -> None:
        self.limits = limits
        self.introduction: Introduction | None = None
        self.due = now + limits.ping_period_s
        self._versions = versions
        self._reader = FrameReader()
        self._outbox = Outbox()
        self._events: list[Event] = []
        self._heard = now
        self._over: ConversationBroken | None = None
        self._outbox.say(encode(hello(me, window_bytes=limits.window_bytes, versions=versions)))

    @property
    def peer_name(self) -> str:
        return self.introduction.greeting.name if self.introduction is not None else "a node that has not said its name"

    def receive(self, data: bytes, *, now: float) -> None:
        """Raises `ConversationBroken` when the other side breaks the rules; what it said before that counts."""
        if self._over is not None:
            raise self._over
        self._heard = now
        try:
            for frame in self._reader.feed(data):
                if self.introduction is None:
                    self._greet(frame, now=now)
                else:
                    self._hear(frame, now=now)
            if self._outbox.urgent_frames > self.limits.control_frames_max:
                raise ConversationBroken("does_not_read", f"{self._outbox.urgent_frames} short frames wait for it")
        except ConversationBroken as broken:
            self._over = broken
            raise

    def tick(self, *, now: float) -> None:
        """What is due by now. Raises `ConversationBroken` after too long a silence."""
        if now - self.due > self.limits.stall_s:
            self._heard = now
        if now - self._heard >= self.limits.silence_max_s:
            self._over = ConversationBroken("silent", f"nothing was heard for {now - self._heard:.1f} s")
            raise self._over
        # Not simply when silence would be proven: a stall that ends just then would look like the other side's.
        self.due = min(self._heard + self.limits.silence_max_s, now + self.limits.ping_period_s)
        self._keep_time(now=now)

    @property
    def has_outgoing(self) -> bool:
        return self._outbox.ready

    def outgoing(self) -> bytes:
        """The next batch for the wire, empty when there is nothing to say. Take it only when the wire has room: order is decided here."""
        batch, moved = self._outbox.take(BATCH_BYTES)
        if moved:
            self._said(moved)
        return batch

    def events(self) -> list[Event]:
        """What happened since the last time."""
        events, self._events = self._events, []
        return events

    def _greet(self, frame: Frame, *, now: float) -> None:
        if not isinstance(frame, Hello):
            raise ConversationBroken("no_hello", f"the first frame was {type(frame).__name__}")
        self.introduction = understand(frame.facts, versions=self._versions)
        self._events.append(Greeted(self.introduction))
        self._greeted(now=now)

    @abstractmethod
    def _greeted(self, *, now: float) -> None: ...

    @abstractmethod
    def _hear(self, frame: Frame, *, now: float) -> None: ...

    @abstractmethod
    def _said(self, moved: list[int]) -> None: ...

    @abstractmethod
    def _keep_time(self, *, now: float) -> None:
        """Do what is due, and lower `due` to the next thing."""
