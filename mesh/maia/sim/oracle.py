"""What must never happen, checked on every event and in full every second, and what must hold in the end.

It knows who is in trouble, since the world tells it, and so who may be taken for dead: who is down, stopped, cut off from more than one
other, or was so a moment ago. Everybody else is *well*, and to the well nothing bad may happen.
"""

from __future__ import annotations

import math
from typing import Final

from maia.exchanges import EXCHANGES_MAX
from maia.membership.reunion import BACKOFF_MAX_S
from maia.membership.rumours import RUMOURS_MAX
from maia.membership.suspicion import suspicion_bounds_s
from maia.sim.invariants import Invariant
from maia.sim.stamps import stamp_of
from maia.sim.world import (
    GarbageArrived,
    NodeCrashed,
    NodeCutOff,
    NodeEvent,
    NodeLeaving,
    NodePaused,
    NodeReconnected,
    NodeResumed,
    NodeStarted,
    SimulatedNode,
    World,
)
from maia.view import (
    IncarnationRaised,
    MemberDied,
    MemberJoined,
    MemberLeft,
    MemberReturned,
    MemberView,
    MeshEvent,
    OffersChanged,
)

SLACK_S: Final = 2.0  # for gossip to reach everyone
# In probe intervals. N nodes each probe one of the others: nobody meets a given one in m intervals with probability e^-m.
FIRST_PROBE_INTERVALS: Final = 16
SEED_PAUSE_S: Final = 1.5 * BACKOFF_MAX_S
# In probe intervals: one knock in five, at half to one and a half that pace, four of them lost or at somebody else's door.
REUNION_INTERVALS: Final = 30
# A second of one node, in bytes and wakes: several times the worst second of a sound mesh of 25, a fraction of what a storm takes.
DATAGRAM_BYTES_PER_S_MAX: Final = 256 * 1024
STREAM_BYTES_PER_S_MAX: Final = 1024 * 1024
TICKS_PER_S_MAX: Final = 500


class InvariantBroken(AssertionError):
    """Something that must never happen did, at this node."""

    def __init__(self, world: World, node: SimulatedNode, invariant: Invariant, what: str) -> None:
        super().__init__(f"{invariant}: at {world.now:.3f} s, {node.name}: {what}")
        self.invariant = invariant
        self.node = node


