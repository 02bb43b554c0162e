"""Who still answers: one member is probed per interval, round robin over a shuffled list, directly and then through others.

SWIM: Das, Gupta and Motivala, 2002, §4.3 (every member is probed within a bounded time), with Lifeguard's nacks: a relay that says "nobody
answered me either" proves that our own network works, so missing nacks are held against ourselves.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

from maia.config import Address, Profile, Random
from maia.membership.awareness import Awareness
from maia.membership.members import Member, MemberTable, pick
from maia.view import Counters
from maia.wire.messages import Ack, IndirectPing, Nack, Ping, Suspect
from maia.wire.outbox import Outbox

RELAYS_MAX: Final = 256  # asked of us and unanswered; one more asker waits for its own deadline instead
# Of the requester's timeout: a nack that comes with the deadline is worth nothing, and memberlist's comes exactly then.
NACK_SHARE: Final = 0.8
# Times in a row. Calls prove that a member lives, but only acks carry the root of its catalogue: what was lost of it must not wait until
# nobody calls it any more.
PASSED_OVER_MAX: Final = 4
STREAM_PING_PROTOCOL: Final = 3  # of memberlist: the first that answers a ping over TCP
RELAYS_EACH_MAX: Final = 8  # of them for one asker: it has one probe in flight, and a few of which it gave up
SEQUENCE_MODULUS: Final = 2**32


class StreamPing(NamedTuple):
    """A ping to be carried over TCP, beside the relays: UDP may be blocked where TCP is open."""

    target: Address
    ping: Ping
    timeout_s: float


class Probe:
    """The probe in flight."""

    __slots__ = ("deadline_s", "indirect_at_s", "nackers", "nacks", "relays", "sequence", "started_s", "target")

    def __init__(self, target: Member, sequence: int, *, now: float, indirect_at_s: float, deadline_s: float) -> None:
        self.target = target
        self.sequence = sequence
        self.started_s = now
        self.indirect_at_s = indirect_at_s  # infinity once the relays are asked
        self.deadline_s = deadline_s
        self.relays = 0
        self.nackers = 0  # relays whose nack is due in time
        self.nacks = 0


class Relay:
    """Somebody else's probe, which we carry out."""

    __slots__ = ("expires_s", "nack_at_s", "requester", "sequence")

    def __init__(self, requester: Address, sequence: int, *, nack_at_s: float, expires_s: float) -> None:
        self.requester = requester
        self.sequence = sequence
        self.nack_at_s = nack_at_s  # infinity once sent, or where none is wanted
        self.expires_s = expires_s


