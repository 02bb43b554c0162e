"""The answering side of a link: calls to answer, and the replies on their way back.

Refuses at once, before anything is begun, what it will not do. A call leaves the books when its handler has ended *and* its last frame has
left: until then it counts against `calls_max`, so that neither a slow reader nor a handler that will not stop makes room for more.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, Literal, assert_never

from maia.errors import ConversationBroken, MisuseError, RefusalReason
from maia.links.conversation import CallArrived, CallWithdrawn, Conversation, MayReply
from maia.links.frames import Cancel, Credit, Done, Failed, Frame, More, Open, Ping, Pong, Refused, Reply, decode_body, encode, encode_body
from maia.links.greeting import VERSION_MAX, VERSION_MIN, Greeting
from maia.links.limits import KIND_CHARACTERS_MAX, PIECE_BYTES_MAX, PIECE_COST_BYTES, LinkLimits
from maia.links.outbox import Stream
from maia.links.pieces import Assembly, cut

# After a reply: say the next, wait for `MayReply` first, or stop, because nobody listens any more.
Pace = Literal["go on", "wait", "stop"]


class _Served:
    __slots__ = ("assembly", "deadline", "kind", "running", "settled", "stream", "waiting")

    def __init__(self, kind: str, *, deadline: float, stream: Stream) -> None:
        self.kind = kind
        self.deadline = deadline
        self.stream = stream
        self.assembly: Assembly | None = None
        self.running = False  # a handler is at work
        self.settled = False  # its last word is said, or queued
        self.waiting = False  # its handler is held until there is room


class ServingSide(Conversation):
    draining = False

    def __init__(
        self,
        me: Greeting,
        limits: LinkLimits,
        *,
        kinds: Collection[str],
        now: float,
        versions: tuple[int, int] = (VERSION_MIN, VERSION_MAX),
        load: Callable[[], bytes] = bytes,
        finishing: Collection[str] = (),
    ) -> None:
        """`load` is asked with every last word how busy this node is. `finishing`: kinds that what is under way may need to end at all,
        so they are served on the way out, too."""
        super().__init__(me, limits, now=now, versions=versions)
        self._load = load
        self._kinds = frozenset(kinds)
        self._finishing = frozenset(finishing)
        self._calls: dict[int, _Served] = {}
        self._highest_id = 0
        self._held = 0
        self._window_bytes = 0

    @property
    def in_flight(self) -> int:
        return len(self._calls)

    def reply(self, call_id: int, body: Mapping[str, Any]) -> Pace:
        """Raises `MisuseError` for a body that cannot be sent; the call goes on."""
        packed = encode_body(body)
        if len(packed) > self.limits.body_bytes_max:
            raise MisuseError(f"a reply of {len(packed)} bytes, {self.limits.body_bytes_max} are the limit")
        call = self._calls[call_id]
        if call.settled:
            return "stop"
        first, *rest = cut(packed)
        self._outbox.append(call_id, encode(Reply(call_id, len(packed), first)), price=len(first) + PIECE_COST_BYTES)
        for piece in rest:
            self._outbox.append(call_id, encode(More(call_id, piece)), price=len(piece) + PIECE_COST_BYTES)
        call.waiting = call.stream.waiting_bytes > self.limits.waiting_bytes_max
        return "wait" if call.waiting else "go on"

    def end(self, call_id: int) -> None:
        """All was said."""
        self._settle(call_id, Done(call_id, "done", self._load()))

    def fail(self, call_id: int, body: Mapping[str, Any], *, definite: bool) -> None:
        """Raises `MisuseError` for a body that cannot be sent in one frame; the call goes on."""
        packed = encode_body(body)
        if len(packed) > PIECE_BYTES_MAX:
            raise MisuseError(f"the body of a failure has {len(packed)} bytes, {PIECE_BYTES_MAX} are the limit")
        self._settle(call_id, Failed(call_id, definite, packed, self._load()))

    def finish(self, call_id: int) -> None:
        """The handler is gone. Always the last word on a call that has arrived."""
        call = self._calls[call_id]
        call.running = False
        if not call.stream.frames:
            self._forget(call_id)

    def _greeted(self, *, now: float) -> None:
        assert self.introduction is not None
        self._window_bytes = self.introduction.window_bytes

    def _hear(self, frame: Frame, *, now: float) -> None:
        match frame:
            case Open():
                self._open(frame, now=now)
            case Ping():
                self._outbox.say(encode(Pong(frame.token)))
            case More() | Cancel() | Credit():
                if frame.call_id > self._highest_id:
                    raise ConversationBroken("no_such_call", f"{type(frame).__name__} for call {frame.call_id}")
                # Absent: it ended while this was on its way, and the other side will know in a moment.
                if (call := self._calls.get(frame.call_id)) is not None:
                    self._continue(call, frame)
            case _:
                raise ConversationBroken("wrong_direction", f"{type(frame).__name__} is for the asking side")

    def _continue(self, call: _Served, frame: More | Cancel | Credit) -> None:
        match frame:
            case Cancel():
                self._withdraw(frame.call_id, call, "cancelled")
            case Credit():
                self._outbox.grant(frame.call_id, frame.amount)
            case More():
                if call.assembly is None:
                    raise ConversationBroken("unexpected_piece", f"the body of call {frame.call_id} was complete")
                if call.assembly.add(frame.piece):
                    assembly = self._stop_assembling(call)
                    self._arrive(frame.call_id, call, assembly.packed)
            case _:
                assert_never(frame)

    def _open(self, frame: Open, *, now: float) -> None:
        call_id, kind, remaining_ms, total, piece = frame
        if call_id <= self._highest_id:
            raise ConversationBroken("call_id_reused", str(call_id))
        self._highest_id = call_id
        refusal = self._refusal(kind, total=total, whole=len(piece) == total)
        if refusal is not None:
            self._outbox.say(encode(Refused(call_id, *refusal, self._load())))
            return
        deadline = now + remaining_ms / 1000
        stream = self._outbox.open(call_id, credit=self._window_bytes)
        call = self._calls[call_id] = _Served(kind, deadline=deadline, stream=stream)
        self.due = min(self.due, deadline)
        if len(piece) == total:
            self._arrive(call_id, call, piece)
        else:
            call.assembly = Assembly(total, piece)
            self._held += total

    def _refusal(self, kind: str, *, total: int, whole: bool) -> tuple[RefusalReason, str] | None:
        limits = self.limits
        if self.draining and kind not in self._finishing:
            return "draining", "it is on its way out and takes nothing new"
        if kind not in self._kinds:
            return "unknown_kind", f"it serves no {kind[:KIND_CHARACTERS_MAX]!r}"
        if len(self._calls) >= limits.calls_max:
            return "too_many_calls", f"{limits.calls_max} calls from this node are in flight"
        if total > limits.body_bytes_max:
            return "body_too_large", f"{total} bytes, {limits.body_bytes_max} are the limit"
        if not whole and self._held + total > limits.held_bytes_max:
            return "too_many_bytes", f"{self._held} bytes of other requests from this node are still arriving"
        return None

    def _arrive(self, call_id: int, call: _Served, packed: bytes | bytearray) -> None:
        body = decode_body(packed)
        call.running = True
        self._events.append(CallArrived(call_id, call.kind, body, call.deadline))

    def _settle(self, call_id: int, last: Done | Failed) -> None:
        call = self._calls[call_id]
        if not call.settled:
            call.settled = True
            self._outbox.append(call_id, encode(last))

    def _withdraw(self, call_id: int, call: _Served, outcome: str) -> None:
        if call.settled and not call.stream.frames:
            return  # the last word has left; only the handler is still tidying up
        call.stream.clear()
        call.settled = True
        self._outbox.say(encode(Done(call_id, outcome, self._load())))
        if call.assembly is not None:
            self._stop_assembling(call)
        if call.running:
            self._events.append(CallWithdrawn(call_id, outcome))
        else:
            self._forget(call_id)

    def _stop_assembling(self, call: _Served) -> Assembly:
        assert call.assembly is not None
        assembly, call.assembly = call.assembly, None
        self._held -= assembly.total
        return assembly

    def _forget(self, call_id: int) -> None:
        del self._calls[call_id]
        self._outbox.close(call_id)

    def _said(self, moved: list[int]) -> None:
        for call_id in moved:
            call = self._calls.get(call_id)
            if call is None:
                continue
            if call.waiting and call.stream.waiting_bytes <= self.limits.waiting_bytes_max:
                call.waiting = False
                self._events.append(MayReply(call_id))
            if call.settled and not call.running and not call.stream.frames:
                self._forget(call_id)

    def _keep_time(self, *, now: float) -> None:
        for call_id, call in list(self._calls.items()):
            if call.settled and not call.stream.frames:
                continue
            if call.deadline <= now:
                self._withdraw(call_id, call, "expired")
            else:
                self.due = min(self.due, call.deadline)
