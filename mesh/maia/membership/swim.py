"""What a message changes in the table: the rules by which alive, suspect and dead overrule each other, and how a node clears its own name.

An incarnation belongs to its member and only that one raises it. At equal incarnations dead overrules suspect, and suspect overrules
alive; a higher one overrules all. What is news is told on; what is stale is answered, since its sender missed something.
"""

from __future__ import annotations

import math
from typing import Final, Literal

from maia.config import INCARNATION_MAX, Address, MeshConfig, Random
from maia.errors import DatagramRejected
from maia.membership.awareness import Awareness
from maia.membership.members import Member, MemberTable, pick
from maia.membership.rumours import Rumours
from maia.membership.suspicion import Suspicion
from maia.view import (
    Counters,
    Evidence,
    IncarnationRaised,
    MemberChanged,
    MemberCleared,
    MemberDied,
    MemberForgotten,
    MemberJoined,
    MemberLeft,
    MemberReturned,
    MemberSuspected,
    MeshEvent,
    NameContested,
    Status,
)
from maia.wire.codec import ALIVE_INCARNATION_MAX, encode
from maia.wire.messages import Alive, Dead, Suspect
from maia.wire.outbox import Outbox
from maia.wire.tags import Tags, decode_tags

URGENT_PEERS: Final = 3  # who hear a refutation at once; with the rumour that follows, missing every copy became too rare to measure
FAREWELL_PEERS: Final = 32  # who hear a farewell at once: a leaving node has no time for rounds


