"""How many layers of a model go to which card, and whether it fits, with the figures. Pure: a header and an inventory in, a plan out.

llama.cpp offloads from the end: one layer is the output, the next is the last repeating one, and so on. What is left of it, the embeddings
and the rest of the cache stay in the machine's memory. Cards take consecutive layers in the engine's order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from astromesh.inference.devices import Accelerator, Inventory
from astromesh.inference.gguf import GgufHeader
from astromesh.inference.stream import CHUNK_TOKENS

# Between two streams the pool has one context to spare, so that one request without `max_tokens` (it may fill a whole context) does not
# keep all others waiting. More would be paid for in memory by everybody.
CONTEXTS_OF_CELLS = 2

CACHE_VALUE_BYTES = 2  # 16-bit floats, of either kind
LOGIT_BYTES = 4

# What a card's driver and its libraries take for themselves before the first weight: 300 to 500 MB with CUDA.
CARD_RESERVE_BYTES = 512 * 1024 * 1024
# Of a card's free memory. Other programs take some, too, and allocations are rounded up.
CARD_SHARE = 0.95

_SHARES = 32  # steps in which the cards are filled evenly


@dataclass(frozen=True, slots=True)
class Part:
    """What one card takes. `layers` counts the output, too."""

    device: Accelerator
    layers: int
    needed_bytes: int

    def as_json(self) -> dict[str, Any]:
        return {
            "id": self.device.id,
            "name": self.device.name,
            "engine": self.device.engine,
            "layers": self.layers,
            "needed_bytes": self.needed_bytes,
            "free_bytes": self.device.free_bytes,
        }


@dataclass(frozen=True, slots=True)
class Placement:
    """A plan. `gpu_layers` and `tensor_split` are what llama.cpp takes; `parts` are all cards that it could use, in its order."""

    gpu_layers: int
    layers: int  # with the output
    parts: tuple[Part, ...]
    host_needed_bytes: int
    host_free_bytes: int | None
    weights_bytes: int
    cache_bytes: int
    fits: bool | None  # None: some memory is not told
    note: str = ""

    @property
    def tensor_split(self) -> tuple[int, ...]:
        return tuple(part.layers for part in self.parts) if self.gpu_layers else ()

    @property
    def needed_bytes(self) -> int:
        return self.host_needed_bytes + sum(part.needed_bytes for part in self.parts)

    def as_json(self) -> dict[str, Any]:
        return {
            "fits": self.fits,
            "gpu_layers": self.gpu_layers,
            "layers": self.layers,
            "tensor_split": list(self.tensor_split),
            "weights_bytes": self.weights_bytes,
            "cache_bytes": self.cache_bytes,
            "host": {"needed_bytes": self.host_needed_bytes, "free_bytes": self.host_free_bytes},
            "devices": [part.as_json() for part in self.parts],
            "note": self.note or None,
        }


def cells(context: int, parallel: int) -> int:
    """Tokens that the cache of a model has room for."""
    return context * min(parallel, CONTEXTS_OF_CELLS)


def plan_placement(header: GgufHeader, devices: Inventory, *, context: int, parallel: int, gpu_layers: int | None = None) -> Placement:
    """The most layers on cards that their free memory takes, on as few cards as will do, else evenly over all.

    `gpu_layers`: a number that somebody chose instead; a negative one is all of them.
    """
    model = _Demand.of(header, context=context, parallel=parallel)
    cards = devices.usable
    chosen = None if gpu_layers is None else len(model.slots) if gpu_layers < 0 else min(gpu_layers, len(model.slots))
    if not cards or chosen == 0:
        return _placed(model, cards, (0,) * len(cards), devices, note=_why_none(devices) if chosen != 0 else "")
    if chosen is None and any(card.free_bytes is None for card in cards):
        chosen = len(model.slots)
    counts = range(len(model.slots), 0, -1) if chosen is None else (chosen,)
    for count in counts:
        if (split := _split(model, cards, count)) is not None:
            return _placed(model, cards, split, devices)
    if chosen is None:
        return _placed(model, cards, (0,) * len(cards), devices, note="no card has room for even one layer")
    return _placed(model, cards, _even(len(cards), chosen), devices)


@dataclass(frozen=True, slots=True)
class _Demand:
    """What each slot takes where it is: the repeating layers with their share of the cache, and at the end the output."""

    slots: tuple[int, ...]
    weights_bytes: int
    cache_bytes: int
    embeddings_bytes: int
    output_bytes: int
    output_copied: bool  # on a card the output is a copy of the embeddings; in the machine's memory it is the embeddings themselves
    compute_bytes: int

    @classmethod
    def of(cls, header: GgufHeader, *, context: int, parallel: int) -> _Demand:
        weights = header.weights
        cache = header.cache_values * CACHE_VALUE_BYTES * cells(min(context, header.context or context), parallel)
        each = -(-cache // len(weights.layers)) if weights.layers else 0
        width = max(CHUNK_TOKENS, parallel)
        return cls(
            slots=(*(size + each for size in weights.layers), weights.output_bytes),
            weights_bytes=sum(weights.layers) + weights.other_bytes + (0 if weights.output_copied else weights.output_bytes),
            cache_bytes=cache,
            embeddings_bytes=weights.other_bytes,
            output_bytes=weights.output_bytes,
            output_copied=weights.output_copied,
            # Measured with SmolLM2: 11.5 MiB for 60 tokens of chances, and next to nothing for all else.
            compute_bytes=(width + parallel) * header.vocabulary * LOGIT_BYTES,
        )

    def on_card(self, first: int, last: int) -> int:
        """Bytes of the slots from `first` to before `last` on one card."""
        return sum(self.slots[first:last]) + self.compute_bytes + CARD_RESERVE_BYTES if last > first else 0

    def on_host(self, offloaded: int) -> int:
        kept = len(self.slots) - offloaded
        output = self.output_bytes if offloaded == 0 and not self.output_copied else 0
        return sum(self.slots[: min(kept, len(self.slots) - 1)]) + output + self.embeddings_bytes + self.compute_bytes


def _split(model: _Demand, cards: Sequence[Accelerator], count: int) -> tuple[int, ...] | None:
    """Layers for each card, `count` together. None where they do not fit."""
    rooms = [None if card.free_bytes is None else int(card.free_bytes * CARD_SHARE) for card in cards]
    first = len(model.slots) - count
    whole = model.on_card(first, len(model.slots))
    alone = [place for place, room in enumerate(rooms) if room is None or room >= whole]
    if alone:
        # On one card nothing has to travel. The emptiest, so that the next model finds room, too; of equal ones the first.
        best = max(alone, key=lambda place: (rooms[place] or 0, -place))
        return tuple(count if place == best else 0 for place in range(len(cards)))
    for share in range(1, _SHARES + 1):
        if (filled := _filled(model, [None if room is None else room * share // _SHARES for room in rooms], first)) is not None:
            return filled
    return None


def _filled(model: _Demand, rooms: Sequence[int | None], first: int) -> tuple[int, ...] | None:
    """One card after the other, each as full as its room allows."""
    split: list[int] = []
    for room in rooms:
        last = len(model.slots)
        if room is not None:
            last = first
            while last < len(model.slots) and model.on_card(first, last + 1) <= room:
                last += 1
        split.append(last - first)
        first = last
    return tuple(split) if first == len(model.slots) else None


def _even(cards: int, count: int) -> tuple[int, ...]:
    return tuple(count * (place + 1) // cards - count * place // cards for place in range(cards))


def _placed(model: _Demand, cards: Sequence[Accelerator], split: Sequence[int], devices: Inventory, *, note: str = "") -> Placement:
    offloaded = sum(split)
    parts: list[Part] = []
    first = len(model.slots) - offloaded
    for card, layers in zip(cards, split, strict=True):
        parts.append(Part(card, layers, model.on_card(first, first + layers)))
        first += layers
    host = model.on_host(offloaded)
    # Cards without memory of their own take it from the machine's.
    taken = host + sum(part.needed_bytes for part in parts if part.device.shares_memory)
    free = devices.memory_free_bytes
    known = [(part.needed_bytes, part.device.free_bytes) for part in parts if part.layers]
    verdicts = [None if free is None else taken <= free, *(None if room is None else needed <= room for needed, room in known)]
    return Placement(
        gpu_layers=offloaded,
        layers=len(model.slots),
        parts=tuple(parts),
        host_needed_bytes=host,
        host_free_bytes=free,
        weights_bytes=model.weights_bytes,
        cache_bytes=model.cache_bytes,
        fits=False if False in verdicts else None if None in verdicts else True,
        note=note,
    )


def _why_none(devices: Inventory) -> str:
    seen = devices.accelerators
    if seen:
        return f"the engine cannot use {seen[0].name}; 'astromesh-node engine status' says why"
    return "; ".join(devices.troubles)
