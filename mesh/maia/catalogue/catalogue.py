"""All shelves that this node keeps: its own, those of the living, and for a while those of the dead.

The root is a hash over the shelves of the living: two nodes with the same root have the same offers of the same members.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from maia.catalogue.pacing import Urgency
from maia.catalogue.shelf import Shelf
from maia.catalogue.signature import is_genuine, signed
from maia.errors import DatagramRejected, MisuseError
from maia.identity import Signer, node_id_of
from maia.view import EMPTY_OFFERS
from maia.wire.offers import ENTRY_OVERHEAD_BYTES, KEY_BYTES_MAX, KEYS_MAX, VALUE_BYTES_MAX, WITHDRAWN, Entry, Listed

OFFERS_BYTES_MAX: Final = 64 * 1024  # of one node, all values together
DEAD_KEPT_S: Final = 600.0  # a fast return finds its entries where they were
DEPARTED_MAX: Final = 10_000  # an id and two numbers each; ten times the largest mesh
DEPARTED_KEPT_S: Final = 86_400.0
ROOTS_REMEMBERED: Final = 64  # more changes than are ever on their way at once


class Departed(NamedTuple):
    """What is remembered of a node whose entries are forgotten: no straggler may bring an earlier life of it back."""

    node_id: str
    generation: int
    until_s: float


class Catalogue:
    """Entries by node. Which members live, and which key is whose, is told to it; it asks nobody.

    `signer` signs what this node offers, for this cluster alone.
    """

    def __init__(self, me: str, generation: int, *, signer: Signer, cluster_id: str) -> None:
        self.me = me
        self._signer = signer
        self._cluster_id = cluster_id
        self._own = Shelf(me, node_id_of(signer.public_key))
        self._own.begin(generation)
        self._version = 0
        self._held: dict[str, tuple[bytes | None, Urgency]] = {}  # what this node will offer, or withdraw, as soon as its pace allows
        self._shelves: dict[str, Shelf] = {me: self._own}
        self._living: dict[str, None] = {me: None}
        self._dead_since: dict[str, float] = {}
        self._departed: dict[str, Departed] = {}
        self._root = 0
        self._roots: deque[int] = deque((0,), maxlen=ROOTS_REMEMBERED)

    # --- reading ---

    @property
    def root(self) -> bytes:
        return self._root.to_bytes(8, "big")

    def has_had(self, root: bytes) -> bool:
        """Whether this was our own root, now or lately: whoever has it lacks something, and we lack nothing of theirs."""
        return int.from_bytes(root, "big") in self._roots

    @property
    def generation(self) -> int:
        """This node's own."""
        return self._own.generation

    def offers(self, node: str) -> Mapping[str, bytes]:
        shelf = self._shelves.get(node)
        return shelf.offers if shelf is not None else EMPTY_OFFERS

    @property
    def living_count(self) -> int:
        return len(self._living)

    def living_shelves(self) -> list[Shelf]:
        return [self._shelves[node] for node in self._living]

    def own_entries(self) -> list[Entry]:
        """Newest first."""
        return sorted(self._own.by_key.values(), key=lambda entry: -entry.version)

    def entry(self, node: str, key: str) -> Entry | None:
        shelf = self._shelves.get(node)
        return shelf.by_key.get(key) if shelf is not None else None

    def lacks(self, node: str, generation: int, key: str, version: int) -> bool:
        """Whether that entry would be kept."""
        if node == self.me:
            return False
        if node not in self._living and node not in self._dead_since:
            return False
        return self._shelves[node].lacks(node, generation, key, version)

    def overtaken(self, slot: Entry | Listed) -> bool:
        """Whether that is an entry of our own, newer than what we know: a later life of ours must have written it."""
        if slot.node != self.me or slot.generation < self.generation:
            return False
        held = self._own.by_key.get(slot.key)
        return slot.generation > self.generation or held is None or slot.version > held.version

    # --- this node's own ---

    def offer(self, key: str, value: bytes) -> Entry | None:
        """A new version of an own slot; None where it already holds `value`. Raises `MisuseError` over a limit."""
        self._check(key, value)
        self._held.pop(key, None)
        return None if self._own.offers.get(key) == value else self._write(key, 0, value)

    def hold(self, key: str, value: bytes | None, urgency: Urgency) -> None:
        """Keep a value, or with None a withdrawal, for `release`; until then everyone, this node too, sees the one before.

        Raises `MisuseError` over a limit.
        """
        if value is not None:
            self._check(key, value)
        before = self._held.pop(key, None)
        self._held[key] = (value, "at once" if before is not None and before[1] == "at once" else urgency)

    def holds(self, urgency: Urgency) -> bool:
        return any(how == urgency for _, how in self._held.values())

    def release(self, urgency: Urgency) -> list[Entry]:
        """New versions of the own slots whose held values differ from what they show."""
        due = [(key, value) for key, (value, how) in self._held.items() if how == urgency]
        made = [self.withdraw(key) if value is None else self.offer(key, value) for key, value in due]
        return [entry for entry in made if entry is not None]

    def _check(self, key: str, value: bytes) -> None:
        slots = {slot: len(entry.value) for slot, entry in self._own.by_key.items()}
        for slot, (held, _) in self._held.items():
            slots[slot] = max(slots.get(slot, 0), len(held or b""))  # one or the other is there at any time
        check_offer(key, value)
        check_room(key, value, slots)

    def withdraw(self, key: str) -> Entry | None:
        """Empty an own slot; None where it is empty."""
        self._held.pop(key, None)
        held = self._own.by_key.get(key)
        if held is None or held.flags & WITHDRAWN:
            return None
        return self._write(key, WITHDRAWN, b"")

    def reissue(self, generation: int) -> list[Entry]:
        """All own entries again under a higher generation, since entries of a later life of ours were met."""
        held = self.own_entries()
        self._turn(self._own.hash)
        self._own.begin(generation)
        return [self._write(entry.key, entry.flags, entry.value) for entry in reversed(held)]

    def _write(self, key: str, flags: int, value: bytes) -> Entry:
        self._version += 1
        entry = signed(
            Entry(self.me, self._own.generation, key, self._version, flags, value), signer=self._signer, cluster_id=self._cluster_id
        )
        self._put(self._own, entry)
        return entry

    # --- others' ---

    def accept(self, entry: Entry) -> bool:
        """Keep another node's entry if it is news; True if it was. Raises `DatagramRejected` where its owner did not sign it."""
        if not self.lacks(entry.node, entry.generation, entry.key, entry.version):
            return False
        self.check_signer(entry)
        self.check_signature(entry)
        return self._put(self._shelves[entry.node], entry)

    def check_signer(self, entry: Entry) -> None:
        """Whether an entry came with the key of its owner, a known node; that the key signed it is not checked, so this is cheap.

        Raises `DatagramRejected`.
        """
        if node_id_of(entry.signer) != self._shelves[entry.node].node_id:
            raise DatagramRejected("other-signer", f"{entry.key} of {entry.node}")

    def check_signature(self, entry: Entry) -> None:
        """Raises `DatagramRejected` where the key that came with an entry did not sign it, or for another cluster."""
        if not is_genuine(entry, cluster_id=self._cluster_id):
            raise DatagramRejected("bad-signature", f"{entry.key} of {entry.node}")

    def _put(self, shelf: Shelf, entry: Entry) -> bool:
        before = shelf.hash
        if not shelf.put(entry):
            return False
        if shelf.node in self._living:
            self._turn(before ^ shelf.hash)
        return True

    def _turn(self, difference: int) -> None:
        if difference:
            self._root ^= difference
            self._roots.append(self._root)

    def revive(self, node: str, generation: int, node_id: str) -> bool:
        """A member lives, in this generation and under this id; True if what it offers changed by that."""
        changed = self._dispossess(node, node_id)
        shelf = self._shelves.get(node)
        if shelf is None:
            shelf = self._shelves[node] = Shelf(node, node_id)
            departed = self._departed.get(node)
            if departed is not None and departed.node_id == node_id:
                shelf.begin(departed.generation)
        if node not in self._living:
            self._living[node] = None
            self._dead_since.pop(node, None)
            self._turn(shelf.hash)
        before = shelf.hash
        changed |= shelf.begin(generation)
        self._turn(before ^ shelf.hash)
        return changed

    def _dispossess(self, node: str, node_id: str) -> bool:
        """A name that everybody forgot may be another's by now: what stands under it is not his. True if that was to be seen."""
        shelf = self._shelves.get(node)
        if shelf is None or shelf.node_id == node_id or node == self.me:
            return False
        self.bury(node, 0.0)
        del self._shelves[node], self._dead_since[node]
        return bool(shelf.offers)

    def bury(self, node: str, now: float) -> None:
        """A member is gone: out of the root at once, kept for a while."""
        if node == self.me or node not in self._living:
            return
        del self._living[node]
        self._dead_since[node] = now
        self._turn(self._shelves[node].hash)

    def forget(self, now: float) -> list[str]:
        """Drop the entries of those long dead, and return whose they were; remembered is only what may not come back."""
        gone = [node for node, since_s in self._dead_since.items() if since_s + DEAD_KEPT_S <= now]
        forgotten: list[str] = []
        for node in gone:
            del self._dead_since[node]
            shelf = self._shelves.pop(node)
            self._departed.pop(node, None)
            self._departed[node] = Departed(shelf.node_id, shelf.generation, now + DEPARTED_KEPT_S)
            forgotten.append(node)
        for node in list(self._departed):
            if len(self._departed) <= DEPARTED_MAX and self._departed[node].until_s > now:
                break
            del self._departed[node]
        return forgotten


