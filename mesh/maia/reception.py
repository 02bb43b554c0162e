"""Reception: what a node hears in a datagram. It is opened, read, and each message in it is brought to its rule.

Pure. The rules live in `membership`, `catalogue` and `serf`; decided here is who may speak: a stranger, a member, a member in whose name
something is said. What comes over TCP is heard by `exchanges`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import assert_never

from maia.catalogue.catalogue import Catalogue
from maia.catalogue.courier import Courier
from maia.catalogue.loads import Loads
from maia.config import Address, MeshConfig, Random
from maia.errors import DatagramRejected
from maia.exchanges import PROMPTED_MAX, Exchanges
from maia.membership.hearing import Hearing
from maia.membership.members import Member, MemberTable, pick
from maia.membership.probing import Prober
from maia.membership.reunion import Reunion
from maia.membership.swim import Swim
from maia.serf.layer import Serf
from maia.view import Counters, MeshEvent
from maia.wire.codec import DATAGRAM_BYTES_MAX, decode, kind_of
from maia.wire.messages import PRIVATE_FROM, Ack, Alive, Dead, IndirectPing, Message, Nack, Ping, Suspect, User
from maia.wire.offers import Entry, decode_offers
from maia.wire.outbox import Outbox
from maia.wire.seal import seems_sealed


class Reception:
    """One for all datagrams of a mesh.

    `notice_stall` is asked before the messages of a datagram are heard, `settle` lets the other rooms follow what one changed in the table,
    `note_offers` what it brought of offers.
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
        catalogue: Catalogue,
        courier: Courier,
        loads: Loads,
        exchanges: Exchanges,
        outbox: Outbox,
        events: list[MeshEvent],
        counters: Counters,
        random: Random,
        notice_stall: Callable[[float], None],
        settle: Callable[[float], None],
        note_offers: Callable[[list[Entry], float], None],
    ) -> None:
        self._name = config.name
        self._admits = config.admits
        self._table = table
        self._serf = serf
        self._hearing = hearing
        self._swim = swim
        self._prober = prober
        self._reunion = reunion
        self._catalogue = catalogue
        self._courier = courier
        self._loads = loads
        self._exchanges = exchanges
        self._outbox = outbox
        self._events = events
        self._counters = counters
        self._random = random
        self._notice_stall = notice_stall
        self._settle = settle
        self._note_offers = note_offers

    def take(self, datagram: bytes, sender: Address, now: float) -> None:
        """One datagram, whatever it holds; what cannot be read is counted and changes nothing."""
        counters = self._counters
        if len(datagram) > DATAGRAM_BYTES_MAX:
            counters.received("rejected", len(datagram))
            counters.reject("too-long")
            return
        sealer = self._outbox.sealer
        try:
            packet = decode(sealer.open(datagram) if sealer is not None else datagram)
        except DatagramRejected as error:
            counters.received("rejected", len(datagram))
            counters.reject("sealed" if sealer is None and seems_sealed(datagram) else error.reason)
            if error.reason == "undecryptable" and (self._table.knows(sender) or self._reunion.is_seed(sender)):
                self._miss_a_key(now)
            return
        if self._hearing.unread:
            self._hearing.opened()
        counters.received(kind_of(packet.messages[0]) if packet.messages else "rejected", len(datagram))
        for reason in packet.rejected:
            counters.reject(reason)
        self._notice_stall(now)
        messages = packet.messages
        if len(messages) > 1:
            # News that somebody lives comes first, as in memberlist: an accusation beside it may already be refuted.
            messages.sort(key=lambda message: not isinstance(message, Alive))
        happened = len(self._events)
        for message in messages:
            self._hear(message, sender, now)
            if len(self._events) > happened:
                self._settle(now)  # at once: the next message may bring the offers of whom this one introduced
                happened = len(self._events)

    def _miss_a_key(self, now: float) -> None:
        if self._hearing.unreadable(now) and not self._exchanges.alone:
            for peer in pick([member for member in self._table.living if member.tags is not None], 1, self._random):
                self._exchanges.dial(peer.address, join=False)  # it will name the key
            self._settle(now)

    def _hear(self, message: Message, sender: Address, now: float) -> None:
        match message:
            case Ping():
                self._hear_ping(message, sender, now)
            case Ack():
                self._hear_ack(message, sender, now)
            case Alive() if self._exchanges.alone and message.node not in self._table.by_name:
                self._counters.reject("alone")
            case Alive():
                # A newcomer introduces itself or is introduced by a member. What else is told at an address is meant for whoever had it
                # before: a node that is given the address of somebody lately dead must not be drawn into his mesh.
                if self._table.get(message.node) is None and sender != message.address and self._table.at(sender) is None:
                    self._counters.reject("stranger")
                else:
                    self._swim.hear_alive(message, sender, now)
            case Suspect():
                self._swim.hear_suspect(message, sender, now)
            case Dead():
                self._swim.hear_dead(message, sender, now)
            case Nack():
                self._prober.nacked(message.sequence)
            case IndirectPing():
                self._hear_indirect_ping(message, message.source or sender, now)
            case User():
                self._hear_user(message, sender, now)
            case _:
                assert_never(message)

    def _hear_ping(self, ping: Ping, sender: Address, now: float) -> None:
        if ping.node and ping.node != self._name:
            self._counters.reject("ping-for-another")
            return
        answer_to = ping.source or sender
        if not self._admits(answer_to):
            self._counters.reject("beyond-loopback")
            return
        member = self._table.get(ping.source_node)
        ours = member is not None and member.tags is not None
        ack = Ack(ping.sequence, b"", self._catalogue.root, self._loads.own) if ours else Ack(ping.sequence)
        self._outbox.say(answer_to, ack)
        if member is None or member.address != answer_to:
            # It counts us among the living and we do not know it: we lost our state, or its side of a partition comes back.
            if ping.source_node and not self._swim.leaving and not self._exchanges.alone and self._reunion.prompt(answer_to, now):
                self._exchanges.dial(answer_to, join=False, most=PROMPTED_MAX)
        elif member.status != "alive":
            self._outbox.say(answer_to, member.as_known(teller=self._name))

    def _hear_indirect_ping(self, request: IndirectPing, requester: Address, now: float) -> None:
        if self._table.at(requester) is None:
            self._counters.reject("stranger")
            return
        # Only members are pinged for others: anybody else's address would be a third party, at whom we were pointed.
        target = self._table.get(request.node)
        if target is not None and target.address == request.target:
            self._prober.relay(request, requester, now)
        elif request.wants_nack:
            self._outbox.say(requester, Nack(request.sequence))

    def _hear_ack(self, ack: Ack, sender: Address, now: float) -> None:
        member = self._prober.acked(ack.sequence, now)
        if ack.load != b"":
            self._hear_load(ack.load, member, sender, now)
        if member is not None:
            if ack.root:
                self._courier.compare(ack.root, member.address, now)
            return
        self._exchanges.hear_lost(ack.sequence, now)

    def _hear_load(self, load: bytes | None, probed: Member | None, sender: Address, now: float) -> None:
        if load is None:
            self._counters.reject("bad-load")
        elif self._table.at(sender) is None:
            self._counters.reject("stranger")
        elif probed is not None and probed.living and probed.address == sender:  # otherwise too late, or nobody's answer
            self._loads.hear(probed.name, load, now)

    def _hear_user(self, message: User, sender: Address, now: float) -> None:
        if not message.body or message.body[0] < PRIVATE_FROM:
            if not self._exchanges.alone:
                self._serf.hear(message.body, now)
                self._settle(now)
            return
        member = self._table.at(sender)
        if member is None or member.tags is None:
            self._counters.reject("stranger")
            return
        try:
            offers = decode_offers(message.body)
        except DatagramRejected as error:
            self._counters.reject(error.reason)
            return
        self._note_offers(self._courier.hear(offers, sender, now), now)
        self._settle(now)
