"""What one side still has to say, and whose turn it is.

Nothing is pushed: whoever owns the wire takes a batch when it has room. So a body of 10 MiB waits here, one frame at a time between the
frames of other calls, and not in front of them in a socket's buffer.
"""

from __future__ import annotations

from collections import deque

from maia.links.limits import PIECE_COST_BYTES


class Stream:
    """The frames of one call, in order. Each has a price; what the credit does not cover waits."""

    __slots__ = ("credit", "frames", "queued", "started", "waiting_bytes")

    def __init__(self, credit: int) -> None:
        self.credit = credit
        self.frames: deque[tuple[int, bytes]] = deque()  # (price, frame)
        self.waiting_bytes = 0  # what they hold, the cost of holding them included
        self.started = False  # something of it has left
        self.queued = False  # it stands in the outbox's row

    @property
    def may_go(self) -> bool:
        return bool(self.frames) and self.frames[0][0] <= self.credit

    def clear(self) -> None:
        self.frames.clear()
        self.waiting_bytes = 0


class Outbox:
    """Short frames first, then the streams in turn, one frame each."""

    __slots__ = ("_row", "_streams", "_urgent")

    def __init__(self) -> None:
        self._urgent: deque[bytes] = deque()
        self._row: deque[int] = deque()
        self._streams: dict[int, Stream] = {}

    def say(self, frame: bytes) -> None:
        """A frame that needs no turn."""
        self._urgent.append(frame)

    @property
    def urgent_frames(self) -> int:
        return len(self._urgent)

    @property
    def ready(self) -> bool:
        return bool(self._urgent or self._row)

    def open(self, call_id: int, *, credit: int = 0) -> Stream:
        stream = self._streams[call_id] = Stream(credit)
        return stream

    def append(self, call_id: int, frame: bytes, *, price: int = 0) -> None:
        stream = self._streams[call_id]
        stream.frames.append((price, frame))
        stream.waiting_bytes += len(frame) + PIECE_COST_BYTES
        self._line_up(call_id, stream)

    def grant(self, call_id: int, amount: int) -> None:
        stream = self._streams[call_id]
        stream.credit += amount
        self._line_up(call_id, stream)

    def close(self, call_id: int) -> None:
        """Whatever of this stream has not left never will."""
        stream = self._streams.pop(call_id, None)
        if stream is not None and stream.queued:
            self._row.remove(call_id)

    def take(self, budget_bytes: int) -> tuple[bytes, list[int]]:
        """Frames of about `budget_bytes` (one frame may exceed it), and the streams that something left from, in order."""
        frames: list[bytes] = []
        moved: list[int] = []
        size = 0
        while self._urgent and size < budget_bytes:
            frames.append(self._urgent.popleft())
            size += len(frames[-1])
        while self._row and size < budget_bytes:
            call_id = self._row.popleft()
            stream = self._streams[call_id]
            stream.queued = False
            if not stream.may_go:
                continue
            price, frame = stream.frames.popleft()
            stream.credit -= price
            stream.waiting_bytes -= len(frame) + PIECE_COST_BYTES
            stream.started = True
            frames.append(frame)
            moved.append(call_id)
            size += len(frame)
            self._line_up(call_id, stream)
        return b"".join(frames), moved

    def _line_up(self, call_id: int, stream: Stream) -> None:
        if not stream.queued and stream.may_go:
            stream.queued = True
            self._row.append(call_id)