class Swim:
    """The rules, applied to one table. Messages to single nodes go to the shared outbox, news to the rumours, events to the events."""

    def __init__(
        self,
        config: MeshConfig,
        table: MemberTable,
        rumours: Rumours,
        *,
        awareness: Awareness,
        outbox: Outbox,
        events: list[MeshEvent],
        counters: Counters,
        random: Random,
    ) -> None:
        self._config = config
        self._table = table
        self._rumours = rumours
        self._awareness = awareness
        self._outbox = outbox
        self._events = events
        self._counters = counters
        self._random = random
        self._suspects: dict[str, Member] = {}
        self.due_s = math.inf  # the next suspicion that runs out
        self.leaving = False
        self.later_generation = -1  # of a life of ours that somebody remembers and this one does not

    # --- alive ---

    def hear_alive(self, alive: Alive, sender: Address | None, now: float) -> Member | None:
        """Merge an alive message. Returns the member if it was not living here before."""
        member = self._table.get(alive.node)
        if member is self._table.me:
            self._hear_that_i_live(alive, sender, now)
            return None
        if member is not None and alive.incarnation <= member.incarnation:
            # Equal and alive on both sides is what everybody says all day. Otherwise the member itself is behind: it lost its state or was
            # given up, and nobody else will ever tell it so.
            if sender == alive.address and (alive.incarnation < member.incarnation or member.status != "alive"):
                self._outbox.say(alive.address, member.as_known(teller=self._table.me.name))
            return None
        tags = self._admit(alive, member)
        if tags is False:
            return None
        if member is None:
            return self._welcome(alive, tags, now)
        return self._renew(member, alive, tags, now)

    def _admit(self, alive: Alive, member: Member | None) -> Tags | Literal[False] | None:
        """The tags of an alive message that may be merged, or False."""
        if member is not None and alive.meta == member.meta and alive.address == member.address:
            return member.tags
        try:
            tags = decode_tags(alive.meta, name=alive.node, gossip=alive.address)
        except DatagramRejected as error:
            self._counters.reject(error.reason)
            return False
        if not self._config.admits(alive.address):
            self._counters.reject("beyond-loopback")
            return False
        if (tags is None and not self._config.serf) or (tags is not None and tags.cluster_id != self._config.cluster_id):
            self._counters.reject("other-cluster")
            return False
        if member is None:
            if len(self._table.by_name) >= self._config.limits.members_max:
                self._counters.reject("too-many-members")
                return False
            return tags
        node_id = tags.node_id if tags else ""
        same_identity = node_id == member.node_id
        # A name passes to another identity never, and to another address only with proof of identity, or after a farewell.
        if not same_identity or (alive.address != member.address and not node_id and member.status != "left"):
            self._counters.reject("name-taken")
            self._events.append(NameContested(alive.node, alive.address))
            return False
        return tags

    def _welcome(self, alive: Alive, tags: Tags | None, now: float) -> Member:
        member = Member(alive, tags, now)
        self._witness(member, "alive", accuser="", how="first heard of", now=now)
        self._table.add(member)
        self._rumours.add(member.name, encode(alive))
        self._events.append(MemberJoined(member.name))
        return member

    def _renew(self, member: Member, alive: Alive, tags: Tags | None, now: float) -> Member | None:
        before = member.status
        generation, meta, address = member.generation, member.meta, member.address
        member.renew(alive, tags)
        self._rumours.add(member.name, encode(alive))
        restarted = member.generation > generation
        self._turn(member, "alive", accuser="", how=_how_it_came(before, restarted=restarted), now=now)
        member.heard_s = now
        if restarted or before in ("dead", "left"):
            self._events.append(MemberReturned(member.name, member.generation))
        elif before == "suspect":
            self._counters.cleared += 1
            self._events.append(MemberCleared(member.name))
        elif (meta, address) != (alive.meta, alive.address):
            self._events.append(MemberChanged(member.name))
        return None if before in ("alive", "suspect") else member

    def _hear_that_i_live(self, alive: Alive, sender: Address | None, now: float) -> None:
        me = self._table.me
        identical = alive.meta == me.meta and alive.address == me.address and alive.vsn == me.vsn
        if self.leaving or alive.incarnation < me.incarnation or (identical and alive.incarnation == me.incarnation):
            return
        try:
            tags = decode_tags(alive.meta, name=alive.node, gossip=alive.address)
        except DatagramRejected as error:
            self._counters.reject(error.reason)
            return
        if tags is None or tags.node_id != me.node_id:
            # Another identity under our name: an answer would start a race of incarnations that nobody wins.
            self._counters.reject("name-taken")
            self._events.append(NameContested(alive.node, alive.address))
            return
        if tags.generation > me.generation or (tags.generation == me.generation and alive.incarnation > me.incarnation):
            self.later_generation = tags.generation
        self._refute(alive.incarnation, sender, now)

    # --- suspect ---

    def hear_suspect(self, suspect: Suspect, sender: Address | None, now: float, *, how: str = "heard in gossip") -> None:
        """Merge an accusation, ours included."""
        member = self._table.get(suspect.node)
        if member is None:
            return
        if suspect.incarnation < member.incarnation:
            self._answer_stale(member, sender)
            return
        if member is self._table.me:
            self._refute(suspect.incarnation, sender, now, accuser=suspect.accuser)
            return
        if not member.living:
            if sender is not None:
                # It missed every copy of the news. Of a goodbye it would make a death, and to a death it would come late: who knows better
                # no longer confirms.
                self._outbox.say(sender, member.as_known(teller=self._table.me.name))
            return
        suspicion = member.suspicion
        if suspicion is None or suspect.incarnation > member.incarnation:
            self._suspect(member, suspect, now, how=how)
        elif suspicion.confirm(suspect.accuser):
            self._counters.confirmations += 1
            self._rumours.add(member.name, encode(suspect))
            self._reckon()

    def _suspect(self, member: Member, suspect: Suspect, now: float, *, how: str) -> Suspicion:
        # Perhaps anew: at a higher incarnation the member refuted the old accusation, and we missed it (memberlist: a confirmation).
        member.incarnation = suspect.incarnation
        suspicion = member.suspicion = Suspicion(suspect.accuser, profile=member.profile, living_count=self._table.living_count, now=now)
        self._counters.suspicions += 1
        self._turn(member, "suspect", accuser=suspect.accuser, how=how, now=now)
        self._events.append(MemberSuspected(member.name, suspect.accuser))
        self._rumours.add(member.name, encode(suspect))
        self._reckon()
        return suspicion

    def hear_gossip_of_loss(self, alive: Alive, sender: Address | None, now: float) -> Member | None:
        """An exchange says that a member is suspect or dead: hearsay, which confirms nothing.

        Whoever is accused is told, and refutes if it can; returned, so that the caller probes it soon.
        """
        member = self._table.get(alive.node)
        if member is None:
            return None
        if member is self._table.me:
            if alive.incarnation >= member.incarnation:
                self._refute(alive.incarnation, sender, now)
            return None
        if not member.living:
            return None
        if alive.incarnation < member.incarnation:
            self._answer_stale(member, sender)
            return None
        self._outbox.say(member.address, Suspect(min(alive.incarnation, INCARNATION_MAX), member.name, self._table.me.name))
        return member

    # --- dead ---

    def hear_dead(self, dead: Dead, sender: Address | None, now: float) -> None:
        """Merge a farewell, or what others say of a death."""
        how = "heard in gossip"
        member = self._table.get(dead.node)
        if member is None:
            return
        if dead.incarnation < member.incarnation:
            self._answer_stale(member, sender)
            return
        if member is self._table.me:
            self._refute(dead.incarnation, sender, now, accuser=dead.accuser)
            return
        farewell = dead.accuser == dead.node
        if member.status == "left" or (member.status == "dead" and not farewell):
            return
        if member.living and not farewell and not self._may_be_dead(member, dead, now, how=how):
            return
        self._bury(member, dead, now, how=how)

    def _bury(self, member: Member, dead: Dead, now: float, *, how: str) -> None:
        member.incarnation = dead.incarnation
        self._rumours.add(member.name, encode(dead))
        if dead.accuser == dead.node:
            self._turn(member, "left", accuser=dead.accuser, how="said goodbye", now=now)
            self._events.append(MemberLeft(member.name))
        else:
            self._counters.deaths += 1
            self._turn(member, "dead", accuser=dead.accuser, how=how, now=now)
            self._events.append(MemberDied(member.name, dead.accuser))

    def _may_be_dead(self, member: Member, dead: Dead, now: float, *, how: str) -> bool:
        # Whoever was cut off or starved comes back and gives up all others. So its word is an accusation, the gravest one: nobody dies here
        # who was not suspected here for the minimum of its time, in which it could have refuted.
        suspicion = member.suspicion
        if suspicion is None or dead.incarnation > member.incarnation:
            suspicion = self._suspect(member, Suspect(dead.incarnation, dead.node, dead.accuser), now, how=how)
        suspicion.condemn(dead.accuser)
        self._reckon()
        return suspicion.deadline_s <= now

    def depart(self, name: str, now: float) -> None:
        """Somebody dead had meant to leave, or is made to have left: nobody looks for it any more."""
        member = self._table.get(name)
        if member is not None and member.status == "dead":
            self._turn(member, "left", accuser="", how="it had said that it leaves, or somebody said it in its name", now=now)
            self._events.append(MemberLeft(member.name))

    def expire(self, now: float) -> None:
        """Give up every suspect whose time has run out."""
        if self.due_s > now:
            return
        for member in list(self._suspects.values()):
            suspicion = member.suspicion
            if suspicion is not None and suspicion.deadline_s <= now:
                how = f"suspected for {now - member.since_s:.1f} s by {', '.join(suspicion.accusers)} and did not refute"
                self._bury(member, Dead(member.incarnation, member.name, self._table.me.name), now, how=how)

    def delay_suspicions(self, seconds: float, now: float) -> None:
        """Every suspect gets longer, and at least so long from now on: we could not have heard it refute."""
        for member in self._suspects.values():
            if member.suspicion is not None:
                member.suspicion.delay(seconds, now)
        self._reckon()

    # --- about this node ---

    def announce(self) -> None:
        """Tell everybody what this node now says of itself."""
        me = self._table.me
        self._rumours.add(me.name, encode(me.as_alive()))
        self._table.touch(me)

    def rename_myself(self, meta: bytes, tags: Tags | None) -> None:
        """New tags are a new incarnation."""
        me = self._table.me
        me.renew(Alive(me.incarnation + 1, me.name, me.address, meta, me.vsn), tags)
        self._events.append(IncarnationRaised(me.incarnation))
        self.announce()

    def leave(self, now: float) -> None:
        """Say goodbye: dead, by our own word. Nothing is refuted from here on."""
        if self.leaving:
            return
        self.leaving = True
        me = self._table.me
        farewell = Dead(min(me.incarnation, INCARNATION_MAX), me.name, me.name)
        self._turn(me, "left", accuser=me.name, how="said goodbye", now=now)
        self._rumours.add(me.name, encode(farewell))
        for peer in pick(self._table.living, FAREWELL_PEERS, self._random):
            self._outbox.say(peer.address, farewell)

    def forget(self, member: Member) -> None:
        """A departed member that nobody needs to remember."""
        self._table.forget(member)
        self._events.append(MemberForgotten(member.name))

    def _refute(self, accused: int, sender: Address | None, now: float, *, accuser: str = "") -> None:
        if self.leaving:
            return
        me = self._table.me
        me.incarnation = min(max(me.incarnation, accused) + 1, ALIVE_INCARNATION_MAX)
        self._witness(me, "alive", accuser=accuser, how="refuted an accusation of itself", now=now)
        self._awareness.shift(1)
        self._counters.refutations += 1
        self._events.append(IncarnationRaised(me.incarnation))
        self.announce()
        alive = me.as_alive()
        for peer in pick(self._table.living, URGENT_PEERS, self._random):
            self._outbox.say(peer.address, alive)
        if sender is not None:
            self._outbox.say(sender, alive)

    def _answer_stale(self, member: Member, sender: Address | None) -> None:
        # Its sender missed every copy of the refutation, and would go on to declare a living member dead.
        if sender is not None and member.status == "alive" and not (self.leaving and member is self._table.me):
            self._outbox.say(sender, member.as_alive())

    def _turn(self, member: Member, status: Status, *, accuser: str, how: str, now: float) -> None:
        accusers = tuple(member.suspicion.accusers) if member.suspicion is not None else ()
        if status != "suspect":
            member.suspicion = None
        if member.status != status:
            member.status = status
            member.since_s = now
        self._witness(member, status, accuser=accuser, how=how, now=now, accusers=accusers)
        self._table.turn(member)
        if member.suspicion is not None:
            self._suspects[member.name] = member
        elif self._suspects.pop(member.name, None) is not None:
            self._reckon()

    def _witness(self, member: Member, status: Status, *, accuser: str, how: str, now: float, accusers: tuple[str, ...] = ()) -> None:
        member.witnessed(
            Evidence(
                status=status,
                at_s=now,
                accuser=accuser,
                how=how,
                own_health=self._awareness.score,
                own_lag_s=self._awareness.lag_s(now),
                accusers=accusers,
                probes=member.probes,
            )
        )

    def _reckon(self) -> None:
        self.due_s = min(
            (member.suspicion.deadline_s for member in self._suspects.values() if member.suspicion is not None), default=math.inf
        )


def _how_it_came(before: Status, *, restarted: bool) -> str:
    """A node that left and joins again begins another life, too, in the same process or in another: nobody here can tell."""
    if before == "left":
        return "joined again"
    if restarted:
        return "restarted"
    return "refuted" if before == "suspect" else "said so itself"