class Oracle:
    """Watches one world; `witness` is what the world is given."""

    def __init__(self) -> None:
        self.noticed_s: list[float] = []  # from each crash to each verdict about it
        self.crashed_s: dict[str, float] = {}
        self._left: dict[str, None] = {}
        self._goodbye_heard: dict[str, None] = {}
        self._cut_off: dict[str, None] = {}
        self._well_from_s: dict[str, float] = {}
        self._known: dict[tuple[str, str], tuple[int, int]] = {}
        self._returned_s: dict[tuple[str, str], float] = {}
        self._own: dict[str, int] = {}
        self._stamps: dict[tuple[str, str, str], int] = {}
        self._seen: dict[str, dict[str, MemberView]] = {}  # checked already, by observer
        self._spent: dict[str, tuple[float, int, int, int]] = {}

    # --- on every event ---

    def witness(self, world: World, node: SimulatedNode, event: MeshEvent | NodeEvent) -> None:
        """Judge one event. Raises `InvariantBroken`."""
        match event:
            case OffersChanged():
                self._saw_offers(world, node, event.name)
            case MemberLeft():
                self._goodbye_heard[event.name] = None
            case MemberDied():
                self._saw_death(world, node, event)
            case MemberJoined() | MemberReturned():
                self._saw_life(world, node, event.name)
            case IncarnationRaised():
                if event.incarnation <= self._own.get(node.name, 0):
                    raise InvariantBroken(
                        world, node, Invariant.MONOTONE, f"raised its incarnation from {self._own[node.name]} to {event.incarnation}"
                    )
                self._own[node.name] = event.incarnation
            case GarbageArrived():
                if event.answers or event.view_after != event.view_before:
                    raise InvariantBroken(world, node, Invariant.UNMOVED, f"took garbage for something: {event}")
            case NodeCrashed():
                self.crashed_s[node.name] = world.now
            case NodeStarted():
                self._started(world, node)
            case NodeCutOff():
                self._cut_off[node.name] = None
            case NodeReconnected():
                self._cut_off.pop(node.name, None)
                self._recover(world, node)
            case NodeResumed():
                self._recover(world, node)
            case NodeLeaving():
                self._left[node.name] = None
            case NodePaused():
                pass
            case _:
                pass

    def _started(self, world: World, node: SimulatedNode) -> None:
        self.crashed_s.pop(node.name, None)
        self._left.pop(node.name, None)
        self._goodbye_heard.pop(node.name, None)
        self._own[node.name] = 0
        self._spent.pop(node.name, None)
        self._seen.pop(node.name, None)
        for other in world.nodes:
            self._known.pop((node.name, other.name), None)
        for key in [key for key in self._stamps if key[0] == node.name]:
            del self._stamps[key]
        self._recover(world, node)

    def _recover(self, world: World, node: SimulatedNode) -> None:
        """For as long as a doubt from before may still last, `node` may be given up, and may give up others."""
        self._well_from_s[node.name] = world.now + longest_doubt_s(world) + SLACK_S

    def _well(self, world: World, node: SimulatedNode) -> bool:
        return (
            node.up
            and not node.paused
            and node.name not in self._cut_off
            and node.name not in self._left
            and world.now > self._well_from_s.get(node.name, 0.0)
        )

    def _saw_death(self, world: World, observer: SimulatedNode, event: MemberDied) -> None:
        crashed_s = self.crashed_s.get(event.name)
        if crashed_s is not None:
            self.noticed_s.append(world.now - crashed_s)
        elif self._well(world, world.node_named(event.name)) and self._well(world, observer):
            raise InvariantBroken(world, observer, Invariant.SPARED, f"gave up {event.name}, which lives; accused by {event.accuser}")

    def _saw_life(self, world: World, observer: SimulatedNode, name: str) -> None:
        member = world.view(observer).members[name]
        now = (member.generation, member.incarnation)
        before = self._known.get((observer.name, name))
        self._known[observer.name, name] = now
        # Whoever was stopped hears of several lives at once, and shows only the last.
        lately_s, self._returned_s[observer.name, name] = self._returned_s.get((observer.name, name)), world.now
        if before is not None and lately_s != world.now and not (now[0] > before[0] or now[1] > before[1]):
            raise InvariantBroken(
                world, observer, Invariant.NO_GHOST, f"saw {name} live again at generation and incarnation {now} after {before}"
            )

    def _saw_offers(self, world: World, observer: SimulatedNode, name: str) -> None:
        member = world.view(observer).members.get(name)
        for key, value in member.offers.items() if member is not None else ():
            stamp = stamp_of(value)
            if stamp is None:
                continue
            before = self._stamps.get((observer.name, name, key), 0)
            if stamp < before:
                raise InvariantBroken(
                    world, observer, Invariant.MONOTONE, f"went back from {before} to {stamp} in what {name} offers as {key}"
                )
            self._stamps[observer.name, name, key] = stamp

    # --- every second ---

    def check(self, world: World) -> None:
        """What holds at every moment, in full. Raises `InvariantBroken`."""
        overdue_s = world.now - notice_s(world)
        overdue = {name: crashed_s for name, crashed_s in self.crashed_s.items() if crashed_s < overdue_s}
        apart_s = world.now - reunion_s(world)
        reunited = {node.name: None for node in world.nodes if self._well(world, node) and self._well_from_s.get(node.name, 0.0) < apart_s}
        limbo_s = 2 * longest_doubt_s(world) + SLACK_S
        for observer in world.running():
            self._check_bounds(world, observer)
            well, settled = self._well(world, observer), observer.name in reunited
            informed = well and self._well_from_s.get(observer.name, 0.0) < overdue_s
            suspect_since_s = observer.clock_s - limbo_s
            seen = self._seen.setdefault(observer.name, {})
            for name, member in world.view(observer).members.items():
                if member is not seen.get(name):  # the view keeps what did not change
                    self._check_word(world, observer, member)
                    seen[name] = member
                if informed and overdue and name in overdue and member.usable:
                    raise InvariantBroken(
                        world, observer, Invariant.NOTICED, f"still sees {name} as living, which crashed at {overdue[name]:.3f} s"
                    )
                if member.status == "alive":
                    continue
                if settled and name in reunited and not member.usable:
                    raise InvariantBroken(world, observer, Invariant.TRUSTED, f"still sees {name} as {member.status}, which is well")
                if member.status == "suspect" and member.since_s < suspect_since_s and well:
                    raise InvariantBroken(
                        world, observer, Invariant.NO_LIMBO, f"suspects {name} for {observer.clock_s - member.since_s:.1f} s already"
                    )

    def _check_word(self, world: World, observer: SimulatedNode, member: MemberView) -> None:
        subject = world.node_named(member.name)
        now = (member.generation, member.incarnation)
        if subject.up and (subject.generation, subject.incarnation) < now:
            raise InvariantBroken(
                world,
                observer,
                Invariant.OWN_WORD,
                f"knows generation and incarnation {now} of {member.name}, which is at {(subject.generation, subject.incarnation)}",
            )
        before = self._known.get((observer.name, member.name))
        if before is not None and now < before:
            raise InvariantBroken(
                world, observer, Invariant.MONOTONE, f"went back from {before} to {now} in what it knows of {member.name}"
            )
        self._known[observer.name, member.name] = now

    def _check_bounds(self, world: World, node: SimulatedNode) -> None:
        mesh = node.mesh
        assert mesh is not None
        if mesh.rumours_queued > RUMOURS_MAX:
            raise InvariantBroken(world, node, Invariant.BOUNDED, f"{mesh.rumours_queued} rumours are queued")
        spent = (world.now, sum(mesh.counters.bytes_out.values()), mesh.counters.stream_bytes_out, node.ticks)
        at_s, datagram_bytes, stream_bytes, ticks = self._spent.get(node.name, (world.now, *spent[1:]))
        self._spent[node.name] = spent
        seconds = math.ceil(world.now - at_s) or 1
        for what, used, most in (
            ("bytes in datagrams", spent[1] - datagram_bytes, DATAGRAM_BYTES_PER_S_MAX),
            ("bytes in streams", spent[2] - stream_bytes, STREAM_BYTES_PER_S_MAX),
            ("wakes", spent[3] - ticks, TICKS_PER_S_MAX),
        ):
            if used > most * seconds:
                raise InvariantBroken(world, node, Invariant.BOUNDED, f"{used} {what} in {seconds} s")
        if mesh.exchanges_under_way > EXCHANGES_MAX:
            raise InvariantBroken(world, node, Invariant.BOUNDED, f"{mesh.exchanges_under_way} exchanges are under way")

    # --- in the end ---

    def check_agreement(self, world: World) -> None:
        """What holds once all troubles are over and had time to heal: everyone sees exactly those who run, with the same offers."""
        running = world.running()
        for observer in running:
            members = world.view(observer).members
            for node in running:
                if node.name not in self._left:
                    self._check_seen(world, observer, node, members.get(node.name))
            for name in self._left:
                # Who says goodbye while nobody hears it is dead to everyone; who was heard by one has left for all.
                expected = ("left",) if name in self._goodbye_heard else ("left", "dead")
                if name in members and members[name].status not in expected:
                    raise InvariantBroken(world, observer, Invariant.AGREEMENT, f"sees {name}, which left, as {members[name].status}")
            for name in self.crashed_s:
                if name in members and members[name].usable:
                    raise InvariantBroken(world, observer, Invariant.AGREEMENT, f"sees {name}, which is down, as {members[name].status}")

    def _check_seen(self, world: World, observer: SimulatedNode, node: SimulatedNode, member: MemberView | None) -> None:
        what = ""
        if member is None or member.status != "alive":
            what = f"sees {node.name}, which runs, as {member.status if member else 'unknown'}"
        elif member.generation != node.generation:
            what = f"sees an earlier life of {node.name}: {member.generation}, not {node.generation}"
        elif member.gossip != node.address:
            what = f"sees {node.name} at {member.gossip}, which is at {node.address}"
        elif dict(member.offers) != node.offers:
            what = f"sees {len(member.offers)} offers of {node.name}, which has {len(node.offers)}, or others"
        if what:
            raise InvariantBroken(world, observer, Invariant.AGREEMENT, what)


def longest_doubt_s(world: World) -> float:
    """The longest that a member may be suspected here."""
    return max(suspicion_bounds_s(profile, len(world.nodes))[1] for profile in world.profiles())


def notice_s(world: World) -> float:
    """By when a crash must be known to everyone.

    The first of them to probe it does so soon; then come the longest doubt and gossip. Who missed the gossip probes it within two rounds,
    and is then told by whom it tells its suspicion.
    """
    probe_interval_s = max(profile.probe_interval_s for profile in world.profiles())
    rounds_s = 2 * len(world.nodes) * probe_interval_s
    together_s = min(rounds_s, FIRST_PROBE_INTERVALS * probe_interval_s) + longest_doubt_s(world)
    return max(together_s, rounds_s) + SLACK_S


def reunion_s(world: World) -> float:
    """By when who lost each other have met again, once nothing is in the way: by a knock, or as a seed that is asked ever more seldom."""
    return max(REUNION_INTERVALS * max(profile.probe_interval_s for profile in world.profiles()), SEED_PAUSE_S)