class Prober:
    """`tick` starts probes and returns the member whose probe failed. Messages go to the shared outbox.

    `stream_pings` are for the caller to carry out; an ack that comes back is for `acked`, like any other.
    """

    def __init__(
        self,
        table: MemberTable,
        profile: Profile,
        *,
        awareness: Awareness,
        outbox: Outbox,
        counters: Counters,
        random: Random,
        now: float,
    ) -> None:
        self._table = table
        self._profile = profile
        self._awareness = awareness
        self._outbox = outbox
        self._counters = counters
        self._random = random
        self.stream_pings: list[StreamPing] = []
        self._probe: Probe | None = None
        self._next_s = now + random.random() * profile.probe_interval_s
        self._round: list[str] = []
        self._at = 0
        self._sequence = random.randrange(SEQUENCE_MODULUS)
        self._relays: dict[int, Relay] = {}
        self._relays_of: dict[Address, int] = {}
        self._relay_due_s = math.inf

    def due_s(self) -> float:
        """When `tick` has something to do."""
        probe = self._probe
        if probe is None:
            return min(self._next_s, self._relay_due_s)
        return min(probe.indirect_at_s, probe.deadline_s, self._relay_due_s)

    def next_sequence(self) -> int:
        self._sequence = (self._sequence + 1) % SEQUENCE_MODULUS
        return self._sequence

    def introduce(self, member: Member) -> None:
        """A new member takes a random place in the round, so that it is not always the last to be probed."""
        if member.name in self._round[self._at :]:
            return
        self._round.insert(self._at + self._random.randrange(len(self._round) - self._at + 1), member.name)

    def hasten(self, member: Member) -> None:
        """Probe `member` next: somebody doubts it."""
        if member.name in self._round[self._at :]:
            place = self._round.index(member.name, self._at)
            self._round[self._at], self._round[place] = member.name, self._round[self._at]

    def tick(self, now: float) -> tuple[Member, str] | None:
        """Do what is due. Returns the member whose probe failed just now, and how, for the caller to suspect it."""
        if self._relay_due_s <= now:
            self._tend_relays(now)
        failed: tuple[Member, str] | None = None
        probe = self._probe
        if probe is not None:
            if probe.deadline_s <= now:
                failed = self._give_up(probe, now)
            elif probe.indirect_at_s <= now:
                self._ask_otherwise(probe, now)
        if self._probe is None and self._next_s <= now:
            self._start(now)
        return failed

    def void(self, now: float) -> bool:
        """Forget the probe in flight without a verdict, and what we were to tell others by now; True if there was one of ours."""
        for sequence, relay in list(self._relays.items()):
            # A nack that comes late accuses the requester's own network, and an overdue timer would count as another stall.
            if relay.nack_at_s <= now:
                relay.nack_at_s = math.inf
            if relay.expires_s <= now:
                self._end_relay(sequence)
        self._relay_due_s = min((min(relay.nack_at_s, relay.expires_s) for relay in self._relays.values()), default=math.inf)
        probe, self._probe = self._probe, None
        if probe is not None:
            probe.target.probed("voided", started_s=probe.started_s, now=now)
        self._next_s = max(self._next_s, now + self._profile.probe_interval_s * self._random.random())
        return probe is not None

    def acked(self, sequence: int, now: float) -> Member | None:
        """The member that this ack proves to be living, if it is the one being probed; a relayed one is passed on."""
        probe = self._probe
        if probe is not None and probe.sequence == sequence:
            self._probe = None
            self._next_s = max(now, probe.started_s + self._profile.probe_interval_s)
            self._awareness.shift(-1)
            probe.target.heard_s = now
            if probe.indirect_at_s < math.inf:
                self._counters.probes_acked += 1
                probe.target.probed("acked", started_s=probe.started_s, now=now)
            else:
                self._counters.probes_late += 1
                probe.target.probed("late", started_s=probe.started_s, now=now)
            return probe.target
        relay = self._end_relay(sequence)
        if relay is not None:
            self._outbox.say(relay.requester, Ack(relay.sequence))
        return None

    def nacked(self, sequence: int) -> None:
        if self._probe is not None and self._probe.sequence == sequence:
            self._probe.nacks += 1

    def relay(self, request: IndirectPing, requester: Address, now: float) -> None:
        """Ping somebody on behalf of `requester`."""
        if len(self._relays) >= RELAYS_MAX or self._relays_of.get(requester, 0) >= RELAYS_EACH_MAX:
            self._counters.reject("too-many-relays")
            return
        timeout_s = request.timeout_ms / 1000 if request.timeout_ms else self._profile.probe_timeout_s
        sequence = self.next_sequence()
        relay = Relay(
            requester,
            request.sequence,
            nack_at_s=now + NACK_SHARE * timeout_s if request.wants_nack else math.inf,
            # An ack that comes later than the requester's next probe is of no use to it.
            expires_s=now + max(timeout_s, self._profile.probe_interval_s),
        )
        self._relays[sequence] = relay
        self._relays_of[requester] = self._relays_of.get(requester, 0) + 1
        self._relay_due_s = min(self._relay_due_s, relay.nack_at_s, relay.expires_s)
        me = self._table.me
        self._outbox.say(request.target, Ping(sequence, request.node, me.address, me.name))

    def _end_relay(self, sequence: int) -> Relay | None:
        relay = self._relays.pop(sequence, None)
        if relay is not None:
            self._relays_of[relay.requester] -= 1
            if not self._relays_of[relay.requester]:
                del self._relays_of[relay.requester]
        return relay

    def _tend_relays(self, now: float) -> None:
        due_s = math.inf
        for sequence, relay in list(self._relays.items()):
            if relay.nack_at_s <= now:
                self._outbox.say(relay.requester, Nack(relay.sequence))
                relay.nack_at_s = math.inf
            if relay.expires_s <= now:
                self._end_relay(sequence)
            else:
                due_s = min(due_s, relay.nack_at_s, relay.expires_s)
        self._relay_due_s = due_s

    def _start(self, now: float) -> None:
        self._next_s = now + self._profile.probe_interval_s
        target = self._next_target(now)
        if target is None:
            return
        sequence = self.next_sequence()
        self._probe = Probe(
            target,
            sequence,
            now=now,
            indirect_at_s=now + self._profile.probe_timeout_s,
            deadline_s=now + self._awareness.stretched_s(self._profile.probe_interval_s),
        )
        me = self._table.me
        self._counters.pings += 1
        self._outbox.say(target.address, Ping(sequence, target.name, me.address, me.name))
        if target.status == "suspect":
            # The buddy system: whoever is suspected learns it with the ping, and refutes at once (Lifeguard, §IV-C).
            self._outbox.say(target.address, Suspect(target.incarnation, target.name, me.name))

    def _next_target(self, now: float) -> Member | None:
        lately_s = now - self._profile.probe_interval_s
        for _ in range(len(self._round) + 1):
            if self._at >= len(self._round):
                self._round = [member.name for member in self._table.living]
                self._random.shuffle(self._round)
                self._at = 0
                if not self._round:
                    return None
            member = self._table.get(self._round[self._at])
            self._at += 1
            if member is None or not member.living:
                continue
            # Who answered a call within the last interval need not be asked; a suspect is always asked.
            if member.status == "alive" and member.answered_s >= lately_s and member.passed_over < PASSED_OVER_MAX:
                member.passed_over += 1
                continue
            member.passed_over = 0
            return member
        return None

    def _ask_otherwise(self, probe: Probe, now: float) -> None:
        probe.indirect_at_s = math.inf
        target = probe.target
        me = self._table.me
        if target.vsn[1] >= STREAM_PING_PROTOCOL:
            ping = Ping(probe.sequence, target.name, me.address, me.name)
            self.stream_pings.append(StreamPing(target.address, ping, probe.deadline_s - now))
        timeout_ms = max(1, round(self._profile.probe_timeout_s * 1000))
        candidates = [member for member in self._table.living if member.status == "alive" and member is not target]
        for relay in pick(candidates, self._profile.indirect_checks, self._random):
            probe.relays += 1
            # A stock relay nacks after its own timeout and a slower one knows no haste: their silence says nothing about us.
            probe.nackers += relay.tags is not None and relay.profile.probe_timeout_s <= self._profile.probe_timeout_s
            self._counters.indirect_pings += 1
            request = IndirectPing(
                probe.sequence, target.address, target.name, wants_nack=True, source=me.address, source_node=me.name, timeout_ms=timeout_ms
            )
            self._outbox.say(relay.address, request)

    def _give_up(self, probe: Probe, now: float) -> tuple[Member, str] | None:
        self._probe = None
        self._next_s = max(now, probe.started_s + self._profile.probe_interval_s)
        if probe.nackers > 0:
            self._awareness.shift(max(0, probe.nackers - probe.nacks))
        else:
            self._awareness.shift(1)
        self._counters.probes_failed += 1
        waited_ms = round((probe.deadline_s - probe.started_s) * 1000)
        how = f"no answer in {waited_ms} ms, directly or through {probe.relays} others ({probe.nacks} nacks)"
        probe.target.probed("failed", started_s=probe.started_s, now=now, how=how)
        return (probe.target, how) if probe.target.living else None
