"""What is to be said, and to whom: messages to one address travel in one packet, filled up with whatever else is worth telling."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from maia.config import Address
from maia.view import Counters
from maia.wire.codec import COMPOUND_OVERHEAD, CRC_OVERHEAD, PACKET_BYTES_MAX, PART_OVERHEAD, PARTS_MAX, encode, kind_in, pack
from maia.wire.messages import Message
from maia.wire.seal import SEAL_OVERHEAD, Sealer

BUDGET_BYTES: Final = PACKET_BYTES_MAX - CRC_OVERHEAD - COMPOUND_OVERHEAD

# Given the bytes left and the parts left, encoded messages that fit: each costs its size and `PART_OVERHEAD`.
Filler = Callable[[int, int], list[bytes]]


class Datagram(NamedTuple):
    payload: bytes
    target: Address


class Outbox:
    """Shared by all rooms of one mesh; drained after every call. With a `sealer` nothing leaves unsealed.

    `reads_checksums` says whether somebody at an address is known to, `tells` whether what is said there may be filled up: a stranger's
    ping would make twelve hundred bytes out of fifty, and use up what was to be told to members.
    """

    def __init__(
        self,
        counters: Counters,
        *,
        sealer: Sealer | None = None,
        reads_checksums: Callable[[Address], bool] = lambda _: True,
        tells: Callable[[Address], bool] = lambda _: True,
    ) -> None:
        self._counters = counters
        self._reads_checksums = reads_checksums
        self._tells = tells
        self.sealer = sealer
        self._said: list[tuple[Address, Message]] = []
        self._nudged: dict[Address, None] = {}

    def say(self, target: Address, message: Message) -> None:
        self._said.append((target, message))

    def nudge(self, target: Address) -> None:
        """Send a packet of filling alone, if there is any."""
        self._nudged[target] = None

    def drain(self, filler: Filler | None) -> list[Datagram]:
        """The packets, none over the budget; the last one to each target carries what `filler` adds."""
        if not self._said and not self._nudged:
            return []
        parts_by_target: dict[Address, list[bytes]] = {}
        for target, message in self._said:
            parts_by_target.setdefault(target, []).append(encode(message))
        self._said.clear()
        nudged, self._nudged = self._nudged, {}
        for target in nudged:
            parts_by_target.setdefault(target, [])
        datagrams: list[Datagram] = []
        for target, parts in parts_by_target.items():
            filling = filler if filler is not None and (target in nudged or self._tells(target)) else None
            if len(parts) == 1 and filling is None:
                self._send(parts, target, datagrams)
            else:
                self._fill(parts, target, filling, datagrams)
        return datagrams

    def _fill(self, parts: list[bytes], target: Address, filler: Filler | None, datagrams: list[Datagram]) -> None:
        held: list[bytes] = []
        budget_bytes = full_bytes = BUDGET_BYTES - SEAL_OVERHEAD if self.sealer is not None else BUDGET_BYTES
        for part in parts:
            if held and (budget_bytes < len(part) + PART_OVERHEAD or len(held) == PARTS_MAX):
                self._send(held, target, datagrams)
                held, budget_bytes = [], full_bytes
            held.append(part)
            budget_bytes -= len(part) + PART_OVERHEAD
        if filler is not None:
            held += [filling for filling in filler(budget_bytes, PARTS_MAX - len(held)) if filling not in parts]
        if held:
            self._send(held, target, datagrams)

    def _send(self, parts: list[bytes], target: Address, datagrams: list[Datagram]) -> None:
        payload = parts[0] if len(parts) == 1 else pack(parts, checksum=self._reads_checksums(target))
        if self.sealer is not None:
            payload = self.sealer.seal(payload)
        self._counters.sent(kind_in(parts[0]), len(payload))
        datagrams.append(Datagram(payload, target))
