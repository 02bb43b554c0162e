"""The entries of one node, and which of two wins."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from types import MappingProxyType

from maia.view import EMPTY_OFFERS
from maia.wire.offers import KEYS_MAX, WITHDRAWN, Entry, Listed


class Shelf:
    """One node's entries of its newest generation. `hash` is the same on every node that has the same entries, whatever their order."""

    __slots__ = ("_offers", "by_key", "generation", "hash", "node", "node_id")

    def __init__(self, node: str, node_id: str) -> None:
        self.node = node
        self.node_id = node_id  # whose key has to have signed what stands here
        self.generation = -1
        self.by_key: dict[str, Entry] = {}
        self.hash = 0
        self._offers: Mapping[str, bytes] | None = EMPTY_OFFERS

    def lacks(self, node: str, generation: int, key: str, version: int) -> bool:
        """Whether that entry would be news here."""
        if node != self.node or generation < self.generation:
            return False
        held = self.by_key.get(key)
        if generation > self.generation:
            return True
        return len(self.by_key) < KEYS_MAX if held is None else version > held.version

    def put(self, entry: Entry) -> bool:
        """Keep a newer entry; False if it is no news. A newer generation clears what an earlier life of the node offered."""
        if not self.lacks(entry.node, entry.generation, entry.key, entry.version):
            return False
        if entry.generation > self.generation:
            self.begin(entry.generation)
        held = self.by_key.get(entry.key)
        if held is not None:
            self.hash ^= entry_hash(held)
        self.by_key[entry.key] = entry
        self.hash ^= entry_hash(entry)
        self._offers = None
        return True

    def begin(self, generation: int) -> bool:
        """The node restarted: drop what its earlier lives offered. True if that changed anything to see."""
        if generation <= self.generation:
            return False
        self.generation = generation
        had = bool(self.offers)
        self.by_key.clear()
        self.hash = 0
        self._offers = EMPTY_OFFERS
        return had

    @property
    def offers(self) -> Mapping[str, bytes]:
        """What is offered, by key and in the order of keys; withdrawn slots are not there."""
        if self._offers is None:
            self._offers = MappingProxyType({key: entry.value for key, entry in sorted(self.by_key.items()) if not entry.flags & WITHDRAWN})
        return self._offers

    def listing(self) -> list[Listed]:
        """What is in every slot, newest first: what was just lost is most likely what the other side lacks."""
        entries = sorted(self.by_key.values(), key=lambda entry: -entry.version)
        return [Listed(entry.node, entry.generation, entry.key, entry.version, entry.big) for entry in entries]


def entry_hash(entry: Entry) -> int:
    """Eight bytes over what identifies an entry. Combined by exclusive or, so that a shelf's hash needs no order and no second pass."""
    identity = b"%b\0%d\0%b\0%d" % (entry.node.encode(), entry.generation, entry.key.encode(), entry.version)
    return int.from_bytes(blake2b(identity, digest_size=8).digest(), "big")
