"""The asking side of a link: calls, their replies and their ends.

Replies wait here until `take` reads them. What was read is given back as credit, half a window at a time, so a reader that stops stalls the
sender of its own call and nobody else. A call that is cancelled is forgotten at once; its number is kept until the other side confirms, so
that replies which were on their way are told from replies to calls that never were.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any, NamedTuple, assert_never

from maia.errors import CallError, CallExpired, CallFailed, CallRefused, ConversationBroken, LinkLost, MisuseError, PeerUnreachable
from maia.links.conversation import Conversation, LoadTold, Progress
from maia.links.frames import (
    Cancel,
    Credit,
    Done,
    Failed,
    Frame,
    More,
    Open,
    Ping,
    Pong,
    Refused,
    Reply,
    decode_body,
    encode,
    encode_body,
)
from maia.links.greeting import VERSION_MAX, VERSION_MIN, Greeting
from maia.links.limits import KIND_CHARACTERS_MAX, PIECE_COST_BYTES, LinkLimits
from maia.links.outbox import Stream
from maia.links.pieces import Assembly, cut

# How much one new sample counts in the smoothed round trip: an eighth, as in TCP (RFC 6298, §2).
RTT_GAIN = 0.125


@dataclass(frozen=True, slots=True)
class Ended:
    """There will be no more replies. Without an error all is well."""

    error: CallError | None = None


class _Waiting(NamedTuple):
    """A reply that nobody has read yet: what it will give back in credit, and in bytes held."""

    body: Mapping[str, Any]
    cost: int
    held: int


class _Call:
    __slots__ = ("assembly", "deadline", "ended", "granted", "held", "inbox", "kind", "owed", "stream", "unreturned")

    def __init__(self, kind: str, *, deadline: float, granted: int, stream: Stream) -> None:
        self.kind = kind
        self.deadline = deadline
        self.stream = stream
        self.granted = granted  # what the other side may still send
        self.owed = 0  # what was read and not yet given back
        self.inbox: deque[_Waiting] = deque()
        self.assembly: Assembly | None = None
        self.unreturned = 0  # the price of the frames of `assembly` that arrived while earlier replies waited
        self.held = 0
        self.ended: Ended | None = None


class CallingSide(Conversation):
    def __init__(self, me: Greeting, limits: LinkLimits, *, now: float, versions: tuple[int, int] = (VERSION_MIN, VERSION_MAX)) -> None:
        super().__init__(me, limits, now=now, versions=versions)
        self.rtt_s: float | None = None
        self._calls: dict[int, _Call] = {}
        self._lingering: dict[int, float] = {}  # cancelled, not yet confirmed: until when that may take
        self._last_id = 0
        self._held = 0
        self._ping_token = 0
        self._ping_sent = now

    @property
    def in_flight(self) -> int:
        return len(self._calls)

    def call(self, kind: str, body: Mapping[str, Any], *, timeout_s: float, now: float) -> int:
        """The number of the new call. Raises `CallRefused` when this link is full or the body too large, `MisuseError` for a body that is
        not fit for the wire; nothing was sent then."""
        if self.introduction is None:
            raise MisuseError("a call before the other side has said hello")
        if not 0 < len(kind) <= KIND_CHARACTERS_MAX:
            raise MisuseError(f"a kind of {len(kind)} characters: 1 to {KIND_CHARACTERS_MAX} are possible")
        if len(self._calls) + len(self._lingering) >= self.limits.calls_max:
            raise CallRefused(f"the link to {self.peer_name} carries {self.limits.calls_max} calls already", reason="too_many_calls")
        packed = encode_body(body)
        if len(packed) > self.limits.body_bytes_max:
            raise CallRefused(f"{kind}: a body of {len(packed)} bytes, {self.limits.body_bytes_max} are the limit", reason="body_too_large")
        self._last_id = call_id = self._last_id + 1
        deadline = now + timeout_s
        first, *rest = cut(packed)
        # Rounded up: a call that was given any time at all is not sent out dead.
        opening = Open(call_id, kind, max(0, ceil(timeout_s * 1000)), len(packed), first)
        self._calls[call_id] = _Call(kind, deadline=deadline, granted=self.limits.window_bytes, stream=self._outbox.open(call_id))
        self._outbox.append(call_id, encode(opening))
        for piece in rest:
            self._outbox.append(call_id, encode(More(call_id, piece)))
        self.due = min(self.due, deadline)
        return call_id

    def take(self, call_id: int) -> Mapping[str, Any] | Ended | None:
        """The next reply, or that there are no more, or None while neither is known."""
        call = self._calls[call_id]
        if not call.inbox:
            return call.ended
        body, cost, held = call.inbox.popleft()
        self._release(call, held)
        if not call.inbox:
            cost += call.unreturned
            call.unreturned = 0
        self._read(call_id, call, cost=cost)
        return body

    def leave(self, call_id: int, *, now: float) -> bool:
        """The caller wants no more of this. Whether that cut it short. Always the last word on a call."""
        call = self._calls.pop(call_id)
        self._release(call, call.held)
        if call.ended is not None:
            return False
        self._withdraw(call_id, call, now=now)
        return True

    def lost(self, why: str) -> None:
        """The link is gone, and every call on it has ended."""
        for call_id, call in self._calls.items():
            if call.ended is None:
                if call.stream.started:
                    error: CallError = LinkLost(f"{call.kind}: the link to {self.peer_name} broke during the call ({why})")
                else:
                    error = PeerUnreachable(f"{call.kind}: the link to {self.peer_name} broke before the call was sent ({why})")
                self._end(call_id, call, error)

    def _greeted(self, *, now: float) -> None:
        self._ping(now=now)

    def _hear(self, frame: Frame, *, now: float) -> None:
        match frame:
            case Reply() | More() | Done() | Failed() | Refused():
                if not isinstance(frame, Reply | More) and frame.load != b"":
                    self._events.append(LoadTold(frame.load))
                call = self._calls.get(frame.call_id)
                if call is not None and call.ended is None:
                    self._answered(call, frame, now=now)
                elif frame.call_id not in self._lingering:
                    raise ConversationBroken("no_such_call", f"{type(frame).__name__} for call {frame.call_id}")
                elif not isinstance(frame, Reply | More):
                    del self._lingering[frame.call_id]
            case Pong():
                self._pong(frame.token, now=now)
            case _:
                raise ConversationBroken("wrong_direction", f"{type(frame).__name__} is for the answering side")

    def _answered(self, call: _Call, frame: Reply | More | Done | Failed | Refused, *, now: float) -> None:
        call_id = frame.call_id
        match frame:
            case Reply():
                if call.assembly is not None:
                    raise ConversationBroken("unexpected_reply", f"in call {call_id} another reply is not complete")
                cost = self._charge(call, frame.piece)
                if len(frame.piece) == frame.total:
                    self._deliver(call_id, call, frame.piece, cost=cost, held=0)
                else:
                    self._assemble(call_id, call, Assembly(frame.total, frame.piece), now=now)
            case More():
                if call.assembly is None:
                    raise ConversationBroken("unexpected_piece", f"in call {call_id} no reply has begun")
                whole = call.assembly.add(frame.piece)
                self._arrive(call_id, call, cost=self._charge(call, frame.piece))
                if whole:
                    assembly, call.assembly = call.assembly, None
                    cost, call.unreturned = call.unreturned, 0
                    self._deliver(call_id, call, assembly.packed, cost=cost, held=assembly.total)
            case Done():
                if call.assembly is not None:
                    raise ConversationBroken("unexpected_end", f"call {call_id} ended in the middle of a reply")
                if frame.outcome == "expired":
                    self._end(call_id, call, CallExpired(f"{call.kind}: {self.peer_name} was not done by the deadline"))
                elif frame.outcome == "done":
                    self._end(call_id, call, None)
                else:
                    raise ConversationBroken("unexpected_end", f"call {call_id} ended as {frame.outcome[:20]!r}")
            case Failed():
                self._end(call_id, call, CallFailed(decode_body(frame.body), definite=frame.definite))
            case Refused():
                message = f"{call.kind}: {self.peer_name} refused: {frame.message}"
                self._end(call_id, call, CallRefused(message, reason=frame.reason))
            case _:
                assert_never(frame)

    def _charge(self, call: _Call, piece: bytes) -> int:
        """What this piece costs until it is read."""
        cost = len(piece) + PIECE_COST_BYTES
        call.granted -= cost
        if call.granted < 0:
            raise ConversationBroken("credit_overdrawn", f"{-call.granted} bytes of {call.kind} more than were granted")
        return cost

    def _assemble(self, call_id: int, call: _Call, assembly: Assembly, *, now: float) -> None:
        error: CallError | None = None
        if assembly.total > self.limits.body_bytes_max:
            message = f"{call.kind}: a reply of {assembly.total} bytes, {self.limits.body_bytes_max} are the limit"
            error = CallFailed({"message": message}, definite=False)
        elif self._held + assembly.total > self.limits.held_bytes_max:
            message = f"{call.kind}: large replies of {self._held} bytes wait already on the link to {self.peer_name}; read them first"
            error = CallFailed({"message": message}, definite=False)
        if error is not None:
            self._end(call_id, call, error)
            self._withdraw(call_id, call, now=now)
            return
        call.assembly = assembly
        call.held += assembly.total
        self._held += assembly.total
        self._arrive(call_id, call, cost=len(assembly.packed) + PIECE_COST_BYTES)

    def _arrive(self, call_id: int, call: _Call, *, cost: int) -> None:
        # The rest of a reply longer than the window can only come if its beginning counts as read; but only once it is the reader's next.
        if call.inbox:
            call.unreturned += cost
        else:
            self._read(call_id, call, cost=cost)

    def _deliver(self, call_id: int, call: _Call, packed: bytes | bytearray, *, cost: int, held: int) -> None:
        call.inbox.append(_Waiting(decode_body(packed), cost, held))
        self._events.append(Progress(call_id))

    def _read(self, call_id: int, call: _Call, *, cost: int) -> None:
        call.owed += cost
        if call.ended is None and call.owed * 2 >= self.limits.window_bytes:
            call.granted += call.owed
            self._outbox.say(encode(Credit(call_id, call.owed)))
            call.owed = 0

    def _release(self, call: _Call, held: int) -> None:
        call.held -= held
        self._held -= held

    def _end(self, call_id: int, call: _Call, error: CallError | None) -> None:
        call.ended = Ended(error)
        self._outbox.close(call_id)
        self._events.append(Progress(call_id))

    def _withdraw(self, call_id: int, call: _Call, *, now: float) -> None:
        self._outbox.close(call_id)
        if call.stream.started:
            self._outbox.say(encode(Cancel(call_id)))
            self._lingering[call_id] = now + self.limits.lingering_s

    def _said(self, moved: list[int]) -> None:
        """Nobody waits for a request to leave."""

    def _keep_time(self, *, now: float) -> None:
        if self.introduction is None:
            return
        for call_id, call in self._calls.items():
            if call.ended is None:
                if call.deadline <= now:
                    self._end(call_id, call, CallExpired(f"{call.kind}: the time for it at {self.peer_name} is over"))
                    self._withdraw(call_id, call, now=now)
                else:
                    self.due = min(self.due, call.deadline)
        for call_id in [call_id for call_id, until in self._lingering.items() if until <= now]:
            del self._lingering[call_id]
        if now >= self._ping_sent + self.limits.ping_period_s:
            self._ping(now=now)
        self.due = min(self.due, self._ping_sent + self.limits.ping_period_s)

    def _ping(self, *, now: float) -> None:
        self._ping_token += 1
        self._ping_sent = now
        self._outbox.say(encode(Ping(self._ping_token)))
        self.due = min(self.due, now + self.limits.ping_period_s)

    def _pong(self, token: int, *, now: float) -> None:
        if token > self._ping_token:
            raise ConversationBroken("no_such_ping", str(token))
        if token == self._ping_token:
            sample = now - self._ping_sent
            self.rtt_s = sample if self.rtt_s is None else self.rtt_s + RTT_GAIN * (sample - self.rtt_s)
