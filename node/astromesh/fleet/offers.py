"""What a node offers, as catalogue entries: fixed slots, each with a list, so that deploying and removing for ever fills nothing.

A value is a msgpack list of short lists. A reader takes what it understands and leaves the rest: nodes of other versions live in the same
mesh.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

import msgpack

ModelState = Literal["loaded", "loading", "on_disk", "remote"]

SLOT_BYTES_MAX = 900  # what a catalogue entry may hold on UDP
MODEL_SLOTS = 8
AGENT_SLOTS = 16


@dataclass(frozen=True, slots=True)
class OfferedModel:
    """`identity` is the sha256 of the file for a local model, empty for one behind a model server."""

    name: str
    state: ModelState
    identity: str = ""


@dataclass(frozen=True, slots=True)
class OfferedAgent:
    name: str
    namespace: str = "default"
    version: str = ""


@dataclass(frozen=True, slots=True)
class Offer:
    models: tuple[OfferedModel, ...] = ()
    agents: tuple[OfferedAgent, ...] = ()


class OfferTooLarge(ValueError):
    """More than the catalogue has room for. Says what did not fit."""


def slots(offer: Offer) -> dict[str, bytes]:
    """The entries to write, every slot included: an empty one withdraws what it held. Raises `OfferTooLarge`."""
    models = [[model.name, model.state, bytes.fromhex(model.identity)] for model in offer.models]
    agents = [[agent.name, agent.namespace, agent.version] for agent in offer.agents]
    return {**_fill("models", models, MODEL_SLOTS), **_fill("agents", agents, AGENT_SLOTS)}


def read(entries: Mapping[str, bytes]) -> Offer:
    """What another node offers. Whatever is malformed is left out: it says nothing, so it offers nothing."""
    return Offer(
        models=tuple(model for row in _rows(entries, "models", MODEL_SLOTS) if (model := _model(row)) is not None),
        agents=tuple(agent for row in _rows(entries, "agents", AGENT_SLOTS) if (agent := _agent(row)) is not None),
    )


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


def _model(row: Sequence[Any]) -> OfferedModel | None:
    match row:
        case [str(name), str(state), bytes(identity), *_] if name and state in get_args(ModelState):
            return OfferedModel(name, cast("ModelState", state), identity.hex())
    return None


def _agent(row: Sequence[Any]) -> OfferedAgent | None:
    match row:
        case [str(name), str(namespace), str(version), *_] if name:
            return OfferedAgent(name, namespace, version)
    return None
