"""What the rest of a node may see of the mesh: immutable values, swapped whole.

Pure. The mesh's own thread publishes a new `MeshView` when something changed; readers on other threads take one reference and keep it for
as long as they need it. Nothing here is ever modified, but for the counters, which only the mesh's own thread touches.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final, Literal, NamedTuple

from maia.config import Address

Status = Literal["alive", "suspect", "dead", "left"]
KeyOperation = Literal["list", "install", "use", "remove"]
# late: answered after others were asked to ping it, too; voided: we stood still ourselves, so that silence proves nothing.
ProbeOutcome = Literal["acked", "late", "failed", "voided"]

# From what no timer notices to a stall that costs a life; 0.08 s is the probe timeout of `lan-fast`.
LAG_BUCKETS_S: Final = (0.001, 0.005, 0.02, 0.08, 0.2, 0.5, 1.0, 3.0)

EMPTY_OFFERS: Mapping[str, bytes] = MappingProxyType({})


class ProbeSeen(NamedTuple):
    """One probe of ours, and how it ended."""

    at_s: float  # when it ended, on the mesh's own clock
    outcome: ProbeOutcome
    took_s: float
    how: str = ""  # of one that failed: who else was asked


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Why a member got a status: who is behind it, what we had seen of it ourselves, and our own state at that moment."""

    status: Status
    at_s: float  # the mesh's own clock
    accuser: str  # who said so; our own name where we found out ourselves; empty for good news
    how: str
    own_health: int  # our own Lifeguard score then: 0 is well, 7 is starved, and its verdicts deserve less trust
    own_lag_s: float = 0.0  # the latest that our own timers had come in the seconds before
    accusers: tuple[str, ...] = ()  # everyone who had accused it by then, as far as we heard
    probes: tuple[ProbeSeen, ...] = ()  # our own last ones, oldest first


class LoadSeen(NamedTuple):
    """How busy a member said it was: bytes that only nodes understand."""

    value: bytes
    at_s: float  # when it was heard, on the mesh's own clock


@dataclass(frozen=True, slots=True)
class MemberView:
    """One member as this node sees it."""

    name: str  # on the wire: the human name, "-", six characters of the node id; unique in the mesh
    title: str  # the human name
    node_id: str
    status: Status
    incarnation: int
    generation: int
    gossip: Address
    link: Address | None
    api: str  # "host:port", empty where the node serves no API
    role: str
    zone: str
    since_s: float  # when it got its status, on the mesh's own clock (seconds, monotonic)
    heard_s: float  # when something last proved that it lives, same clock; refreshed at most once a second
    offers: Mapping[str, bytes]  # its catalogue entries; kept for a while after a death, so that "gone" differs from "never offered"
    history: tuple[Evidence, ...] = ()  # why it got its last few statuses, oldest first
    load: LoadSeen | None = None  # None where it is unknown, or said too long ago; refreshed like `heard_s`

    @property
    def evidence(self) -> Evidence | None:
        """Why it has the status that it has."""
        return self.history[-1] if self.history else None

    @property
    def usable(self) -> bool:
        """Calls may go there: a suspect is last in the order, not out."""
        return self.status in ("alive", "suspect")


@dataclass(frozen=True, slots=True)
class MeshView:
    """The mesh as this node sees it: members by wire name, in the order of their names, this node included."""

    me: str
    members: Mapping[str, MemberView]
    version: int  # grows with every published change

    @property
    def peers(self) -> tuple[MemberView, ...]:
        return tuple(member for member in self.members.values() if member.name != self.me)

    @property
    def myself(self) -> MemberView:
        return self.members[self.me]


@dataclass(frozen=True, slots=True)
class MemberJoined:
    """A member that this node did not know."""

    name: str


@dataclass(frozen=True, slots=True)
class MemberReturned:
    """A dead or departed member lives again, or a living one restarted."""

    name: str
    generation: int


@dataclass(frozen=True, slots=True)
class MemberChanged:
    """A living member moved or changed what its tags say."""

    name: str


@dataclass(frozen=True, slots=True)
class MemberSuspected:
    name: str
    accuser: str


@dataclass(frozen=True, slots=True)
class MemberCleared:
    """A suspect refuted."""

    name: str


@dataclass(frozen=True, slots=True)
class MemberDied:
    name: str
    accuser: str


@dataclass(frozen=True, slots=True)
class MemberLeft:
    name: str


@dataclass(frozen=True, slots=True)
class MemberForgotten:
    """A member that was gone for long is no longer remembered."""

    name: str


@dataclass(frozen=True, slots=True)
class NameContested:
    """Another identity claims a name that is taken; it was refused."""

    name: str
    address: Address


@dataclass(frozen=True, slots=True)
class OffersChanged:
    name: str


@dataclass(frozen=True, slots=True)
class IncarnationRaised:
    """This node's own incarnation grew: persist it, and start from the next one."""

    incarnation: int


@dataclass(frozen=True, slots=True)
class GenerationRaised:
    """A record of this node from a later life was met: persist this generation, and start from the next one."""

    generation: int


