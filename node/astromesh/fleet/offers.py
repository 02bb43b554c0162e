"""What a node offers, as catalogue entries: fixed slots, each with a list, so that deploying and removing for ever fills nothing.

A value is a msgpack list of short lists. A reader takes what it understands and leaves the rest: nodes of other versions live in the same
mesh.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, cast, get_args

import msgpack

from astromesh.fleet import devices
from astromesh.fleet.devices import Devices
from astromesh.specs.resource import qualified

ModelState = Literal["loaded", "loading", "on_disk", "remote"]
# What a model may be asked for.
Capability = Literal["complete", "embed", "classify", "rerank"]
COMPLETES: tuple[Capability, ...] = ("complete",)
AgentStatus = Literal["draft", "deployed", "paused"]
# degraded: it answers, but not well; unknown: nobody has asked it yet, or ever will.
Health = Literal["healthy", "degraded", "down", "unknown"]

SLOT_BYTES_MAX = 900  # what a catalogue entry may hold on UDP
MODEL_SLOTS = 8
AGENT_SLOTS = 16
PROVIDER_SLOTS = 8
WARMTH_SLOTS = 8
WARMTH_BYTES_MAX = 512
PORTION_BYTES = 400  # of model names in one row; a server with more has several rows


@dataclass(frozen=True, slots=True)
class OfferedModel:
    """`identity` is the sha256 of the file for a local model, empty for one behind a model server.

    `kernel`: nodes of one identity and one kernel make the same greedy text. `tok_s`: what one stream was seen to make, None until then.
    `warmth`: which conversations need not be read again there, as `inference.warmth` has them.
    """

    name: str
    state: ModelState
    identity: str = ""
    capabilities: tuple[Capability, ...] = COMPLETES
    kernel: str = ""
    tok_s: float | None = None
    warmth: bytes = b""


@dataclass(frozen=True, slots=True)
class OfferedAgent:
    """Only a deployed one answers. `digest` is of its document: nodes that differ in it mean different agents by one name.

    `keeps`: something of its sessions is on that node, so they go on there.
    """

    name: str
    namespace: str = "default"
    version: str = ""
    status: AgentStatus = "deployed"
    digest: bytes = b""
    keeps: bool = False

    @property
    def key(self) -> str:
        return qualified(self.name, self.namespace)


@dataclass(frozen=True, slots=True)
class OfferedProvider:
    """A model server that a node calls; others use it through that node where it is `shared`. No address and no key travels."""

    name: str
    type: str
    models: tuple[str, ...]
    health: Health
    shared: bool
    breaker: str = ""  # closed, open or half_open; empty where there is none


@dataclass(frozen=True, slots=True)
class Offer:
    models: tuple[OfferedModel, ...] = ()
    agents: tuple[OfferedAgent, ...] = ()
    providers: tuple[OfferedProvider, ...] = ()
    devices: Devices | None = None

    def wakes(self, model: OfferedModel) -> bool:
        """Whether the node would load one of its models for whoever asks."""
        return model.state in ("on_disk", "loading")

    def answers(self, model: OfferedModel) -> bool:
        """Whether the node can answer for one of its models now."""
        if model.state == "loaded":
            return True
        behind = [provider for provider in self.providers if provider.shared and model.name in provider.models]
        return model.state == "remote" and (not behind or any(provider.health != "down" for provider in behind))


class OfferTooLarge(ValueError):
    """More than the catalogue has room for. Says what did not fit."""


def slots(offer: Offer) -> dict[str, bytes]:
    """The entries to write, every slot included: an empty one withdraws what it held. Raises `OfferTooLarge`."""
    models = [_row(model) for model in offer.models]
    warm = [[model.name, model.warmth] for model in offer.models if model.warmth][:WARMTH_SLOTS]
    agents = [_agent_row(agent) for agent in offer.agents]
    providers = [
        [one.name, one.type, list(models), one.health, one.shared, one.breaker]
        for one in offer.providers
        for models in _portions(one.models)
    ]
    return {
        **_fill("models", models, MODEL_SLOTS),
        **_fill("agents", agents, AGENT_SLOTS),
        **_fill("providers", providers, PROVIDER_SLOTS),
        **_fill("prefixes", warm, WARMTH_SLOTS),
        devices.SLOT: devices.write(offer.devices) if offer.devices is not None else b"",
    }


def read(entries: Mapping[str, bytes]) -> Offer:
    """What another node offers. Whatever is malformed is left out: it says nothing, so it offers nothing."""
    warm = dict(_warmth(entries))
    return Offer(
        models=tuple(model for row in _rows(entries, "models", MODEL_SLOTS) if (model := _model(row, warm)) is not None),
        agents=tuple(agent for row in _rows(entries, "agents", AGENT_SLOTS) if (agent := _agent(row)) is not None),
        providers=_joined(one for row in _rows(entries, "providers", PROVIDER_SLOTS) if (one := _provider(row)) is not None),
        devices=devices.read(entries),
    )


def _row(model: OfferedModel) -> list[Any]:
    """What most models can do is not said; figures stand behind what makes a model usable."""
    capabilities = [] if model.capabilities == COMPLETES else list(model.capabilities)
    return [model.name, model.state, bytes.fromhex(model.identity), capabilities, model.kernel, model.tok_s]


def mere_figures(key: str, before: bytes, after: bytes) -> bool:
    """Whether a slot's new value says nothing of what can be used and what cannot, so that it may wait a second with others."""
    if key == devices.SLOT or key.startswith("prefixes/"):
        return True
    if not key.startswith("models/"):
        return False
    return _usable({key: before}) == _usable({key: after})


