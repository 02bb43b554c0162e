"""What a mesh is told before it starts: addresses, profiles and limits. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, NamedTuple, Protocol

from maia.errors import MisuseError
from maia.identity import Signer, node_id_of
from maia.keyring import Keyring

NAME_PATTERN: Final = re.compile(r"[A-Za-z0-9.-]{1,63}")
# Half of u32: what is left above it is room for the answer to a forged incarnation (see wire.codec), so a forgery cannot evict a node.
INCARNATION_MAX: Final = 2**31
LOAD_BYTES_MAX: Final = 24  # it travels with every ack, the hottest message of all
GENERATION_MAX: Final = 2**53  # a whole number that every JSON reader keeps exact


class Address(NamedTuple):
    """A host, as an IP literal, and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Random(Protocol):
    """What the pure rooms need of `random.Random`; they are handed one and never make their own."""

    def random(self) -> float: ...
    def randrange(self, stop: int, /) -> int: ...
    def shuffle(self, items: list[Any], /) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """How fast a node probes, and how long it may be suspected before it is given up."""

    name: str
    probe_timeout_s: float
    probe_interval_s: float
    gossip_interval_s: float
    gossip_nodes: int
    indirect_checks: int
    push_pull_interval_s: float
    gossip_to_dead_s: float
    suspicion_multiplier: int
    # A flat minimum and maximum instead of memberlist's multiplier · log10(n) · interval: the logarithm alone costs a second at n = 100.
    suspicion_flat_s: tuple[float, float] | None = None
    suspicion_pair_s: float = 0.0  # the flat minimum of a mesh of two, where nobody can confirm and nobody can relay


LAN_FAST: Final = Profile(
    name="lan-fast",
    probe_timeout_s=0.08,
    probe_interval_s=0.2,
    gossip_interval_s=0.05,
    gossip_nodes=3,
    indirect_checks=3,
    push_pull_interval_s=60.0,
    gossip_to_dead_s=30.0,
    suspicion_multiplier=4,
    suspicion_flat_s=(1.0, 6.0),
    suspicion_pair_s=2.0,
)
LAN: Final = Profile(
    name="lan",
    probe_timeout_s=0.5,
    probe_interval_s=1.0,
    gossip_interval_s=0.2,
    gossip_nodes=3,
    indirect_checks=3,
    push_pull_interval_s=30.0,
    gossip_to_dead_s=30.0,
    suspicion_multiplier=4,
)
WAN: Final = Profile(
    name="wan",
    probe_timeout_s=3.0,
    probe_interval_s=5.0,
    gossip_interval_s=0.5,
    gossip_nodes=4,
    indirect_checks=3,
    push_pull_interval_s=60.0,
    gossip_to_dead_s=60.0,
    suspicion_multiplier=6,
)
PROFILES: Final = MappingProxyType({profile.name: profile for profile in (LAN_FAST, LAN, WAN)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds that a large site may want to move; every other bound is a constant beside what it bounds."""

    members_max: int = 4096  # living and remembered; an alive message beyond it is refused and counted
    departed_max: int = 512  # dead and left ones remembered; the longest gone is forgotten first
    departed_kept_s: float = 86_400.0  # as long as Serf keeps its tombstones
    seeds_max: int = 64
    streams_max: int = 128  # TCP connections at once, both directions; memberlist's own bound for push/pulls


@dataclass(frozen=True, slots=True, kw_only=True)
class MeshConfig:
    """Who this node is and how it behaves in the mesh.

    `incarnation` is the one to start from: the persisted one + 1, or 1. `generation` is max(persisted + 1, start time).
    Raises `MisuseError` when a value cannot travel on the wire.
    """

    name: str
    title: str
    signer: Signer
    generation: int
    gossip: Address
    incarnation: int = 1
    api: str = ""
    link: Address | None = None
    role: str = ""
    zone: str = ""
    cluster_id: str = ""
    keyring: Keyring | None = None  # None: gossip in the clear, which belongs on loopback
    profile: Profile = LAN_FAST
    alone: bool = False  # told to leave: deaf to everybody until it is told to join
    serf: bool = False  # members without our tags (stock Serf agents) belong here too
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if NAME_PATTERN.fullmatch(self.name) is None:
            raise MisuseError(f"mesh name {self.name!r} must be 1 to 63 of A-Z a-z 0-9 . -")
        if not 0 < self.incarnation < INCARNATION_MAX:
            raise MisuseError(f"incarnation {self.incarnation} of {self.name} must lie between 1 and {INCARNATION_MAX - 1}")
        if not 0 <= self.generation <= GENERATION_MAX:
            raise MisuseError(f"generation {self.generation} of {self.name} must lie between 0 and {GENERATION_MAX}")

    @property
    def node_id(self) -> str:
        return node_id_of(self.signer.public_key)

    def admits(self, address: Address) -> bool:
        """May this node be sent there by a message?

        One that keeps to loopback is not talked into reaching out, and no other one into talking to what listens on its own loopback.
        """
        return is_loopback(self.gossip.host) == is_loopback(address.host)


def is_loopback(host: str) -> bool:
    """Of an IP literal."""
    return host.startswith("127.") or host == "::1"
