"""Who serves a model, who hosts an agent: read from the mesh's view, indexed once for each view."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from astromesh.fleet.offers import Offer, OfferedAgent, OfferedModel, read
from astromesh.fleet.versions import order
from maia.view import MemberView, MeshView

NOTHING = Offer()  # of a node that starts or goes: every other one says what it computes with
HAD_MAX = 512  # models and agents of one member that are remembered: more than it can offer at a time


@dataclass(frozen=True, slots=True)
class Index:
    """One view, turned around: by what is offered instead of by node. Members in the order of their names."""

    view: MeshView
    offers: Mapping[str, Offer]  # by wire name, this node and the departed included
    models: Mapping[str, tuple[MemberView, ...]]  # living peers that can answer for the model now
    agents: Mapping[str, tuple[MemberView, ...]]  # of its living hosts those with the highest version
    models_waking: Mapping[str, tuple[MemberView, ...]]  # living peers that would load it first
    models_missed: Mapping[str, tuple[MemberView, ...]]  # who offered it and is gone, or cannot answer now
    agents_missed: Mapping[str, tuple[MemberView, ...]]
    titles: Mapping[str, int]  # how many members share a human name


class Roster:
    def __init__(self, look: Callable[[], MeshView | None]) -> None:
        """`look` gives the present view: an attribute read, cheap enough for every request."""
        self._look = look
        self._index: Index | None = None
        # Offers by the bytes they came in: a view changes often, what a member offers seldom.
        self._known: dict[str, tuple[Mapping[str, bytes], Offer]] = {}
        # Who goes of its own accord takes its offers back first, slot by slot. What it had is missed all the same.
        self._had: dict[str, _Had] = {}

    def view(self) -> MeshView | None:
        """The mesh as it is seen now; None while it is off."""
        return self._look()

    def index(self) -> Index | None:
        """The present view, indexed; None while the mesh is off."""
        view = self._look()
        if view is None:
            return None
        if self._index is None or self._index.view is not view:
            self._index = self._build(view)
        return self._index

    def serving(self, model: str) -> tuple[MemberView, ...]:
        """Living peers that offer this model."""
        index = self.index()
        return index.models.get(model, ()) if index else ()

    def waking(self, model: str) -> tuple[MemberView, ...]:
        """Living peers that have this model and would have to load it first, or are at it."""
        index = self.index()
        return index.models_waking.get(model, ()) if index else ()

    def offered(self, member: MemberView, model: str) -> OfferedModel | None:
        """What a member says of one model."""
        index = self.index()
        offer = index.offers.get(member.name) if index else None
        return next((one for one in offer.models if one.name == model), None) if offer else None

    def hosting(self, agent: str) -> tuple[MemberView, ...]:
        """Living peers where this agent answers. Agents go by their `key`, here and below.

        Where peers have it in several versions, those with the highest: else it would depend on chance who answers.
        """
        index = self.index()
        return index.agents.get(agent, ()) if index else ()

    def holding(self, agent: str) -> tuple[tuple[MemberView, OfferedAgent], ...]:
        """Living peers that have this agent, in whatever state and version."""
        return tuple(self.agents().get(agent, ()))

    def missed_for_model(self, model: str) -> tuple[MemberView, ...]:
        """Peers that offered this model and are gone, or cannot answer for it now."""
        index = self.index()
        return index.models_missed.get(model, ()) if index else ()

    def missed_for_agent(self, agent: str) -> tuple[MemberView, ...]:
        """Peers that hosted this agent and are gone."""
        index = self.index()
        return index.agents_missed.get(agent, ()) if index else ()

    def label(self, name: str) -> str:
        """What people call the node: its human name, or its wire name where two share the human one."""
        index = self.index()
        member = index.view.members.get(name) if index else None
        if index is None or member is None:
            return name
        return member.title if index.titles[member.title] == 1 else name

    def models(self) -> dict[str, list[tuple[MemberView, OfferedModel]]]:
        """All models of living peers, by name."""
        found: dict[str, list[tuple[MemberView, OfferedModel]]] = {}
        index = self.index()
        for member in index.view.peers if index else ():
            if member.usable:
                for model in index.offers[member.name].models if index else ():
                    found.setdefault(model.name, []).append((member, model))
        return found

    def agents(self) -> dict[str, list[tuple[MemberView, OfferedAgent]]]:
        """All agents of living peers, by key, in whatever state and version."""
        found: dict[str, list[tuple[MemberView, OfferedAgent]]] = {}
        index = self.index()
        for member in index.view.peers if index else ():
            if member.usable:
                for agent in index.offers[member.name].agents if index else ():
                    found.setdefault(agent.key, []).append((member, agent))
        return found

    def _build(self, view: MeshView) -> Index:
        known: dict[str, tuple[Mapping[str, bytes], Offer]] = {}
        for name, member in view.members.items():
            seen = self._known.get(name)
            known[name] = seen if seen is not None and seen[0] is member.offers else (member.offers, read(member.offers))
        self._known = known
        self._had = {name: self._had.get(name) or _Had() for name in view.members}
        models: dict[str, list[MemberView]] = {}
        answering: dict[str, list[tuple[MemberView, str]]] = {}
        models_waking: dict[str, list[MemberView]] = {}
        models_missed: dict[str, list[MemberView]] = {}
        agents_missed: dict[str, list[MemberView]] = {}
        for member in view.peers:
            offer, had = known[member.name][1], self._had[member.name]
            there = member.usable and offer != NOTHING
            had.remember(offer)
            if not there:
                for name in had.models:
                    models_missed.setdefault(name, []).append(member)
                for key in had.agents:
                    agents_missed.setdefault(key, []).append(member)
                continue
            for model in offer.models:
                kind = models if offer.answers(model) else models_waking if offer.wakes(model) else models_missed
                kind.setdefault(model.name, []).append(member)
            for agent in offer.agents:
                if agent.status == "deployed":
                    answering.setdefault(agent.key, []).append((member, agent.version))
        return Index(
            view,
            {name: offer for name, (_, offer) in known.items()},
            {name: tuple(members) for name, members in models.items()},
            {name: _highest(hosts) for name, hosts in answering.items()},
            {name: tuple(members) for name, members in models_waking.items()},
            {name: tuple(members) for name, members in models_missed.items()},
            {name: tuple(members) for name, members in agents_missed.items()},
            Counter(member.title for member in view.members.values()),
        )


class _Had:
    """What a member offered, by name, the latest last."""

    def __init__(self) -> None:
        self.models: dict[str, None] = {}
        self.agents: dict[str, None] = {}

    def remember(self, offer: Offer) -> None:
        _renew(self.models, [model.name for model in offer.models])
        _renew(self.agents, [agent.key for agent in offer.agents if agent.status == "deployed"])


def _renew(known: dict[str, None], names: Iterable[str]) -> None:
    for name in names:
        known.pop(name, None)
        known[name] = None
    while len(known) > HAD_MAX:
        del known[next(iter(known))]


def _highest(hosts: list[tuple[MemberView, str]]) -> tuple[MemberView, ...]:
    highest = max(order(version) for _, version in hosts)
    return tuple(member for member, version in hosts if order(version) == highest)