def _usable(entries: Mapping[str, bytes]) -> list[Sequence[Any]]:
    return [row[:4] for row in _rows(entries, "models", MODEL_SLOTS)]


def _fill(family: str, rows: Iterable[Sequence[Any]], slot_count: int) -> dict[str, bytes]:
    packed: list[list[Sequence[Any]]] = [[]]
    for row in rows:
        if len(msgpack.packb([*packed[-1], row])) > SLOT_BYTES_MAX:
            if not packed[-1] or len(packed) == slot_count:
                raise OfferTooLarge(
                    f"{family}: {row[0]} does not fit; a node offers at most {slot_count} × {SLOT_BYTES_MAX} bytes of {family}"
                )
            packed.append([])
        packed[-1].append(row)
    return {f"{family}/{slot}": msgpack.packb(packed[slot]) if slot < len(packed) and packed[slot] else b"" for slot in range(slot_count)}


def _rows(entries: Mapping[str, bytes], family: str, slot_count: int) -> Iterable[Sequence[Any]]:
    for slot in range(slot_count):
        if value := entries.get(f"{family}/{slot}"):
            try:
                rows = msgpack.unpackb(value)
            except (ValueError, msgpack.UnpackException):
                continue
            if isinstance(rows, list):
                yield from (row for row in rows if isinstance(row, list))


def _model(row: Sequence[Any], warm: Mapping[str, bytes]) -> OfferedModel | None:
    match row:
        case [str(name), str(state), bytes(identity), *more] if name and state in get_args(ModelState):
            told, kernel, tok_s = [*more, *(None,) * 3][:3]
            known = tuple(one for one in told if one in get_args(Capability)) if isinstance(told, list) else ()
            return OfferedModel(
                name,
                cast("ModelState", state),
                identity.hex(),
                known or COMPLETES,
                kernel if isinstance(kernel, str) else "",
                float(tok_s) if type(tok_s) in (int, float) and tok_s > 0 else None,
                warm.get(name, b""),
            )
    return None


def _warmth(entries: Mapping[str, bytes]) -> Iterable[tuple[str, bytes]]:
    for row in _rows(entries, "prefixes", WARMTH_SLOTS):
        match row:
            case [str(name), bytes(warmth), *_] if len(warmth) <= WARMTH_BYTES_MAX:
                yield name, warmth


def _agent_row(agent: OfferedAgent) -> list[Any]:
    """What is usual is not said: a node may have hundreds."""
    row = [agent.name, agent.namespace, agent.version, agent.status if agent.status != "deployed" else "", agent.digest, agent.keeps]
    while len(row) > 3 and not row[-1]:
        row.pop()
    return row


def _agent(row: Sequence[Any]) -> OfferedAgent | None:
    match row:
        case [str(name), str(namespace), str(version), *more] if name:
            status, digest, keeps = [*more, *("", b"", False)[len(more) :]][:3]
            if status and status not in get_args(AgentStatus):
                return None  # whatever that is, it may not answer
            known = digest if isinstance(digest, bytes) else b""
            return OfferedAgent(name, namespace, version, status or "deployed", known, keeps is True)
    return None


def _provider(row: Sequence[Any]) -> OfferedProvider | None:
    match row:
        case [str(name), str(kind), list(models), str(health), bool(shared), str(breaker), *_] if name:
            known = cast("Health", health) if health in get_args(Health) else "unknown"
            return OfferedProvider(name, kind, tuple(model for model in models if isinstance(model, str)), known, shared, breaker)
    return None


def _portions(models: Sequence[str]) -> Iterable[Sequence[str]]:
    """In order, each small enough for a row; one at least."""
    portion: list[str] = []
    size = 0
    for model in models:
        size += len(model.encode()) + 5
        if portion and size > PORTION_BYTES:
            yield portion
            portion, size = [], len(model.encode()) + 5
        portion.append(model)
    yield portion


def _joined(rows: Iterable[OfferedProvider]) -> tuple[OfferedProvider, ...]:
    """Rows of one name as one."""
    found: dict[str, OfferedProvider] = {}
    for row in rows:
        before = found.get(row.name)
        found[row.name] = row if before is None else replace(before, models=(*before.models, *row.models))
    return tuple(found.values())
