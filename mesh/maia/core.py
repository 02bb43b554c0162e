"""`Mesh`: the one object that a driver or a simulator holds. Datagrams, streams and `now` in; datagrams, exchanges and events out.

It does nothing by itself: whoever holds it calls `tick` no later than `deadline`, and after every call drains `datagrams`, `exchanges` and
`events`. Rules live in `membership`, `catalogue` and `serf`, what comes in is brought to them by `reception` and `exchanges`; here all of
them are wired, do what is due, follow each other's events, and packets are filled.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Final, assert_never

from maia.catalogue.catalogue import Catalogue
from maia.catalogue.courier import Courier
from maia.catalogue.loads import Loads
from maia.catalogue.pacing import Urgency
from maia.config import Address, MeshConfig, Random
from maia.errors import MisuseError
from maia.exchanges import Exchange, Exchanges, push_pull_interval_s
from maia.keyring import Keyring
from maia.membership.awareness import Awareness
from maia.membership.hearing import Hearing
from maia.membership.members import Member, MemberTable, pick
from maia.membership.probing import Prober, StreamPing
from maia.membership.reunion import KNOCK_INTERVALS, Reunion
from maia.membership.rumours import Rumours
from maia.membership.swim import Swim
from maia.membership.viewing import Viewer
from maia.reception import Reception
from maia.serf.layer import Serf
from maia.view import (
    Counters,
    GenerationRaised,
    IncarnationRaised,
    KeyMissing,
    KeyOperation,
    KeyQueryEnded,
    KeyringChanged,
    MemberChanged,
    MemberCleared,
    MemberDied,
    MemberForgotten,
    MemberJoined,
    MemberLeft,
    MemberReturned,
    MemberSuspected,
    MeshEvent,
    MeshView,
    NameContested,
    OffersChanged,
    SeedAnswered,
)
from maia.wire.codec import CHECKSUM_PROTOCOL, PART_OVERHEAD
from maia.wire.frames import StreamDecoder, StreamMessage
from maia.wire.messages import (
    Alive,
    Ping,
    Suspect,
)
from maia.wire.offers import Entry
from maia.wire.outbox import Datagram, Outbox
from maia.wire.seal import Sealer
from maia.wire.tags import decode_tags, encode_tags

HOUSEKEEPING_S: Final = 5.0  # what is forgotten then was kept for minutes or days


class Mesh:
    """One node's mesh. Not safe for threads: one owner calls everything."""

    def __init__(self, config: MeshConfig, *, random: Random, now: float) -> None:
        self.config = config
        self.counters = Counters()
        self._random = random
        sealer = Sealer(config.keyring, random=random) if config.keyring is not None else None
        self._outbox = Outbox(self.counters, sealer=sealer, reads_checksums=self._reads_checksums, tells=self._is_known_at)
        self._events: list[MeshEvent] = []
        self._settled = 0

        profile = config.profile
        meta = encode_tags(config)
        me = Member(
            Alive(config.incarnation, config.name, config.gossip, meta), decode_tags(meta, name=config.name, gossip=config.gossip), now
        )
        self._table = MemberTable(me)
        self._rumours = Rumours()
        self._awareness = Awareness()
        self._prober = Prober(
            self._table, profile, awareness=self._awareness, outbox=self._outbox, counters=self.counters, random=random, now=now
        )
        self._swim = Swim(
            config,
            self._table,
            self._rumours,
            awareness=self._awareness,
            outbox=self._outbox,
            events=self._events,
            counters=self.counters,
            random=random,
        )
        self._reunion = Reunion(
            self._table, probe_interval_s=profile.probe_interval_s, random=random, seeds_max=config.limits.seeds_max, now=now
        )
        self._catalogue = Catalogue(config.name, config.generation, signer=config.signer, cluster_id=config.cluster_id)
        self._courier = Courier(
            self._catalogue,
            peers=self._maia_addresses,
            outbox=self._outbox,
            counters=self.counters,
            random=random,
            gossip_interval_s=profile.gossip_interval_s,
        )
        self._gossip_s = now + random.random() * profile.gossip_interval_s
        self._push_pull_s = now + random.random() * profile.push_pull_interval_s
        self._housekeeping_s = now + HOUSEKEEPING_S
        self._serf = Serf(
            config,
            self._table,
            outbox=self._outbox,
            events=self._events,
            counters=self.counters,
            random=random,
            depart=self._swim.depart,
            keyring=lambda: self.keyring,
            use_keyring=self.use_keyring,
        )
        self._farewell_s = math.inf
        self._hearing = Hearing(self._events)
        self._exchanges = Exchanges(
            config,
            self._table,
            serf=self._serf,
            hearing=self._hearing,
            swim=self._swim,
            prober=self._prober,
            reunion=self._reunion,
            courier=self._courier,
            outbox=self._outbox,
            events=self._events,
            counters=self.counters,
            settle=self._settle,
            note_offers=self._note_offers,
        )
        self._loads = Loads()
        self._reception = Reception(
            config,
            self._table,
            serf=self._serf,
            hearing=self._hearing,
            swim=self._swim,
            prober=self._prober,
            reunion=self._reunion,
            catalogue=self._catalogue,
            courier=self._courier,
            loads=self._loads,
            exchanges=self._exchanges,
            outbox=self._outbox,
            events=self._events,
            counters=self.counters,
            random=random,
            notice_stall=self._notice_stall,
            settle=self._settle,
            note_offers=self._note_offers,
        )
        self._viewer = Viewer(self._table, offers=self._catalogue.offers, load=self._loads.seen)
        self._swim.announce()

    # --- what the owner of the node wants ---

    def join(self, seeds: Iterable[Address], *, now: float) -> int:
        """Ask these addresses for an exchange, again and again until each has answered once. Returns how many are not our own."""
        self._exchanges.alone = False
        return sum(self._reunion.add_seed(seed, now) for seed in seeds)

    def offer(self, key: str, value: bytes, *, now: float, urgency: Urgency = "at once") -> None:
        """Put `value` into the slot `key` of what this node offers. Raises `MisuseError` over a limit; nothing is changed then.

        It is known "at once", unless this node changes more than its share; mere "figures" are offered once a second. Until then the value
        before stays on offer, and only the last one is offered after it.
        """
        self._note_offers(self._courier.offer(key, value, now, urgency=urgency), now)

    def withdraw(self, key: str, *, now: float) -> None:
        """Empty a slot; one that is empty stays so."""
        self._note_offers(self._courier.offer(key, None, now), now)

    def report_load(self, value: bytes) -> None:
        """Say from now on with every ack to a Maia node how busy this one is. Raises `MisuseError` for more than 24 bytes."""
        self._loads.report(value)

    def leave(self, *, now: float) -> None:
        """Say goodbye. Soon after, at once where only Maia nodes hear it, this node answers and starts nothing."""
        if self._swim.leaving or self._farewell_s < math.inf:
            return
        self._serf.leave()
        if all(member.tags is not None for member in self._table.living):
            self._swim.leave(now)
        else:
            # A stock agent that hears the goodbye before the intent takes it for a failure first, and says so.
            self._farewell_s = now + self.config.profile.gossip_interval_s

    def use_keyring(self, keyring: Keyring) -> None:
        """Seal and open with these keys from now on. Raises `MisuseError` where there were none at the start."""
        if self._outbox.sealer is None:
            raise MisuseError(f"{self.config.name} gossips in the clear: keys are given at the start, to all members")
        self._outbox.sealer = Sealer(keyring, random=self._random)
        self.config = replace(self.config, keyring=keyring)
        self._events.append(KeyringChanged())

    def ask_keys(self, operation: KeyOperation, key: bytes | None, *, now: float) -> int:
        """Ask all living members about their keys; `KeyQueryEnded` brings what they say, under the number returned here.

        Raises `MisuseError` where a key is missing or superfluous, or too many questions are open.
        """
        number = self._serf.ask_keys(operation, key, now)
        self._settle(now)
        return number

    @property
    def keyring(self) -> Keyring | None:
        """The keys as they are now; None for a mesh in the clear."""
        return self.config.keyring

    @property
    def farewell_told(self) -> bool:
        """The goodbye was told as often as a rumour is; stopping now looks like leaving to everyone."""
        told = self.config.name not in self._rumours and self._serf.leave_told
        return self._swim.leaving and (told or not self._table.living)

    def has_member_on(self, host: str) -> bool:
        """Whether a living member gossips from this host, at whatever port."""
        return self._table.on(host)

    @property
    def rumours_queued(self) -> int:
        return len(self._rumours)

    @property
    def exchanges_under_way(self) -> int:
        return self._exchanges.under_way

    def heard(self, name: str, *, now: float) -> None:
        """A member answered us otherwise, over a link: it lives, and need not be pinged for an interval."""
        member = self._table.get(name)
        if member is not None and member.living:
            member.heard_s = member.answered_s = now

    def stalled(self, lag_s: float, *, now: float) -> None:
        """This node stood still for `lag_s`: what it did not hear in that time proves nothing about others."""
        if lag_s > 0:
            self._awareness.lagged(lag_s, now)
        if lag_s < self.config.profile.probe_timeout_s:
            return
        self.counters.stalls += 1
        self.counters.probes_voided += self._prober.void(now)
        self._swim.delay_suspicions(self.config.profile.probe_interval_s, now)

    def _notice_stall(self, now: float) -> None:
        # Only the prober's timers are never set into the past, so only they show that we come too late. Looked at before a datagram as
        # well: the first one after a stall may be the answer that sets them anew.
        late_s = now - self._prober.due_s()
        if late_s > 0 and not self._swim.leaving:
            self.stalled(late_s, now=now)

    # --- time ---

    def deadline(self) -> float:
        """When `tick` has something to do: perhaps at once, never at infinity."""
        gossip_s = self._gossip_s if self._anything_to_tell and self._table.living else math.inf
        if self._swim.leaving:
            return min(gossip_s, self._courier.due_s(), self._serf.questions.due_s, self._housekeeping_s)
        return min(
            self._prober.due_s(),
            self._swim.due_s,
            gossip_s,
            self._courier.due_s(),
            self._reunion.due_s(),
            self._push_pull_s,
            self._housekeeping_s,
            self._serf.questions.due_s,
            self._farewell_s,
        )

    def tick(self, *, now: float) -> None:
        """Do everything that is due. Coming a probe timeout or more too late for a probe counts as a stall."""
        self._notice_stall(now)
        if self._farewell_s <= now:
            self._farewell_s = math.inf
            self._swim.leave(now)
        if not self._swim.leaving:
            self._watch(now)
        self._note_offers(self._courier.tick(now), now)
        if self._serf.questions.due_s <= now:
            self._serf.tick(now)
        for peer in self._courier.streams:
            self._exchanges.dial(peer, join=False)
        self._courier.streams.clear()
        if self._gossip_s <= now and self._anything_to_tell and self._table.living:
            self._gossip(now)
        if self._housekeeping_s <= now:
            self._keep_house(now)
        self._settle(now)

    def _watch(self, now: float) -> None:
        failed = self._prober.tick(now)
        if self._hearing.deaf:
            if self._swim.due_s <= now:
                self._swim.delay_suspicions(self.config.profile.probe_interval_s, now)  # what we cannot read may be the refutation
        elif failed is not None:
            member, how = failed
            self._swim.hear_suspect(Suspect(member.incarnation, member.name, self.config.name), None, now, how=how)
        for request in self._prober.stream_pings:
            self._exchanges.ping(request)
        self._prober.stream_pings.clear()
        self._swim.expire(now)
        for seed in self._reunion.seeds_to_dial(now):
            self._exchanges.dial(seed, join=True)
        knock = self._reunion.knock(now)
        if knock is not None:
            sequence = self._prober.next_sequence()
            self._reunion.knocked(sequence, knock.address)
            ping = Ping(sequence, knock.name, self.config.gossip, self.config.name)
            self._outbox.say(knock.address, ping)
            if knock.by_stream:
                self._exchanges.ping(StreamPing(knock.address, ping, KNOCK_INTERVALS * self.config.profile.probe_interval_s))
        if self._push_pull_s <= now:
            interval_s = push_pull_interval_s(self.config.profile, self._table.living_count)
            self._push_pull_s = now + interval_s * (0.75 + 0.5 * self._random.random())
            for peer in pick([member for member in self._table.living if member.status == "alive"], 1, self._random):
                self._exchanges.dial(peer.address, join=False)

    def _gossip(self, now: float) -> None:
        profile = self.config.profile
        self._gossip_s = now + profile.gossip_interval_s
        dead_since_s = now - profile.gossip_to_dead_s
        me = self._table.me
        # The lately dead are told as well: whoever is wrongly among them refutes.
        candidates = [
            member for member in self._table.by_name.values() if member is not me and (member.living or member.since_s > dead_since_s)
        ]
        for peer in pick(candidates, profile.gossip_nodes, self._random):
            self._outbox.nudge(peer.address)

    def _keep_house(self, now: float) -> None:
        self._housekeeping_s = now + HOUSEKEEPING_S
        limits = self.config.limits
        departed = self._table.departed()
        surplus = len(departed) - limits.departed_max
        for index, member in enumerate(departed):
            if index < surplus or member.since_s + limits.departed_kept_s <= now:
                self._swim.forget(member)
        for name in self._catalogue.forget(now):
            member_or_none = self._table.get(name)
            if member_or_none is not None:
                self._table.touch(member_or_none)

    # --- datagrams in ---

    def receive(self, datagram: bytes, *, sender: Address, now: float) -> None:
        """Take one datagram from the network, whatever it holds; what cannot be read is counted and changes nothing."""
        self.counters.hearing = sender
        try:
            self._reception.take(datagram, sender, now)
        finally:
            self.counters.hearing = None

    # --- streams ---

    def decoder(self) -> StreamDecoder:
        """What reads one stream of this cluster, as its keys are now."""
        return self._exchanges.decoder()

    def exchanges(self) -> list[Exchange]:
        """Push/pulls to carry out; drained."""
        return self._exchanges.drain()

    def answer(self, request: StreamMessage, *, now: float) -> bytes:
        """Somebody dialled us: merge what it says and return what to answer. Raises `DatagramRejected` where there is no answer."""
        return self._exchanges.answer(request, now)

    def reply(self, number: int, reply: StreamMessage, *, now: float) -> None:
        """The answer to an exchange of ours. Raises `DatagramRejected` for what is none; the exchange then counts as failed."""
        self._exchanges.reply(number, reply, now)

    def exchange_failed(self, number: int) -> None:
        """Nobody answered. A seed is tried again by itself."""
        self._exchanges.failed(number)

    # --- datagrams out ---

    def datagrams(self) -> list[Datagram]:
        """What to send, drained."""
        return self._outbox.drain(self._tell if self._anything_to_tell else None)

    @property
    def _anything_to_tell(self) -> bool:
        return bool(self._rumours.waiting or self._serf.broadcasts.waiting)

    def _is_known_at(self, address: Address) -> bool:
        return self._table.knows(address)

    def _reads_checksums(self, target: Address) -> bool:
        member = self._table.at(target)
        return member is not None and member.vsn[1] >= CHECKSUM_PROTOCOL

    def _tell(self, budget_bytes: int, most: int) -> list[bytes]:
        broadcasts = self._serf.broadcasts
        if not broadcasts.waiting:
            return self._rumours.take(budget_bytes, most, overhead_bytes=PART_OVERHEAD, living_count=self._table.living_count)
        first, second = (broadcasts, self._rumours) if broadcasts.urgent else (self._rumours, broadcasts)
        told: list[bytes] = []
        for queue in (first, second):
            taken = queue.take(budget_bytes, most - len(told), overhead_bytes=PART_OVERHEAD, living_count=self._table.living_count)
            budget_bytes -= sum(map(len, taken)) + PART_OVERHEAD * len(taken)
            told += taken
        return told

    # --- events and the view ---

    def events(self) -> list[MeshEvent]:
        """What happened since the last call, in order; drained."""
        events = self._events[:]
        self._events.clear()
        self._settled = 0
        return events

    def _settle(self, now: float) -> None:
        """Let the other rooms follow what the membership decided."""
        while self._settled < len(self._events):
            event = self._events[self._settled]
            self._settled += 1
            self._serf.follow(event, now)
            match event:
                case MemberJoined() | MemberReturned() | MemberChanged():
                    member = self._table.by_name[event.name]
                    if not isinstance(event, MemberChanged):
                        self._prober.introduce(member)
                    if self._catalogue.revive(member.name, member.generation, member.node_id):
                        self._events.append(OffersChanged(member.name))
                case MemberDied() | MemberLeft():
                    self._catalogue.bury(event.name, now)
                    self._loads.forget(event.name)
                case SeedAnswered():
                    self._serf.announce()
                case (
                    MemberSuspected()
                    | MemberCleared()
                    | MemberForgotten()
                    | NameContested()
                    | OffersChanged()
                    | IncarnationRaised()
                    | GenerationRaised()
                    | KeyQueryEnded()
                    | KeyringChanged()
                    | KeyMissing()
                ):
                    pass
                case _:
                    assert_never(event)
        later = max(self._swim.later_generation, self._courier.later_generation)
        if later >= self.config.generation and not self._swim.leaving:
            self._outlive(later, now)

    def _outlive(self, generation: int, now: float) -> None:
        """Somebody remembers a later life of this node, of which this one knows nothing: begin one that is later still."""
        self.config = replace(self.config, generation=generation + 1)
        meta = encode_tags(self.config)
        self._swim.rename_myself(meta, decode_tags(meta, name=self.config.name, gossip=self.config.gossip))
        self._courier.changed(self._catalogue.reissue(self.config.generation), now)
        self._events.append(GenerationRaised(self.config.generation))
        self._settled = len(self._events)

    def _note_offers(self, news: list[Entry], now: float) -> None:
        for name, generation in {entry.node: entry.generation for entry in news}.items():
            member = self._table.get(name)
            if member is None:
                continue
            self._table.touch(member)
            self._events.append(OffersChanged(name))
            # It offers out of a later life than the one that we know of: every copy of the news of its restart was lost on the way here.
            if generation > member.generation and member.living and self._reunion.prompt(member.address, now):
                self._exchanges.dial(member.address, join=False)

    def _maia_addresses(self) -> list[Address]:
        return [member.address for member in self._table.living if member.tags is not None]

    def view(self, *, now: float) -> MeshView:
        """The mesh as seen now; cheap where nothing changed."""
        self.counters.health = self._awareness.score
        self.counters.rumours = len(self._rumours)
        return self._viewer.view(now)
