"""How changes reach everyone: the owner sends them straight to every Maia node, and whoever missed one finds out by the root hash.

A push is one packet or a few, the same for all, handed out in slices. A repair starts when an ack carries another root than ours, and only
if the roots still differ a moment later: mostly the push is just on its way.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from maia.catalogue.catalogue import Catalogue, cut
from maia.catalogue.digest import rows, rows_that_differ, shelves_that_differ
from maia.catalogue.intake import Intake
from maia.config import Address, Random
from maia.view import Counters
from maia.wire.messages import User
from maia.wire.offers import (
    ITEMS_BYTES_MAX,
    ROW_BYTES,
    UDP_VALUE_BYTES_MAX,
    Digest,
    Entries,
    Entry,
    Listed,
    Listing,
    OfferMessage,
    Want,
    encode_digest,
    encode_entries,
    encode_exchange,
    encode_listing,
    encode_want,
)
from maia.wire.outbox import Outbox

PUSH_SLICE: Final = 32  # receivers at once; a hundred packets in one burst overrun small socket buffers
PUSH_PAUSE_S: Final = 0.005
# How long a push may be under way, beside what its slices take, before a root that we never had means a loss: of a gossip interval, which
# is ten times and more the latency of the networks that a profile is for. Twice the interval, a lost change took 0.85 s at p99 among ten.
PULL_WAIT_INTERVALS: Final = 0.5
# Pulls that show nothing new come ever more seldom: the two sides disagree about who lives, and that is not mended here.
PULL_PAUSE_MAX_S: Final = 5.0
PULL_PAUSES_MAX: Final = 128
# Among many some push is always under way and every root another, so a pull a second has to do: what it costs grows with the members.
PULL_PAUSE_PER_SHELF_S: Final = 0.001
ANSWER_BODIES_MAX: Final = 8  # packets that answer one digest or one want; the rest follows with the next pull
WANTED_MAX: Final = 256
EXCHANGE_BYTES_MAX: Final = 4 * 1024 * 1024
STREAM_PAUSE_S: Final = 1.0  # between two streams to one peer for entries too big for packets
STREAMS_REMEMBERED_MAX: Final = 256
DIGEST_ROWS_MAX: Final = ITEMS_BYTES_MAX // ROW_BYTES


class Courier:
    """Pushes and repairs. `peers` gives the addresses of the living Maia members; streams it asks for wait in `streams`."""

    def __init__(
        self,
        catalogue: Catalogue,
        *,
        peers: Callable[[], list[Address]],
        outbox: Outbox,
        counters: Counters,
        random: Random,
        gossip_interval_s: float,
    ) -> None:
        self._catalogue = catalogue
        self._intake = Intake(catalogue, counters)
        self._peers = peers
        self._outbox = outbox
        self._counters = counters
        self._random = random
        self._gossip_interval_s = gossip_interval_s
        self._changed: dict[str, None] = {}
        self._bodies: list[bytes] = []
        self._receivers: list[Address] = []
        self._push_s = math.inf
        self._pull: tuple[Address, bytes] | None = None
        self._pull_s = math.inf
        self._pull_pauses = 1  # doubled by each pull that shows nothing new
        self._pull_not_before_s = -math.inf
        self._streamed: dict[Address, float] = {}
        self.streams: list[Address] = []

    @property
    def later_generation(self) -> int:
        """The newest life of ours that somebody has entries of; -1 without one."""
        return self._intake.later_generation

    def due_s(self) -> float:
        return min(self._push_s, self._pull_s, self._intake.due_s())

    def tick(self, now: float) -> list[Entry]:
        """Entries that were news, and waited until now to be checked."""
        if self._push_s <= now:
            self._push(now)
        if self._pull_s <= now:
            self._ask(now)
        return self._kept(self._intake.tick(now))

    # --- push ---

    def changed(self, entries: list[Entry], now: float) -> None:
        """Own entries to bring to everyone, with whatever else changes before the next tick."""
        for entry in entries:
            self._changed[entry.key] = None
        self._push_s = min(self._push_s, now)

    def introduce(self, address: Address) -> None:
        """Bring everything of our own to somebody who learned of us through an exchange, and not from us."""
        entries = self._catalogue.own_entries()
        for body in _bodies(entries):
            self._outbox.say(address, User(body))

    def _push(self, now: float) -> None:
        if not self._receivers:
            own = [self._catalogue.entry(self._catalogue.me, key) for key in self._changed]
            self._changed.clear()
            self._bodies = _bodies([entry for entry in own if entry is not None])
            self._receivers = self._peers()
            self._random.shuffle(self._receivers)
        for _ in range(min(PUSH_SLICE, len(self._receivers))):
            receiver = self._receivers.pop()
            for body in self._bodies:
                self._outbox.say(receiver, User(body))
        if self._receivers:
            self._push_s = now + PUSH_PAUSE_S
        else:
            self._push_s = now + PUSH_PAUSE_S if self._changed else math.inf

    # --- repair ---

    def compare(self, root: bytes, peer: Address, now: float) -> None:
        """A peer's ack carried its root."""
        # What waits to be checked would be asked for twice.
        if self._pull is None and not self._intake.waiting and not self._catalogue.has_had(root):
            self._pull = (peer, root)
            slices_s = PUSH_PAUSE_S * (self._catalogue.living_count // PUSH_SLICE)
            self._pull_s = max(now + PULL_WAIT_INTERVALS * self._gossip_interval_s + slices_s, self._pull_not_before_s)

    def _ask(self, now: float) -> None:
        pull, self._pull, self._pull_s = self._pull, None, math.inf
        if pull is None or (pull[1] and self._catalogue.has_had(pull[1])):
            return
        self._counters.pulls += 1
        pause_s = self._gossip_interval_s + PULL_PAUSE_PER_SHELF_S * self._catalogue.living_count
        self._pull_not_before_s = now + min(PULL_PAUSE_MAX_S, self._pull_pauses * pause_s)
        self._pull_pauses = min(2 * self._pull_pauses, PULL_PAUSES_MAX)
        shelves = self._catalogue.living_shelves()
        if len(shelves) > DIGEST_ROWS_MAX:
            # More rows than a packet holds: a different share each time, and what is not shown is listed back as if we lacked it.
            self._random.shuffle(shelves)
        self._outbox.say(pull[0], User(encode_digest(rows(shelves, most=DIGEST_ROWS_MAX))))

    def hear(self, message: OfferMessage, sender: Address, now: float) -> list[Entry]:
        """Entries that were news; answers go to the outbox."""
        match message:
            case Entries():
                return self._kept(self._intake.hear(message.entries, sender, now))
            case Digest():
                differing = shelves_that_differ(self._catalogue.living_shelves(), message.rows)
                self._random.shuffle(differing)
                self._send(encode_listing(slot for shelf in differing for slot in shelf.listing()), sender)
                if not differing and self._pull is None and rows_that_differ(self._catalogue.living_shelves(), message.rows):
                    # They have more than we do: let them list it.
                    self._pull, self._pull_s = (sender, b""), max(now, self._pull_not_before_s)
            case Listing():
                self._want(message.slots, sender, now)
            case Want():
                found = [self._catalogue.entry(node, key) for node, key in message.slots[:WANTED_MAX]]
                bodies = encode_entries(entry for entry in found if entry is not None and not entry.big)
                self._send(bodies, sender)
        return []

    def accept(self, entries: list[Entry], now: float) -> list[Entry]:
        """What somebody who dialled us brought along. Returns what was news."""
        return self._kept(self._intake.hear(entries, None, now))

    def accept_answer(self, entries: list[Entry], now: float) -> list[Entry]:
        """What somebody whom we dialled answered. Returns what was news and checked at once; `tick` returns the rest."""
        return self._kept(self._intake.pull(entries, now))

    def _kept(self, news: list[Entry]) -> list[Entry]:
        if news:
            self._counters.entries_accepted += len(news)
        return news

    def _want(self, slots: tuple[Listed, ...], sender: Address, now: float) -> None:
        # Of a later life of ours we want to see the signature: a listing proves nothing.
        lacking = [
            slot
            for slot in slots
            if self._catalogue.lacks(slot.node, slot.generation, slot.key, slot.version) or self._catalogue.overtaken(slot)
        ]
        if lacking:
            self._pull_pauses = 1
        small = [(slot.node, slot.key) for slot in lacking if not slot.big]
        self._intake.ask(small, sender, now)
        self._send(encode_want(small), sender)
        if len(small) < len(lacking):
            self._ask_for_stream(sender, now)

    def _ask_for_stream(self, peer: Address, now: float) -> None:
        if now < self._streamed.get(peer, -math.inf) + STREAM_PAUSE_S:
            return
        self._streamed.pop(peer, None)
        if len(self._streamed) >= STREAMS_REMEMBERED_MAX:
            del self._streamed[next(iter(self._streamed))]
        self._streamed[peer] = now
        self.streams.append(peer)

    def _send(self, bodies: list[bytes], receiver: Address) -> None:
        for body in bodies[:ANSWER_BODIES_MAX]:
            self._outbox.say(receiver, User(body))

    # --- exchanges ---

    def opening(self) -> bytes:
        """What the dialling side of an exchange says: its digest, and its own entries."""
        return encode_exchange(self._rows(), self._catalogue.own_entries())

    def answer(self, theirs: bytes) -> bytes:
        """What the accepting side says: its digest, and what the dialler lacks by its own."""
        differing = shelves_that_differ(self._catalogue.living_shelves(), theirs)
        self._random.shuffle(differing)
        return encode_exchange(
            self._rows(), cut((entry for shelf in differing for entry in shelf.by_key.values()), budget_bytes=EXCHANGE_BYTES_MAX)
        )

    def settle(self, theirs: bytes, peer: Address) -> None:
        """List to the accepting side what it still lacks, by the digest in its answer."""
        differing = shelves_that_differ(self._catalogue.living_shelves(), theirs)
        self._send(encode_listing(slot for shelf in differing for slot in shelf.listing()), peer)

    def _rows(self) -> bytes:
        shelves = self._catalogue.living_shelves()
        return rows(shelves, most=len(shelves))


def _bodies(entries: list[Entry]) -> list[bytes]:
    """Packets with the small entries, and a listing of the big ones, which every receiver then asks for by stream."""
    small = [entry for entry in entries if len(entry.value) <= UDP_VALUE_BYTES_MAX]
    big = [Listed(entry.node, entry.generation, entry.key, entry.version, True) for entry in entries if entry.big]
    return encode_entries(small) + encode_listing(big)
