"""Exchanges: what two nodes say to each other over TCP. Each side tells everything that it knows, and merges what the other one told.

Pure: a stream is bytes in and bytes out. An exchange that is due is a value to be carried out by whoever holds the mesh, and is over when
its number comes back, with an answer or without one. A ping by stream is one of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from maia.catalogue.courier import Courier
from maia.config import Address, MeshConfig, Profile
from maia.errors import DatagramRejected
from maia.keyring import FINGERPRINT_BYTES
from maia.membership.hearing import Hearing
from maia.membership.members import Member, MemberTable
from maia.membership.probing import Prober, StreamPing
from maia.membership.reunion import Reunion
from maia.membership.swim import Swim
from maia.serf.layer import Serf
from maia.view import Counters, MeshEvent, SeedAnswered
from maia.wire.codec import encode
from maia.wire.frames import StreamDecoder, StreamMessage, encode_push_pull
from maia.wire.messages import STATE_ALIVE, STATE_DEAD, STATE_LEFT, STATE_SUSPECT, Ack, Dead, NodeState, Ping, PushPull
from maia.wire.offers import KEYS_MAX, Entry, decode_exchange
from maia.wire.outbox import Outbox
from maia.wire.tags import decode_tags

EXCHANGE_TIMEOUT_S: Final = 10.0  # memberlist's TCP timeout on a LAN, for the whole of it
PUSH_PULL_SCALE_FROM: Final = 32  # members; above it memberlist makes exchanges rarer by the logarithm
EXCHANGES_MAX: Final = 16  # dialled at once; a node that joins needs one, and sixteen seeds that hang must not take all streams
PROMPTED_MAX: Final = 8  # of them at the word of somebody whom we do not know, who may have named an address where nobody answers
INTRODUCED_MAX: Final = (
    128  # newcomers whom we meet straight away with our offers; beyond it rumours and the root hash do, with less traffic
)

_STATES: Final = {"alive": STATE_ALIVE, "suspect": STATE_SUSPECT, "dead": STATE_DEAD, "left": STATE_LEFT}


class Exchange(NamedTuple):
    """A push/pull or a ping to carry out over TCP: send `request`, and hand the answer to `Mesh.reply` or say `Mesh.exchange_failed`."""

    number: int
    target: Address
    request: bytes
    timeout_s: float = EXCHANGE_TIMEOUT_S


class Exchanges:
    """Those that are under way, and what they change.

    `settle` lets the other rooms follow what a merge changed in the table, `note_offers` what it brought of offers.
    """

    def __init__(
        self,
        config: MeshConfig,
        table: MemberTable,
        *,
        serf: Serf,
        hearing: Hearing,
        swim: Swim,
        prober: Prober,
        reunion: Reunion,
        courier: Courier,
        outbox: Outbox,
        events: list[MeshEvent],
        counters: Counters,
        settle: Callable[[float], None],
        note_offers: Callable[[list[Entry], float], None],
    ) -> None:
        self._name = config.name
        self._cluster_id = config.cluster_id
        self._table = table
        self._serf = serf
        self._hearing = hearing
        self._swim = swim
        self._prober = prober
        self._reunion = reunion
        self._courier = courier
        self._outbox = outbox
        self._events = events
        self._counters = counters
        self._settle = settle
        self._note_offers = note_offers
        self.alone = config.alone
        self._due: list[Exchange] = []
        self._under_way: dict[int, Address] = {}
        self._numbered = 0
        self._pings: dict[int, int] = {}  # the sequence of each ping that is out over TCP: a probe, a knock, and those that come late

    # --- ours ---

    def drain(self) -> list[Exchange]:
        """What to carry out."""
        due, self._due = self._due, []
        return due

    @property
    def under_way(self) -> int:
        return len(self._under_way)

    def dial(self, target: Address, *, join: bool, most: int = EXCHANGES_MAX) -> None:
        """Push and pull with `target`, unless that is under way, or as many as `most` are."""
        if len(self._under_way) >= most or target in self._under_way.values():
            return
        self._numbered += 1
        self._under_way[self._numbered] = target
        self._due.append(Exchange(self._numbered, target, self._write_state(join=join, offers=self._courier.opening())))

    def ping(self, request: StreamPing) -> None:
        """Ask over TCP as well: something may keep UDP from passing."""
        self._numbered += 1
        self._pings[self._numbered] = request.ping.sequence
        self._due.append(Exchange(self._numbered, request.target, self._as_stream(encode(request.ping)), request.timeout_s))

    def reply(self, number: int, reply: StreamMessage, now: float) -> None:
        """The answer to an exchange of ours. Raises `DatagramRejected` for what is none; the exchange then counts as failed."""
        sequence = self._pings.pop(number, None)
        if sequence is not None:
            if not isinstance(reply, Ack) or reply.sequence != sequence:
                raise DatagramRejected("unexpected-stream")
            member = self._prober.acked(sequence, now)
            if member is not None:
                self._counters.probes_by_stream += 1
                if member.status == "suspect":
                    # It lives, and no datagram tells it that it has to say so.
                    self.dial(member.address, join=False)
            else:
                self.hear_lost(sequence, now)
            return
        peer = self._under_way.pop(number, None)
        if peer is None:
            return
        try:
            if not isinstance(reply, PushPull):
                raise DatagramRejected("unexpected-stream")
            self._refuse_what_we_cannot_read_on(reply, now)
            self._refuse_foreigners(reply)
            rows, entries = decode_exchange(reply.offers) if reply.offers else (b"", [])
        except DatagramRejected:
            self._counters.exchanges_failed += 1
            raise
        self._counters.exchanges += 1
        self._merge(reply.nodes, peer, now)
        self._serf.merge(reply.user_state, now)
        if reply.offers:
            self._note_offers(self._courier.accept_answer(entries, now), now)
            self._courier.settle(rows, peer)
        if self._reunion.exchanged(peer):
            self._events.append(SeedAnswered(peer))
        self._settle(now)

    def hear_lost(self, sequence: int, now: float) -> None:
        """An ack that is for no probe: perhaps somebody lost answers a knock."""
        address = self._reunion.opened(sequence)
        if address is not None and not self._swim.leaving and self._reunion.prompt(address, now):
            self.dial(address, join=False, most=PROMPTED_MAX)

    def failed(self, number: int) -> None:
        """Nobody answered. A seed is tried again by itself."""
        self._pings.pop(number, None)
        if self._under_way.pop(number, None) is not None:
            self._counters.exchanges_failed += 1

    # --- theirs ---

    def decoder(self) -> StreamDecoder:
        """What reads one stream of this cluster, as its keys are now."""
        return StreamDecoder(self._outbox.sealer)

    def answer(self, request: StreamMessage, now: float) -> bytes:
        """Somebody dialled us: merge what it says and return what to answer. Raises `DatagramRejected` where there is no answer."""
        if isinstance(request, Ping):
            if request.node and request.node != self._name:
                raise DatagramRejected("ping-for-another", request.node)
            self._hear_ping(request, now)
            return self._as_stream(encode(Ack(request.sequence)))
        if isinstance(request, Ack):
            raise DatagramRejected("unexpected-stream")
        if self.alone:
            raise DatagramRejected("alone", "this node was told to leave")
        if not self._reads_us(request):
            return self._name_the_key(request)
        self._refuse_foreigners(request)
        # Who dials brings entries of its own alone, and anybody can dial.
        rows, entries = decode_exchange(request.offers, entries_max=KEYS_MAX) if request.offers else (b"", [])
        self._counters.exchanges += 1
        # Merged before the answer is written, so that what we refute by it is already in the answer.
        self._merge(request.nodes, None, now)
        self._serf.merge(request.user_state, now)
        offers = b""
        if request.offers:
            self._note_offers(self._courier.accept(entries, now), now)
            offers = self._courier.answer(rows)
        self._settle(now)
        return self._write_state(join=request.join, offers=offers)

    def _hear_ping(self, ping: Ping, now: float) -> None:
        """Whoever asks by stream heard no answer by datagram: only an exchange tells it what we believe of it, and us its refutation."""
        member = self._table.get(ping.source_node)
        if member is None or member.status == "alive" or self.alone or self._swim.leaving:
            return
        # Only where we know that it lived: the address that a ping names may be anybody's.
        if self._reunion.prompt(member.address, now):
            self.dial(member.address, join=False, most=PROMPTED_MAX)

    # --- both ---

    def _write_state(self, *, join: bool, offers: bytes) -> bytes:
        nodes = tuple(NodeState(member.as_alive(), _STATES[member.status]) for member in self._table.by_name.values())
        return self._as_stream(encode_push_pull(PushPull(nodes, join, self._serf.state(), offers, self._fingerprints())))

    def _as_stream(self, plaintext: bytes) -> bytes:
        sealer = self._outbox.sealer
        return sealer.seal_stream(plaintext) if sealer is not None else plaintext

    # Who was away while a key came into use still seals with an older one, and cannot read what we say. It is told which key it lacks,
    # under the one that it has, and nothing else: an old key may be old because it was stolen. Nor is it merged: pings would be in vain.

    def _fingerprints(self) -> bytes:
        sealer = self._outbox.sealer
        return b"".join(sealer.fingerprints) if sealer is not None else b""

    def _reads_us(self, request: PushPull) -> bool:
        sealer = self._outbox.sealer
        return sealer is None or not request.keys or sealer.fingerprints[0] in _split(request.keys)

    def _name_the_key(self, request: PushPull) -> bytes:
        sealer = self._outbox.sealer
        assert sealer is not None, "without keys everybody reads us"
        self._counters.reject("key-missing-there")
        theirs = request.keys[:FINGERPRINT_BYTES]
        place = sealer.fingerprints.index(theirs) if theirs in sealer.fingerprints else 0
        return sealer.seal_stream(encode_push_pull(PushPull((), request.join, keys=self._fingerprints())), place=place)

    def _refuse_what_we_cannot_read_on(self, reply: PushPull, now: float) -> None:
        sealer = self._outbox.sealer
        theirs = reply.keys[:FINGERPRINT_BYTES]
        if sealer is not None and theirs and theirs not in sealer.fingerprints:
            self._hearing.missing(theirs.hex(), now)
            raise DatagramRejected("key-missing", theirs.hex())

    def _refuse_foreigners(self, exchange: PushPull) -> None:
        for node in exchange.nodes:
            alive = node.alive
            known = self._table.get(alive.node)
            if known is not None and known.meta == alive.meta:
                continue
            tags = decode_tags(alive.meta, name=alive.node, gossip=alive.address)
            if tags is not None and tags.cluster_id != self._cluster_id:
                raise DatagramRejected("other-cluster", alive.node)

    def _merge(self, nodes: Iterable[NodeState], peer: Address | None, now: float) -> None:
        newcomers: list[Member] = []
        for node in nodes:
            alive = node.alive
            if node.state == STATE_ALIVE:
                newcomer = self._swim.hear_alive(alive, None, now)
                if newcomer is not None:
                    newcomers.append(newcomer)
            elif node.state == STATE_LEFT:
                self._swim.hear_dead(Dead(alive.incarnation, alive.node, alive.node), peer, now)
            else:
                accused = self._swim.hear_gossip_of_loss(alive, peer, now)
                if accused is not None:
                    self._prober.hasten(accused)
        self._settle(now)
        if self._swim.leaving:
            return
        for newcomer in newcomers[:INTRODUCED_MAX]:
            # They may not have heard of us yet, and take offers only from members.
            self._outbox.say(newcomer.address, self._table.me.as_alive())
            if newcomer.tags is not None:
                self._courier.introduce(newcomer.address)


def push_pull_interval_s(profile: Profile, living_count: int) -> float:
    """How long between two exchanges of one node, on average."""
    scale = 1
    if living_count > PUSH_PULL_SCALE_FROM:
        scale += math.ceil(math.log2(living_count / PUSH_PULL_SCALE_FROM))
    return profile.push_pull_interval_s * scale


def _split(fingerprints: bytes) -> list[bytes]:
    return [fingerprints[at : at + FINGERPRINT_BYTES] for at in range(0, len(fingerprints), FINGERPRINT_BYTES)]
