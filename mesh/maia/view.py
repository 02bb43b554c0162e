"""What the rest of a node may see of the mesh: immutable values, swapped whole.

Pure. The mesh's own thread publishes a new `MeshView` when something changed; readers on other threads take one reference and keep it for
as long as they need it. Nothing here is ever modified.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from maia.config import Address

Status = Literal["alive", "suspect", "dead", "left"]


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
    heard_s: float  # when something last proved that it lives, same clock
    offers: Mapping[str, bytes]  # its catalogue entries; kept for a while after a death, so that "gone" differs from "never offered"

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


EMPTY_OFFERS: Mapping[str, bytes] = MappingProxyType({})
