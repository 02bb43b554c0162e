"""Views of a mesh, as its own thread would publish them."""

from __future__ import annotations

from collections.abc import Iterable
from types import MappingProxyType

from astromesh.fleet.devices import Devices
from astromesh.fleet.offers import COMPLETES, Capability, ModelState, Offer, OfferedAgent, OfferedModel, OfferedProvider, slots
from maia.config import Address
from maia.view import LoadSeen, MemberView, MeshView, Status

HERE = "here-000000"


def member(
    name: str,
    *,
    title: str = "",
    status: Status = "alive",
    models: Iterable[str | tuple[str, ModelState]] = (),
    capabilities: tuple[Capability, ...] = COMPLETES,
    identity: str = "",
    agents: Iterable[str | OfferedAgent] = (),
    link: Address | None = None,
    api: str = "",
    providers: Iterable[OfferedProvider] = (),
    devices: Devices | None = None,
    load: LoadSeen | None = None,
) -> MemberView:
    """`name` on the wire; `models` are loaded unless their state is given."""
    offered = (model if isinstance(model, tuple) else (model, "loaded") for model in models)
    offer = Offer(
        tuple(OfferedModel(name, state, identity, capabilities) for name, state in offered),
        tuple(OfferedAgent(agent) if isinstance(agent, str) else agent for agent in agents),
        tuple(providers),
        devices,
    )
    return MemberView(
        name=name,
        title=title or name.rpartition("-")[0] or name,
        node_id=name.rpartition("-")[2],
        status=status,
        incarnation=1,
        generation=1,
        gossip=Address("127.0.0.1", 7946),
        link=link,
        api=api,
        role="full",
        zone="",
        since_s=0.0,
        heard_s=0.0,
        offers=MappingProxyType(slots(offer)),
        load=load,
    )


def mesh_view(*others: MemberView, me: MemberView | None = None, version: int = 1) -> MeshView:
    """This node and the others, in the order of their names."""
    me = me or member(HERE)
    members = {one.name: one for one in sorted((me, *others), key=lambda one: one.name)}
    return MeshView(me.name, MappingProxyType(members), version)
