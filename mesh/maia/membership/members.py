"""The table of members: everyone that this node knows, itself included, living or gone.

`living` peers are alive or suspect. Orders are those of insertion, never of a set, so that a run can be replayed.
"""

from __future__ import annotations

import math
from typing import Final

from maia.config import LAN, PROFILES, Address, Profile, Random
from maia.membership.suspicion import Suspicion
from maia.view import Evidence, ProbeOutcome, ProbeSeen, Status
from maia.wire.messages import Alive, Dead, Suspect
from maia.wire.tags import Tags

PROBES_KEPT: Final = 6  # a probe fails once before a suspicion, and a few times more before the death: the rest shows how it was before
EVIDENCE_KEPT: Final = 6  # alive, suspect, dead and back, and what came before


class Member:
    """What is known of one member. Only `MemberTable`, `Swim` and, for its probes, `Prober` modify it."""

    __slots__ = (
        "address",
        "answered_s",
        "heard_s",
        "history",
        "incarnation",
        "meta",
        "name",
        "passed_over",
        "probes",
        "profile",
        "since_s",
        "status",
        "suspicion",
        "tags",
        "vsn",
    )

    def __init__(self, alive: Alive, tags: Tags | None, now: float) -> None:
        self.name = alive.node
        self.status: Status = "alive"
        self.since_s = now
        self.heard_s = now
        self.answered_s = -math.inf  # the last call over a link that it answered
        self.passed_over = 0  # times in a row that it was not pinged for that reason
        self.suspicion: Suspicion | None = None
        # Tuples, since most members never have more than a few: two empty deques took 1.3 kB of each member.
        self.probes: tuple[ProbeSeen, ...] = ()
        self.history: tuple[Evidence, ...] = ()
        self.renew(alive, tags)

    def probed(self, outcome: ProbeOutcome, *, started_s: float, now: float, how: str = "") -> None:
        """A probe of it has ended."""
        self.probes = (*self.probes[1 - PROBES_KEPT :], ProbeSeen(now, outcome, now - started_s, how))

    def witnessed(self, evidence: Evidence) -> None:
        """Why it has the status that it has now."""
        self.history = (*self.history[1 - EVIDENCE_KEPT :], evidence)

    def renew(self, alive: Alive, tags: Tags | None) -> None:
        """Take over what a newer alive message says."""
        self.address: Address = alive.address
        self.incarnation = alive.incarnation
        self.meta = alive.meta
        self.vsn = alive.vsn
        self.tags = tags
        # No tag means a stock agent, and an unknown profile a newer node than us: both are given memberlist's own patience.
        self.profile: Profile = PROFILES.get(tags.profile, LAN) if tags else LAN

    @property
    def living(self) -> bool:
        return self.status in ("alive", "suspect")

    @property
    def generation(self) -> int:
        return self.tags.generation if self.tags else 0

    @property
    def node_id(self) -> str:
        return self.tags.node_id if self.tags else ""

    def as_alive(self) -> Alive:
        return Alive(self.incarnation, self.name, self.address, self.meta, self.vsn)

    def as_known(self, *, teller: str) -> Alive | Suspect | Dead:
        """What `teller` would say of this member."""
        match self.status:
            case "alive":
                return self.as_alive()
            case "suspect":
                return Suspect(self.incarnation, self.name, teller)
            case "dead":
                return Dead(self.incarnation, self.name, teller)
            case "left":
                return Dead(self.incarnation, self.name, self.name)


class MemberTable:
    """Members by name. `revision` grows with every change that a reader could see; `touched` names whom it concerns."""

    def __init__(self, me: Member) -> None:
        self.me = me
        self.by_name: dict[str, Member] = {me.name: me}
        self.revision = 1
        self.touched: dict[str, None] = {me.name: None}
        self._living: list[Member] | None = None
        self._by_address: dict[Address, Member] = {}
        self._known: dict[Address, None] = {}

    def get(self, name: str) -> Member | None:
        return self.by_name.get(name)

    def add(self, member: Member) -> None:
        self.by_name[member.name] = member
        self.turn(member)

    def forget(self, member: Member) -> None:
        del self.by_name[member.name]
        self.turn(member)

    def touch(self, member: Member) -> None:
        """A reader would now see something else of `member`; who lives, and where, is as before."""
        self.revision += 1
        self.touched[member.name] = None

    def turn(self, member: Member) -> None:
        """`member` is here or gone, or somewhere else."""
        self._living = None
        self.touch(member)

    @property
    def living(self) -> list[Member]:
        """Peers that are alive or suspect, in the order in which they were first met. Not to be modified."""
        if self._living is None:
            me = self.me
            self._living = [member for member in self.by_name.values() if member is not me and member.living]
            self._by_address = {member.address: member for member in self._living}
            self._known = {member.address: None for member in self.by_name.values()}
        return self._living

    def at(self, address: Address) -> Member | None:
        """The living peer that gossips from this address."""
        return self._by_address.get(address) if self.living else None

    def knows(self, address: Address) -> bool:
        """Whether anybody known, living or gone, gossips or gossiped from this address."""
        return self.living is not None and address in self._known

    def on(self, host: str) -> bool:
        """Whether a living peer gossips from this host, at whatever port."""
        return any(member.address.host == host for member in self.living)

    @property
    def living_count(self) -> int:
        """Everyone living, this node included."""
        return len(self.living) + 1

    def departed(self) -> list[Member]:
        """The dead and those that left, longest gone first."""
        me = self.me
        gone = [member for member in self.by_name.values() if member is not me and not member.living]
        gone.sort(key=lambda member: (member.since_s, member.name))
        return gone


def pick(candidates: list[Member], count: int, random: Random) -> list[Member]:
    """At most `count` different ones of `candidates`, at random."""
    if len(candidates) <= count:
        return list(candidates)
    chosen: list[int] = []
    while len(chosen) < count:
        index = random.randrange(len(candidates))
        if index not in chosen:
            chosen.append(index)
    return [candidates[index] for index in chosen]