@dataclass(frozen=True, slots=True)
class SeedAnswered:
    """An exchange with a seed succeeded."""

    address: Address


@dataclass(frozen=True, slots=True)
class KeyReply:
    """What one member says to a question about keys. Keys are base64, as Serf writes them, and never shown."""

    node: str
    ok: bool
    message: str  # why not, in the words of who answered; empty where it is
    keys: tuple[str, ...] = field(repr=False)  # all of its keys where they were asked for
    primary: str = field(repr=False)  # empty where it was not asked for, or the member does not tell


@dataclass(frozen=True, slots=True)
class KeyQueryEnded:
    """A question of ours about keys is over: everybody asked has replied, or its time is up."""

    number: int
    operation: KeyOperation
    replies: tuple[KeyReply, ...]  # in the order in which they came
    asked: tuple[str, ...]  # the living members at the time of asking, this node included


@dataclass(frozen=True, slots=True)
class KeyringChanged:
    """The keys of this node are others now, whoever asked for it: persist them."""


@dataclass(frozen=True, slots=True)
class KeyMissing:
    """The cluster seals with a key that this node does not have: what is told to it cannot be opened.

    `fingerprint` is the key's (`keyring.fingerprint_of`); empty where nobody could tell it.
    """

    fingerprint: str


MeshEvent = (
    MemberJoined
    | MemberReturned
    | MemberChanged
    | MemberSuspected
    | MemberCleared
    | MemberDied
    | MemberLeft
    | MemberForgotten
    | NameContested
    | OffersChanged
    | IncarnationRaised
    | GenerationRaised
    | SeedAnswered
    | KeyQueryEnded
    | KeyringChanged
    | KeyMissing
)


@dataclass(slots=True)
class Counters:
    """What happened since the start, for metrics. Names of kinds and reasons are short constants, fit for labels."""

    pings: int = 0
    indirect_pings: int = 0
    probes_acked: int = 0
    probes_late: int = 0
    probes_failed: int = 0
    probes_by_stream: int = 0  # answered over TCP alone: something keeps UDP from passing
    suspicions: int = 0
    confirmations: int = 0  # of a suspicion, by others
    cleared: int = 0  # suspicions that the member refuted
    deaths: int = 0
    refutations: int = 0
    exchanges: int = 0
    exchanges_failed: int = 0
    stalls: int = 0
    probes_voided: int = 0
    entries_accepted: int = 0
    pulls: int = 0
    events_dropped: int = 0
    intents: int = 0  # of Serf's: somebody stays or leaves
    user_events: int = 0  # of Serf's, heard the first time and told on
    queries: int = 0  # the same
    health: int = 0  # the Lifeguard score now, not a sum
    rumours: int = 0  # waiting to be told now, not a sum
    lags: list[int] = field(default_factory=lambda: [0] * (len(LAG_BUCKETS_S) + 1))  # wakes by the clock, by how late they came
    lag_sum_s: float = 0.0
    rejected: dict[str, int] = field(default_factory=dict)  # by reason
    rejected_from: dict[str, Address] = field(default_factory=dict)  # by reason, who sent the last one, where that is known
    hearing: Address | None = None  # whose datagram is being read at this moment
    datagrams_in: int = 0
    bytes_in: int = 0
    bytes_in_by_kind: dict[str, int] = field(default_factory=dict)  # of the first message; "rejected" where there is none
    datagrams_out: dict[str, int] = field(default_factory=dict)  # by kind of the first message
    bytes_out: dict[str, int] = field(default_factory=dict)
    stream_bytes_in: int = 0
    stream_bytes_out: int = 0

    def reject(self, reason: str, sender: Address | None = None) -> None:
        """Something was refused. Without a `sender` it came in the datagram that is being read, if any."""
        self.rejected[reason] = self.rejected.get(reason, 0) + 1
        sender = sender or self.hearing
        if sender is not None:
            self.rejected_from[reason] = sender

    def lagged(self, seconds: float) -> None:
        """The mesh's thread woke by the clock, so much later than it wanted to."""
        self.lags[bisect_left(LAG_BUCKETS_S, seconds)] += 1
        self.lag_sum_s += seconds

    def received(self, kind: str, size: int) -> None:
        self.datagrams_in += 1
        self.bytes_in += size
        self.bytes_in_by_kind[kind] = self.bytes_in_by_kind.get(kind, 0) + size

    def sent(self, kind: str, size: int) -> None:
        self.datagrams_out[kind] = self.datagrams_out.get(kind, 0) + 1
        self.bytes_out[kind] = self.bytes_out.get(kind, 0) + size

    def snapshot(self) -> Counters:
        """A copy that no longer changes."""
        return replace(
            self,
            lags=self.lags[:],
            rejected=dict(self.rejected),
            rejected_from=dict(self.rejected_from),
            bytes_in_by_kind=dict(self.bytes_in_by_kind),
            datagrams_out=dict(self.datagrams_out),
            bytes_out=dict(self.bytes_out),
        )
