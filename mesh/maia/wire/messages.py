"""The messages of memberlist as frozen values, with the few keys that Maia adds to them.

A key that Maia adds travels only point to point: memberlist ignores unknown keys, and drops them when it relays.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from maia.config import Address

# Protocol 1 to 5 and speaking 2, delegate 2 to 5 and speaking 4: what Serf 0.8 to 0.10 sends. Fewer than six bytes panic stock agents.
VSN: Final = bytes((1, 5, 2, 2, 5, 4))

PRIVATE_FROM: Final = 0x80  # first bytes of user messages: Serf's are below

STATE_ALIVE: Final = 0
STATE_SUSPECT: Final = 1
STATE_DEAD: Final = 2
STATE_LEFT: Final = 3


@dataclass(frozen=True, slots=True)
class Ping:
    """Are you there? `node` is who is meant; another one ignores it, so that a reused address does not answer for the dead."""

    sequence: int
    node: str = ""
    source: Address | None = None
    source_node: str = ""


@dataclass(frozen=True, slots=True)
class IndirectPing:
    """Ask `node` for me. `timeout_ms` is ours: how long the requester waits for a direct answer; 0 from a stock agent."""

    sequence: int
    target: Address
    node: str
    wants_nack: bool = False
    source: Address | None = None
    source_node: str = ""
    timeout_ms: int = 0


@dataclass(frozen=True, slots=True)
class Ack:
    """I am. `root` is ours: the hash of the sender's catalogue of the living, eight bytes, empty from a stock agent.

    So is `load`: how busy the sender is; empty where it says nothing, None where what it says cannot be read.
    """

    sequence: int
    payload: bytes = b""
    root: bytes = b""
    load: bytes | None = b""


@dataclass(frozen=True, slots=True)
class Nack:
    """I asked, and nobody answered me either."""

    sequence: int


@dataclass(frozen=True, slots=True)
class Suspect:
    incarnation: int
    node: str
    accuser: str


@dataclass(frozen=True, slots=True)
class Alive:
    incarnation: int
    node: str
    address: Address
    meta: bytes = b""
    vsn: bytes = VSN


@dataclass(frozen=True, slots=True)
class Dead:
    """`accuser` equal to `node` means that it left on purpose."""

    incarnation: int
    node: str
    accuser: str


@dataclass(frozen=True, slots=True)
class User:
    """Opaque bytes for the layer above: Serf's (`wire.serf`), and from `PRIVATE_FROM` on Maia's (`wire.offers`)."""

    body: bytes


Message = Ping | IndirectPing | Ack | Nack | Suspect | Alive | Dead | User


@dataclass(frozen=True, slots=True)
class NodeState:
    """One record of a push/pull: an alive message and what its sender thinks of it."""

    alive: Alive
    state: int


@dataclass(frozen=True, slots=True)
class PushPull:
    """Everything that one side knows, for the other to merge.

    `offers` (`wire.offers`) and `keys` are ours, and empty from a stock agent: the fingerprints of its sender's keys, primary first.
    """

    nodes: tuple[NodeState, ...]
    join: bool
    user_state: bytes = b""
    offers: bytes = b""
    keys: bytes = b""
