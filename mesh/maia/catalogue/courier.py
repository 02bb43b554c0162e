"""How changes reach everyone: the owner sends them straight to every Maia node, and whoever missed one finds out by the root hash.

A push is one packet or a few, the same for all, handed out in slices as fast as `pacing` allows. A repair starts when an ack carries
another root than ours, and only if the roots still differ a moment later: mostly the push is just on its way.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final, NamedTuple

from maia.catalogue.catalogue import Catalogue, cut
from maia.catalogue.digest import (
    bucket_hashes,
    buckets_in,
    buckets_that_differ,
    in_buckets,
    mask_of,
    rows,
    rows_that_differ,
    shelves_that_differ,
)
from maia.catalogue.intake import Intake
from maia.catalogue.pacing import CHANGE_BYTES, FIGURES_INTERVAL_S, PACKET_OVERHEAD_BYTES, URGENCIES, Pace, Urgency, budget_bytes_per_s
from maia.catalogue.shelf import Shelf
from maia.config import Address, Random
from maia.view import Counters
from maia.wire.messages import User
from maia.wire.offers import (
    BUCKET_BYTES,
    BUCKETS,
    ITEMS_BYTES_MAX,
    MASK_BYTES,
    ROW_BYTES,
    UDP_VALUE_BYTES_MAX,
    Buckets,
    Differing,
    Digest,
    Entries,
    Entry,
    Listed,
    Listing,
    OfferMessage,
    Want,
    encode_buckets,
    encode_differing,
    encode_digest,
    encode_entries,
    encode_exchange,
    encode_listing,
    encode_want,
)
from maia.wire.outbox import Outbox

PUSH_SLICE: Final = 32  # receivers at once; a hundred packets in one burst overrun small socket buffers
PUSH_PAUSE_S: Final = 0.005  # a hundred receivers have theirs after fifteen milliseconds
PUSH_TOGETHER: Final = 8  # receivers at once where there is no room for all: a wake for each of them would cost more than it saves
# How long a push may be under way, beside what its slices take, before a root that we never had means a loss: of a gossip interval, which
# is ten times and more the latency of the networks that a profile is for. Twice the interval, a lost change took 0.85 s at p99 among ten.
PULL_WAIT_INTERVALS: Final = 0.5
# Pulls that show nothing new come ever more seldom: the two sides disagree about who lives, and that is not mended here.
PULL_PAUSE_MAX_S: Final = 5.0
PULL_PAUSES_MAX: Final = 128
# Among many some push is always under way and every root another, so a pull a second has to do: what it costs grows with the members.
PULL_PAUSE_PER_SHELF_S: Final = 0.001
ANSWER_BODIES_MAX: Final = 8  # packets that answer one digest or one want; the rest follows with the next pull
WANTED_MAX: Final = 256  # more than the packets of an answer can hold
EXCHANGE_BYTES_MAX: Final = 4 * 1024 * 1024
STREAM_PAUSE_S: Final = 1.0  # between two streams to one peer for entries too big for packets
STREAMS_REMEMBERED_MAX: Final = 256  # far more peers than can be streamed from in a second
DIGEST_ROWS_MAX: Final = ITEMS_BYTES_MAX // ROW_BYTES
PARTIAL_ROWS_MAX: Final = (ITEMS_BYTES_MAX - MASK_BYTES) // ROW_BYTES
BUCKETS_FROM: Final = BUCKETS * BUCKET_BYTES // ROW_BYTES  # nodes; with more, their rows are longer than the hashes of all buckets


class _Round(NamedTuple):
    """A push under way: the same packets for everyone, and who has yet to get them, the next one last."""

    bodies: list[bytes]
    receivers: list[Address]


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
        self._changed: dict[Urgency, dict[str, None]] = {urgency: {} for urgency in URGENCIES}
        self._rounds: dict[Urgency, _Round] = {urgency: _Round([], []) for urgency in URGENCIES}
        self._members = 1
        self._pace = Pace()
        self._push_s = math.inf
        self._release_s = math.inf  # when to look at what is held
        self._figures_s = -math.inf  # when figures changed last
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
        return min(self._push_s, self._release_s, self._pull_s, self._intake.due_s())

    def tick(self, now: float) -> list[Entry]:
        """Entries that were news, and waited until now to be checked; and own ones that were held until now."""
        released: list[Entry] = []
        if self._push_s <= now:
            self._push(now)
        if self._release_s <= now:
            released = self._release(now)
        if self._pull_s <= now:
            self._ask(now)
        return released + self._kept(self._intake.tick(now))

    # --- push ---

    def changed(self, entries: list[Entry], now: float, *, urgency: Urgency = "at once") -> None:
        """Own entries to bring to everyone, with whatever else changes before the next tick."""
        for entry in entries:
            self._changed[urgency][entry.key] = None
            self._push_s = min(self._push_s, now)
        if urgency == "figures":
            self._figures_s = now

    def offer(self, key: str, value: bytes | None, now: float, *, urgency: Urgency = "at once") -> list[Entry]:
        """Put a value into an own slot, or with None empty it. Returns the entry that this made, if it made one now.

        Raises `MisuseError` over a limit; nothing is changed then.
        """
        if self._ready_s(urgency, now) > now:
            # It would not be with everyone at once, and a root that has it would tell everyone to ask for it.
            self._catalogue.hold(key, value, urgency)
            self._look_at_held(now)
            return []
        entry = self._catalogue.withdraw(key) if value is None else self._catalogue.offer(key, value)
        if entry is None:
            return []
        self.changed([entry], now, urgency=urgency)
        return [entry]

    def _look_at_held(self, now: float) -> None:
        self._release_s = min(self._release_s, max(now, self._release_due_s(now)))

    def _ready_s(self, urgency: Urgency, now: float) -> float:
        if self._rounds[urgency].receivers:
            return math.inf  # its last push will look again
        members = len(self._peers()) + 1
        room_s = self._pace.room_s(members * CHANGE_BYTES, urgency, members=members, now=now)
        if urgency == "at once" or self._changed[urgency]:
            return room_s
        return max(room_s, self._figures_s + FIGURES_INTERVAL_S)

    def _release_due_s(self, now: float) -> float:
        return min((self._ready_s(urgency, now) for urgency in URGENCIES if self._catalogue.holds(urgency)), default=math.inf)

    def _release(self, now: float) -> list[Entry]:
        released: list[Entry] = []
        for urgency in URGENCIES:
            if self._catalogue.holds(urgency) and self._ready_s(urgency, now) <= now:
                made = self._catalogue.release(urgency)
                self.changed(made, now, urgency=urgency)
                released += made
        self._release_s = max(self._release_due_s(now), now + PUSH_PAUSE_S)
        return released

    def introduce(self, address: Address) -> None:
        """Bring everything of our own to somebody who learned of us through an exchange, and not from us."""
        entries = self._catalogue.own_entries()
        for body in _bodies(entries):
            self._outbox.say(address, User(body))

    def _push(self, now: float) -> None:
        for due in URGENCIES:
            if self._changed[due] and not self._rounds[due].receivers:
                self._begin_round(due)
        urgency: Urgency = "at once" if self._rounds["at once"].receivers else "figures"
        bodies, receivers = self._rounds[urgency]
        cost_bytes = sum(len(body) + PACKET_OVERHEAD_BYTES for body in bodies)
        room_bytes = self._pace.room_bytes(urgency, members=self._members, now=now)
        # Whatever it costs, a receiver a second has its turn: a push may be larger than what can be saved.
        enough_bytes = min(cost_bytes * min(PUSH_TOGETHER, len(receivers)), budget_bytes_per_s(self._members))
        if room_bytes < enough_bytes:
            room_s = self._pace.room_s(enough_bytes, urgency, members=self._members, now=now)
            self._push_s = max(room_s, now + PUSH_PAUSE_S)
            return
        count = min(PUSH_SLICE, len(receivers))
        if cost_bytes:
            count = min(count, max(1, int(room_bytes / cost_bytes)))
        self._pace.spend(count * cost_bytes)
        for _ in range(count):
            receiver = receivers.pop()
            for body in bodies:
                self._outbox.say(receiver, User(body))
        more = any(one.receivers for one in self._rounds.values()) or any(self._changed.values())
        self._push_s = now + PUSH_PAUSE_S if more else math.inf
        if not receivers:
            self._look_at_held(now)

    def _begin_round(self, urgency: Urgency) -> None:
        own = [self._catalogue.entry(self._catalogue.me, key) for key in self._changed[urgency]]
        self._changed[urgency].clear()
        receivers = self._peers()
        self._members = len(receivers) + 1
        self._random.shuffle(receivers)
        self._rounds[urgency] = _Round(_bodies([entry for entry in own if entry is not None]), receivers)

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
        shelves = [shelf for shelf in self._catalogue.living_shelves() if shelf.by_key]
        if len(shelves) > BUCKETS_FROM:
            self._outbox.say(pull[0], User(encode_buckets(bucket_hashes(shelves))))
        else:
            self._outbox.say(pull[0], User(encode_digest(rows(shelves, most=DIGEST_ROWS_MAX))))

    def hear(self, message: OfferMessage, sender: Address, now: float) -> list[Entry]:
        """Entries that were news; answers go to the outbox."""
        match message:
            case Entries():
                return self._kept(self._intake.hear(message.entries, sender, now))
            case Digest():
                shelves = self._catalogue.living_shelves()
                if message.mask:
                    shelves = in_buckets(shelves, buckets_in(message.mask))
                differing = shelves_that_differ(shelves, message.rows)
                self._random.shuffle(differing)
                self._send(encode_listing(slot for shelf in differing for slot in shelf.listing()), sender)
                if not differing and self._pull is None and rows_that_differ(shelves, message.rows):
                    # They have more than we do: let them list it.
                    self._pull, self._pull_s = (sender, b""), max(now, self._pull_not_before_s)
            case Buckets():
                buckets = buckets_that_differ(self._catalogue.living_shelves(), message.hashes)
                if buckets:
                    self._outbox.say(sender, User(encode_differing(mask_of(buckets))))
            case Differing():
                self._show_buckets(buckets_in(message.mask), sender)
            case Listing():
                self._want(message.slots, sender, now)
            case Want():
                found = [self._catalogue.entry(node, key) for node, key in message.slots[:WANTED_MAX]]
                bodies = encode_entries(entry for entry in found if entry is not None and not entry.big)
                self._send(bodies, sender)
        return []

    def _show_buckets(self, buckets: list[int], peer: Address) -> None:
        """The rows of our nodes in these buckets, as many buckets as a packet holds, other ones each time."""
        self._random.shuffle(buckets)
        shelves = self._catalogue.living_shelves()
        shown: list[int] = []
        found: list[Shelf] = []
        for bucket in buckets:
            more = in_buckets(shelves, (bucket,))
            if shown and len(found) + len(more) > PARTIAL_ROWS_MAX:
                break
            shown.append(bucket)
            found += more
        if shown:
            self._outbox.say(peer, User(encode_digest(rows(found, most=PARTIAL_ROWS_MAX), mask=mask_of(shown))))

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
    big = [Listed(entry.node, entry.generation, entry.key, entry.version, big=True) for entry in entries if entry.big]
    return encode_entries(small) + encode_listing(big)