def check_offer(key: str, value: bytes) -> None:
    """Raises `MisuseError` for a key or a value that cannot travel."""
    if not key or not key.isprintable() or len(key.encode()) > KEY_BYTES_MAX:
        raise MisuseError(f"offer key {key!r} must be 1 to {KEY_BYTES_MAX} bytes of printable text")
    if len(value) > VALUE_BYTES_MAX:
        raise MisuseError(f"offer {key!r} has {len(value)} bytes; at most {VALUE_BYTES_MAX} travel")


def check_room(key: str, value: bytes, slots: Mapping[str, int]) -> None:
    """Raises `MisuseError` where `slots`, the bytes in each slot that was ever used, leave no room for the offer."""
    if key not in slots and len(slots) >= KEYS_MAX:
        raise MisuseError(f"no room for {key!r}: a node has {KEYS_MAX} slots, and a slot once used stays")
    others = sum(size for slot, size in slots.items() if slot != key)
    if others + len(value) > OFFERS_BYTES_MAX:
        raise MisuseError(f"{len(value)} bytes for {key!r} and {others} in other slots exceed the {OFFERS_BYTES_MAX} of a node")


def cut(entries: Iterable[Entry], *, budget_bytes: int) -> list[Entry]:
    """The first of `entries` whose values fit the budget. Every entry stands for itself, so a cut list is safe to apply."""
    kept: list[Entry] = []
    for entry in entries:
        budget_bytes -= len(entry.value) + len(entry.key) + len(entry.node) + ENTRY_OVERHEAD_BYTES
        if budget_bytes < 0:
            break
        kept.append(entry)
    return kept
