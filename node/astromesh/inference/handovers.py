"""States of conversations on their way out of a worker and into it, a piece at a time, between the steps of its streams. Pure.

Any number of them go side by side, each under its number, and one that nobody wants any more leaves nothing behind. What goes out waits for
whoever reads it: a state may be as large as the cache, and must not pile up in the node.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from astromesh.errors import InvalidRequest
from astromesh.inference.session_state import STATE_BYTES_MAX

# Pieces of a state that are sent before anybody asks for more: enough for the pipe to be busy while one of them is read.
AHEAD_PIECES: Final = 8


class Holder(Protocol):
    """Who has the states (`schedule`)."""

    def export(self, frame: Mapping[str, Any], *, identity: str) -> Iterator[bytes]: ...

    def take_in(self, data: bytes, *, identity: str) -> int: ...


@dataclass(slots=True, eq=False)
class _Leaving:
    pieces: Iterator[bytes]
    allowed: int = AHEAD_PIECES


class Handovers:
    """In: export, more (one more piece of it), import (in pieces). Out: state (in pieces), imported."""

    def __init__(self, holder: Holder, *, identity: str, send: Callable[..., None]) -> None:
        self._holder = holder
        self._identity = identity
        self._send = send
        self._leaving: dict[int, _Leaving] = {}
        self._coming: dict[int, bytearray | None] = {}  # None: it was refused, and the rest of it may still come

    @property
    def idle(self) -> bool:
        """There is nothing that may be sent now."""
        return not any(leaving.allowed for leaving in self._leaving.values())

    def hear(self, frame: Mapping[str, Any]) -> None:
        """Raises `InvalidRequest`; that handover is over then."""
        number = frame["number"]
        match frame["kind"]:
            case "export":
                self._leaving[number] = _Leaving(self._holder.export(frame, identity=self._identity))
            case "more":
                if (leaving := self._leaving.get(number)) is not None:
                    leaving.allowed += 1
            case "import":
                self._receive(number, frame["data"], last=frame["last"])
            case other:
                raise AssertionError(f"a frame of kind {other!r} hands nothing over")

    def cancel(self, number: int) -> None:
        """Of one that has ended there is nothing left."""
        self._leaving.pop(number, None)
        self._coming.pop(number, None)

    def step(self) -> None:
        """Sends the next piece of the one whose turn it is."""
        number = next((number for number, leaving in self._leaving.items() if leaving.allowed), None)
        if number is None:
            return
        leaving = self._leaving.pop(number)
        piece = next(leaving.pieces, None)
        if piece is None:
            self._send("state", number=number, data=b"", last=True)
            return
        leaving.allowed -= 1
        self._leaving[number] = leaving  # behind the others
        self._send("state", number=number, data=piece, last=False)

    def _receive(self, number: int, data: bytes, *, last: bool) -> None:
        so_far = self._coming.setdefault(number, bytearray())
        if so_far is not None:
            so_far += data
            if len(so_far) > STATE_BYTES_MAX:
                self._coming[number] = None
        if last:
            del self._coming[number]
        if so_far is not None and len(so_far) > STATE_BYTES_MAX:
            raise InvalidRequest(f"a session state of over {STATE_BYTES_MAX} bytes", param="session")
        if last and so_far is not None:
            self._send("imported", number=number, tokens=self._holder.take_in(bytes(so_far), identity=self._identity))
