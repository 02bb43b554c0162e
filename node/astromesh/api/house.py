"""What the doors open to: the parts of a running node that a request may reach."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from aiohttp import web

from astromesh.fleet.devices import Devices
from astromesh.fleet.keyrings import GivenKey, KeyCensus, KeyChange, KeyChoice, NamedKey
from astromesh.fleet.loads import Load
from astromesh.fleet.offers import OfferedAgent
from astromesh.fleet.roster import Roster
from astromesh.runtime.agent import AgentChange
from astromesh.runtime.encodings import Encoder
from astromesh.runtime.engine import AgentRuntime
from astromesh.runtime.health import ProviderHealth
from astromesh.runtime.models import Models
from astromesh.telemetry.metrics import Metrics
from astromesh.tools.toolbox import Toolbox
from maia.view import MeshEvent


class KeyControl(Protocol):
    """The keys of the gossip, over all living members. Every method raises `AstromeshError`."""

    async def list(self) -> KeyCensus | None:
        """None where the mesh gossips in the clear."""
        ...

    async def install(self, choice: KeyChoice) -> KeyChange: ...

    async def use(self, choice: NamedKey | GivenKey, *, force: bool) -> KeyChange: ...

    async def remove(self, choice: NamedKey | GivenKey, *, force: bool) -> KeyChange: ...


@dataclass(frozen=True, slots=True)
class PullProgress:
    """How far a pull is. `rate` in bytes a second of what is going on now; None where it cannot be told."""

    done: int
    total: int  # 0 where nobody tells
    what: str
    rate: float | None
    eta_s: float | None


class ModelControl(Protocol):
    """The models of this node, and of no other. Every method raises `AstromeshError`."""

    def pull(self, source: str, *, name: str | None, sha256: str) -> AsyncGenerator[PullProgress | dict[str, Any], None]:
        """Progress as it is made, then what was installed. Closing it ends the pull unless somebody else waits for it, too."""
        ...

    async def show(self, name: str) -> dict[str, Any] | None:
        """What is known of a model that is stored here; None where it is not."""
        ...

    async def plan(self, name: str, *, context: int | None = None) -> dict[str, Any]:
        """What loading it would take, and whether it fits."""
        ...

    def load(self, name: str) -> dict[str, Any]:
        """Begins to; its row."""
        ...

    async def unload(self, name: str, *, force: bool) -> dict[str, Any]:
        """Raises `ModelBusy` while somebody reads from it."""
        ...

    async def remove(self, name: str, *, force: bool) -> None:
        """Raises `ModelBusy` while it is loaded."""
        ...


class AgentControl(Protocol):
    """What becomes of agents, on this node and on all that hold them. Every method raises `AstromeshError`."""

    @property
    def offered(self) -> Sequence[OfferedAgent]:
        """What the mesh is told of this node's agents."""
        ...

    async def create(self, document: Mapping[str, Any], *, namespace: str | None) -> dict[str, Any]:
        """A draft on this node."""
        ...

    async def change(self, change: AgentChange) -> dict[str, Any]:
        """What became of it, and on which nodes it did not."""
        ...

    async def document(self, name: str, namespace: str, *, draft: bool) -> Mapping[str, Any]:
        """From here, or from a node that holds it; secrets masked."""
        ...


class MeshControl(Protocol):
    """What a door may ask of the mesh beyond reading its view."""

    @property
    def keys(self) -> KeyControl: ...

    async def join(self, address: str) -> int:
        """Joins through a seed; how many other members are known then. Raises `AstromeshError`."""
        ...

    async def leave(self) -> None:
        """Says goodbye and stays alone."""
        ...

    def warnings(self) -> tuple[str, ...]:
        """What somebody should do about the mesh now, in sentences."""
        ...

    def clock(self) -> float:
        """Now, on the clock of the view's times."""
        ...

    def listen(self, hear: Callable[[MeshEvent], None]) -> Callable[[], None]:
        """Calls `hear` for every event of the mesh, once the view shows it. Returns how to end that."""
        ...

    def link(self, name: str) -> Mapping[str, Any]:
        """The state of the link to a member: `{state, rtt_ms}`."""
        ...


@dataclass(slots=True)
class House:
    """One node, as its doors see it."""

    node: str  # its label
    version: str
    started_at: float  # seconds since the epoch
    runtime: AgentRuntime
    models: Models
    encoder: Encoder
    roster: Roster
    metrics: Metrics
    mesh: MeshControl | None  # None: the mesh is off
    model_rows: Callable[[], list[dict[str, Any]]]  # this node's own models: `{name, state, identity, created, progress?, error?}`
    shelf: ModelControl
    lifecycle: AgentControl
    reload: Callable[[], Awaitable[Mapping[str, Any]]]  # reads the files again; raises `ReloadRefused`
    load: Callable[[], Load]  # how busy this node is
    devices: Callable[[], Devices]  # what it computes with
    engine: Callable[[], Awaitable[Mapping[str, Any]]]  # `inference.engines.status_document`
    health: ProviderHealth  # of the model servers that it calls
    hosts_allowed: frozenset[str]  # names under which this node may be addressed, besides loopback
    tools: Toolbox = field(default_factory=lambda: Toolbox(()))  # the built-in ones, for whoever calls one without an agent
    warnings: tuple[str, ...] = ()  # of the configuration, as a person reads them
    not_ready: list[str] = field(default_factory=list)  # reasons; empty once everything is open
    draining: bool = False  # on its way out: what is under way ends, nothing new begins


HOUSE = web.AppKey("house", House)
