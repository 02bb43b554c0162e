"""What must never happen, checked on every event, and what must hold in the end.

While nothing is wrong with a node, nobody may give it up. Incarnations never fall. Nobody who was given up lives again without a higher
incarnation or generation. Who crashed is given up by everyone in time. Once all is mended, everyone sees the same.
"""

from __future__ import annotations

import math
from typing import Final

from maia.membership.rumours import RUMOURS_MAX
from maia.membership.suspicion import suspicion_bounds_s
from maia.sim.world import (
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
from maia.view import MemberDied, MemberJoined, MemberReturned, MeshEvent

SLACK_S: Final = 2.0  # for gossip to reach everyone


class InvariantBroken(AssertionError):
    """Something that must never happen did, at this node."""

    def __init__(self, world: World, node: SimulatedNode, what: str) -> None:
        super().__init__(f"at {world.now:.3f} s, {node.name}: {what}")
        self.node = node


class Oracle:
    """Watches one world; `witness` is what the world is given. It sees every trouble, and so knows who is excused."""

    def __init__(self) -> None:
        self.noticed_s: list[float] = []  # from each crash to each verdict about it
        self.crashed_s: dict[str, float] = {}
        self._left: dict[str, None] = {}
        self._excused_s: dict[str, float] = {}
        self._known: dict[tuple[str, str], tuple[int, int]] = {}

    def witness(self, world: World, node: SimulatedNode, event: MeshEvent | NodeEvent) -> None:
        """Judge one event. Raises `InvariantBroken`."""
        match event:
            case MemberDied():
                self._saw_death(world, node, event)
            case MemberJoined() | MemberReturned():
                self._saw_life(world, node, event.name)
            case NodeCrashed():
                self.crashed_s[node.name] = world.now
                self._excused_s[node.name] = math.inf
            case NodeStarted():
                self.crashed_s.pop(node.name, None)
                self._left.pop(node.name, None)
                self._excuse(world, node)
                for other in world.nodes:
                    self._known.pop((node.name, other.name), None)
            case NodePaused() | NodeCutOff():
                self._excused_s[node.name] = math.inf
            case NodeResumed() | NodeReconnected():
                if node.up:
                    self._excuse(world, node)
            case NodeLeaving():
                self._left[node.name] = None
                self._excused_s[node.name] = math.inf
            case _:
                pass

    def _excuse(self, world: World, node: SimulatedNode) -> None:
        """`node` may be given up, and may give up others, for as long as a doubt from before may still last."""
        self._excused_s[node.name] = world.now + longest_doubt_s(world) + SLACK_S

    def _excused(self, world: World, name: str) -> bool:
        return world.now <= self._excused_s.get(name, 0.0)

    def _saw_death(self, world: World, observer: SimulatedNode, event: MemberDied) -> None:
        crashed_s = self.crashed_s.get(event.name)
        if crashed_s is not None:
            self.noticed_s.append(world.now - crashed_s)
            return
        if self._excused(world, event.name) or self._excused(world, observer.name):
            return
        raise InvariantBroken(world, observer, f"gave up {event.name}, which lives; accused by {event.accuser}")

    def _saw_life(self, world: World, observer: SimulatedNode, name: str) -> None:
        member = world.view(observer).members[name]
        now = (member.generation, member.incarnation)
        before = self._known.get((observer.name, name))
        self._known[observer.name, name] = now
        if before is not None and not (now[0] > before[0] or now[1] > before[1]):
            raise InvariantBroken(world, observer, f"saw {name} live again at generation and incarnation {now} after {before}")

    def check(self, world: World) -> None:
        """What holds at every moment, in full. Raises `InvariantBroken`."""
        overdue = [name for name, crashed_s in self.crashed_s.items() if world.now > crashed_s + notice_s(world)]
        for observer in world.running():
            mesh = observer.mesh
            assert mesh is not None
            if mesh.rumours_queued > RUMOURS_MAX:
                raise InvariantBroken(world, observer, f"{mesh.rumours_queued} rumours are queued")
            for name, member in world.view(observer).members.items():
                subject = world.node_named(name)
                if subject.mesh is not None and member.incarnation > subject.incarnation and member.generation == subject.generation:
                    raise InvariantBroken(
                        world, observer, f"knows incarnation {member.incarnation} of {name}, which is at {subject.incarnation}"
                    )
            if self._excused(world, observer.name):
                continue
            for name in overdue:
                member_or_none = world.view(observer).members.get(name)
                if member_or_none is not None and member_or_none.usable:
                    raise InvariantBroken(world, observer, f"still sees {name} as living, which crashed at {self.crashed_s[name]:.3f} s")

    def check_agreement(self, world: World) -> None:
        """What holds once all troubles are over and had time to heal: everyone sees exactly those who run, with the same offers."""
        running = world.running()
        for observer in running:
            members = world.view(observer).members
            for node in running:
                member = members.get(node.name)
                if member is None or member.status != "alive":
                    raise InvariantBroken(world, observer, f"sees {node.name}, which runs, as {member.status if member else 'unknown'}")
                if member.generation != node.generation:
                    raise InvariantBroken(
                        world, observer, f"sees an earlier life of {node.name}: {member.generation}, not {node.generation}"
                    )
                if dict(member.offers) != node.offers:
                    raise InvariantBroken(world, observer, f"sees {len(member.offers)} offers of {node.name}, which has {len(node.offers)}")
            for name in self._left:
                if name in members and members[name].status != "left":
                    raise InvariantBroken(world, observer, f"sees {name}, which left, as {members[name].status}")


def longest_doubt_s(world: World) -> float:
    """The longest that a member may be suspected here."""
    return suspicion_bounds_s(world.profile, len(world.nodes))[1]


def notice_s(world: World) -> float:
    """By when a crash must be known to everyone: two rounds of probing, the longest doubt, and what gossip takes."""
    return 2 * len(world.nodes) * world.profile.probe_interval_s + longest_doubt_s(world) + SLACK_S
